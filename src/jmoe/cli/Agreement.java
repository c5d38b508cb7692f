package jmoe.cli;

import jmoe.Workspace;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * How far a result is from what was expected. An error is {@code max|a - b| / max|b|} over a whole
 * tensor, b being the expectation.
 *
 * @param tokens tokens compared
 * @param wrongTokens tokens that got other experts, or were kept or dropped wrongly
 * @param logits error of the router's logits
 * @param weights error of the experts' weights
 * @param y error of the output
 * @param notFinite values of the result that are NaN or infinite, right or wrong
 */
record Agreement(
        long tokens,
        long wrongTokens,
        double logits,
        double weights,
        double y,
        NotFinite notFinite) {
    /** Nothing compared yet. */
    static final Agreement NONE = new Agreement(0, 0, 0, 0, 0, new NotFinite(0, 0, 0));

    /**
     * Values that are NaN or infinite.
     *
     * @param logits of the router's logits
     * @param weights of the experts' weights
     * @param y of the output
     */
    record NotFinite(long logits, long weights, long y) {
        /** How many values of a tensor are not finite. */
        static long count(Tensor tensor) {
            long count = 0;
            for (long i = 0; i < tensor.numElements(); i++) {
                count += Double.isFinite(tensor.getDouble(i)) ? 0 : 1;
            }
            return count;
        }

        private NotFinite plus(NotFinite other) {
            return new NotFinite(logits + other.logits, weights + other.weights, y + other.y);
        }
    }

    /**
     * Largest errors that count as equal. Activations stay F32 whatever the weights are stored in,
     * so that one set serves all storage types: ten times what PyTorch in float32 is away from
     * float64.
     */
    static final double LOGITS_TOLERANCE = 2e-6;

    static final double WEIGHTS_TOLERANCE = 2e-6;
    static final double Y_TOLERANCE = 5e-6;

    /**
     * What a forward pass gives.
     *
     * @param routerLogits F32, any shape
     * @param topkIds I32 [tokens, topK], in any order per token
     * @param topkWeights F32 [tokens, topK], in the order of the ids
     * @param y F32 [tokens, hidden]
     */
    record Result(Tensor routerLogits, Tensor topkIds, Tensor topkWeights, Tensor y) {
        /** The last pass of a workspace; views that the next pass overwrites. */
        static Result of(Workspace workspace, Tensor y) {
            return new Result(
                    workspace.routerLogits(), workspace.topkIds(), workspace.topkWeights(), y);
        }
    }

    /** Compares what two passes over the same tokens gave. */
    static Agreement of(Result got, Result want) {
        long tokens = want.topkIds.dim(0);
        int topK = (int) want.topkIds.dim(1);
        try (Arena arena = Arena.ofConfined()) {
            Tensor gotWeights = Tensor.allocate(arena, DType.F32, tokens, topK);
            Tensor wantWeights = Tensor.allocate(arena, DType.F32, tokens, topK);
            int[] gotIds = new int[topK];
            int[] wantIds = new int[topK];
            long wrongTokens = 0;
            for (long token = 0; token < tokens; token++) {
                sortById(got, token, gotIds, gotWeights);
                sortById(want, token, wantIds, wantWeights);
                wrongTokens += Arrays.equals(gotIds, wantIds) ? 0 : 1;
            }
            return new Agreement(
                    tokens,
                    wrongTokens,
                    error(got.routerLogits, want.routerLogits),
                    error(gotWeights, wantWeights),
                    error(got.y, want.y),
                    new NotFinite(
                            NotFinite.count(got.routerLogits),
                            NotFinite.count(got.topkWeights),
                            NotFinite.count(got.y)));
        }
    }

    /** Routers select in different orders; only the set of experts matters. */
    private static void sortById(Result result, long token, int[] ids, Tensor weights) {
        int topK = ids.length;
        for (int k = 0; k < topK; k++) {
            int id = result.topkIds.getInt(token * topK + k);
            double weight = result.topkWeights.getDouble(token * topK + k);
            int at = k;
            while (at > 0 && ids[at - 1] > id) {
                ids[at] = ids[at - 1];
                weights.setDouble(token * topK + at, weights.getDouble(token * topK + at - 1));
                at--;
            }
            ids[at] = id;
            weights.setDouble(token * topK + at, weight);
        }
    }

    /** {@code max|got - want| / max|want|}; equal infinities and NaN on both sides are no error. */
    static double error(Tensor got, Tensor want) {
        if (got.numElements() != want.numElements()) {
            return Double.POSITIVE_INFINITY;
        }
        double difference = 0;
        double largest = 0;
        for (long i = 0; i < want.numElements(); i++) {
            double a = got.getDouble(i);
            double b = want.getDouble(i);
            if (Double.isFinite(b)) {
                largest = Math.max(largest, Math.abs(b));
            }
            if (Double.compare(a, b) != 0 && a != b) {
                double d = Math.abs(a - b);
                difference = Math.max(difference, Double.isNaN(d) ? Double.POSITIVE_INFINITY : d);
            }
        }
        return difference == 0 ? 0 : difference / largest;
    }

    /** Both comparisons as one: the larger of each error. */
    Agreement worst(Agreement other) {
        return new Agreement(
                tokens + other.tokens,
                wrongTokens + other.wrongTokens,
                Math.max(logits, other.logits),
                Math.max(weights, other.weights),
                Math.max(y, other.y),
                notFinite.plus(other.notFinite));
    }

    /** The same with more wrong tokens. */
    Agreement withWrongTokens(long more) {
        return new Agreement(tokens, wrongTokens + more, logits, weights, y, notFinite);
    }

    /** Whether everything counts as equal. */
    boolean within() {
        return wrongTokens == 0
                && logits <= LOGITS_TOLERANCE
                && weights <= WEIGHTS_TOLERANCE
                && y <= Y_TOLERANCE;
    }

    /** For programs. */
    Map<String, Object> json() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("tokens", tokens);
        json.put("wrong_tokens", wrongTokens);
        json.put("router_logits", logits);
        json.put("topk_weights", weights);
        json.put("y", y);
        json.put("not_finite", notFinite.y);
        json.put("within", within());
        return json;
    }

    /** The tolerances for programs. */
    static Map<String, Object> tolerancesJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("wrong_tokens", 0);
        json.put("router_logits", LOGITS_TOLERANCE);
        json.put("topk_weights", WEIGHTS_TOLERANCE);
        json.put("y", Y_TOLERANCE);
        return json;
    }
}
