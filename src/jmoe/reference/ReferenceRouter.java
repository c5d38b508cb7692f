package jmoe.reference;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/** The rules of {@link RouterConfig}, one token after the other. */
final class ReferenceRouter {
    private final RouterConfig config;
    private final RouteInputs inputs;
    private final ReferenceSelection selection;
    private final double[] logits;
    private final double[] scores;
    private final double[] candidates;
    private final boolean[] free;
    private final int[] ids;
    private final double[] weights;

    /** Whether the softmax that an expert is in is undefined, and with it the expert's weight. */
    private final boolean[] undefined;

    /** Where a softmax runs over tokens. */
    private @Nullable ReferenceColumns columns;

    private ReferenceRouter(RouterConfig config, RouteInputs inputs) {
        this.config = config;
        this.inputs = inputs;
        logits = new double[config.numExperts()];
        scores = new double[config.numExperts()];
        candidates = new double[config.numExperts()];
        free = new boolean[config.numExperts()];
        ids = new int[config.topK()];
        weights = new double[config.topK()];
        undefined = new boolean[config.numExperts()];
        selection = new ReferenceSelection(config, logits, scores, candidates, free, ids);
    }

    static void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        ReferenceRouter router = new ReferenceRouter(config, inputs);
        Tensor tokenTypes = inputs.tokenTypes();
        int tokens = Math.toIntExact(routing.tokens());
        int topK = config.topK();
        double[][] weights = new double[tokens][topK];
        double[] bestScores = new double[tokens];
        boolean[] served = new boolean[tokens];
        for (int token = 0; token < tokens; token++) {
            served[token] = tokenTypes == null || config.serves(tokenTypes.getInt(token));
        }
        int[][] chosen =
                config.choosesByBatch()
                        ? ReferenceBatchRouter.choose(logits, config, served)
                        : new int[tokens][];
        if (config.selection() instanceof Selection.ExpertChoice c && c.scope() == Scope.TOKENS) {
            router.columns = new ReferenceColumns(logits, served, config.numExperts());
        }
        for (int token = 0; token < tokens; token++) {
            if (served[token]) {
                router.routeToken(logits, token, tokens, chosen[token]);
                bestScores[token] = (float) router.bestScore();
                weights[token] = router.weights.clone();
            }
            for (int k = 0; k < topK; k++) {
                int id = served[token] ? router.ids[k] : -1;
                routing.topkIds().setInt((long) token * topK + k, id);
            }
        }
        if (config.capacity() != null) {
            int[][] ranked = ranked(logits, config, inputs, tokens);
            Tensor stay = inputs.protectedTokens();
            new ReferenceCapacity(logits, config, routing.topkIds(), weights, stay)
                    .apply(bestScores, ranked);
        }
        Tensor scale = inputs.expertScale();
        for (int token = 0; token < tokens; token++) {
            for (int k = 0; k < topK; k++) {
                double weight = weights[token][k];
                int id = routing.topkIds().getInt((long) token * topK + k);
                weight *= scale == null || id < 0 ? 1 : scale.getDouble(id);
                // One NaN for all, so that a repeated call gives the same bits.
                routing.topkWeights()
                        .setDouble(
                                (long) token * topK + k,
                                Double.isNaN(weight) ? Double.NaN : weight);
            }
        }
    }

    /** Experts by falling candidate, more than K of them; null if nobody asks for these. */
    private static int @Nullable [][] ranked(
            Tensor logits, RouterConfig config, RouteInputs inputs, int tokens) {
        RouterConfig ranking = config.capacity().ranking(config);
        if (ranking == null) {
            return null;
        }
        ReferenceRouter router = new ReferenceRouter(ranking, inputs);
        int[][] ranked = new int[tokens][];
        for (int token = 0; token < tokens; token++) {
            router.routeToken(logits, token, tokens, null);
            ranked[token] = router.ids.clone();
        }
        return ranked;
    }

    /**
     * Routes a token.
     *
     * @param chosen its experts if the whole batch has decided about them, -1 for none; or null
     */
    private void routeToken(Tensor all, long token, long tokens, int @Nullable [] chosen) {
        if (config.selection() instanceof Selection.Hash) {
            ReferenceHash.select(inputs, token, config.numExperts(), ids);
            Arrays.fill(scores, 1);
            weigh();
            return;
        }
        readLogits(all, token, tokens);
        freeActive();
        if (config.selection() instanceof Selection.SparseMixer mixer) {
            sparseMixer(mixer.jitter());
            return;
        }
        if (columns != null) {
            columns.score(logits, scores, undefined);
        } else {
            score();
        }
        if (chosen != null) {
            System.arraycopy(chosen, 0, ids, 0, ids.length);
            weigh();
            return;
        }
        Tensor bias = inputs.selectionBias();
        boolean byLogit = bias == null && !config.judgesGroupsBySum();
        for (int e = 0; e < logits.length; e++) {
            float added = bias == null ? 0 : bias.getFloat(e);
            candidates[e] = byLogit ? logits[e] : (float) scores[e] + added;
        }
        selection.select();
        weigh();
    }

    private void readLogits(Tensor all, long token, long tokens) {
        for (int e = 0; e < logits.length; e++) {
            logits[e] = logit(all, config, token, tokens, e);
        }
    }

    /** The logit of one expert. */
    static double logit(Tensor all, RouterConfig config, long token, long tokens, int expert) {
        if (config.selection() instanceof Selection.ProductKeys p) {
            int n = p.numKeys();
            return all.getDouble(token * n + expert / n)
                    + all.getDouble((tokens + token) * n + expert % n);
        }
        return all.getDouble(token * config.numExperts() + expert);
    }

    private void freeActive() {
        for (int e = 0; e < free.length; e++) {
            free[e] = isActive(e);
        }
    }

    private boolean isActive(int expert) {
        Tensor active = inputs.activeExperts();
        return active == null || active.getInt(expert) != 0;
    }

    /** A softmax over all experts, over each group's, or each expert's own score. */
    private void score() {
        if (config.score() == Score.SOFTMAX) {
            int width =
                    config.selection() instanceof Selection.OnePerGroup one
                                    && one.scope() == Scope.LOCAL
                            ? logits.length / one.numGroups()
                            : logits.length;
            for (int from = 0; from < logits.length; from += width) {
                softmax(from, from + width);
            }
            return;
        }
        for (int e = 0; e < logits.length; e++) {
            double z = logits[e];
            scores[e] =
                    switch (config.score()) {
                        case SIGMOID -> ReferenceActivation.sigmoid(z);
                        case SQRT_SOFTPLUS -> Math.sqrt(softplus(z));
                        default -> z;
                    };
        }
    }

    /** log(1 + exp(z)), where exp neither overflows nor is lost beside 1. */
    private static double softplus(double z) {
        return Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
    }

    /**
     * Scores of the numbers, as if NaN logits were not there, so that they cannot decide who is
     * chosen; with an infinite maximum the limit of the softmax, all equal at the maximum.
     */
    private void softmax(int from, int to) {
        boolean anyNan = false;
        double max = Double.NEGATIVE_INFINITY;
        for (int e = from; e < to; e++) {
            anyNan |= free[e] && Double.isNaN(logits[e]);
            max = free[e] && logits[e] > max ? logits[e] : max;
        }
        double sum = 0;
        for (int e = from; e < to; e++) {
            double z = logits[e];
            scores[e] = Math.exp(z == max ? 0 : z - max);
            sum += Double.isNaN(z) || !free[e] ? 0 : scores[e];
        }
        for (int e = from; e < to; e++) {
            scores[e] /= sum;
            undefined[e] = anyNan || Double.isInfinite(max);
        }
    }

    private void weigh() {
        double[] s = new double[ids.length];
        if (config.isSoftmaxOfSelected()) {
            // The same weights as scores over their sum, without underflow.
            double max = Double.NEGATIVE_INFINITY;
            for (int id : ids) {
                max = id < 0 ? max : Math.max(max, logits[id]);
            }
            for (int k = 0; k < s.length; k++) {
                s[k] = ids[k] < 0 ? 0 : Math.exp(logits[ids[k]] - max);
            }
        } else {
            for (int k = 0; k < s.length; k++) {
                s[k] = ids[k] < 0 ? 0 : undefined[ids[k]] ? Double.NaN : scores[ids[k]];
            }
        }
        boolean later = config.capacity() != null && config.capacity().normaliseAfter();
        boolean levels = config.selection() instanceof Selection.TwoLevel;
        if (levels && config.normalisation() instanceof Normalisation.Sum) {
            normaliseLevels(s);
        }
        double divisor = later || levels ? 1 : divisor(config.normalisation(), chosen(s));
        for (int k = 0; k < s.length; k++) {
            weights[k] = ids[k] < 0 ? 0 : s[k] / divisor * (later ? 1 : config.factor());
        }
    }

    /** The scores of the slots that have an expert. */
    private double[] chosen(double[] s) {
        double[] chosen = new double[s.length];
        int count = 0;
        for (int k = 0; k < s.length; k++) {
            if (ids[k] >= 0) {
                chosen[count++] = s[k];
            }
        }
        return Arrays.copyOf(chosen, count);
    }

    /** Divides the share of a group by that of all selected, of an expert by its group's. */
    private void normaliseLevels(double[] s) {
        Selection.TwoLevel two = (Selection.TwoLevel) config.selection();
        int width = logits.length / two.numGroups();
        freeActive();
        double[] shares = new double[two.topGroups()];
        double all = 0;
        for (int i = 0; i < shares.length; i++) {
            int id = ids[i * two.perGroup()];
            if (id >= 0) {
                int from = id / width * width;
                shares[i] = ReferenceSelection.sumOfNumbers(scores, free, from, from + width);
                all += shares[i];
            }
        }
        for (int i = 0; i < shares.length; i++) {
            double selected = 0;
            for (int j = 0; j < two.perGroup(); j++) {
                selected += s[i * two.perGroup() + j];
            }
            for (int j = 0; j < two.perGroup(); j++) {
                int k = i * two.perGroup() + j;
                // The weight of a group without weight is 0, whatever its experts share.
                s[k] = s[k] == 0 ? 0 : shares[i] / all * (s[k] / selected);
            }
        }
    }

    /** What scores are divided by to become weights. */
    static double divisor(Normalisation normalisation, double[] s) {
        double sum = 0;
        for (double value : s) {
            sum += value;
        }
        return switch (normalisation) {
            case Normalisation.None none -> 1;
            case Normalisation.Sum n -> sum + n.epsilon();
            case Normalisation.ClampedSum n -> Math.max(sum, n.minSum());
            case Normalisation.PNorm n -> {
                double powers = 0;
                for (double value : s) {
                    powers += Math.pow(Math.abs(value), n.p());
                }
                yield Math.pow(powers, 1 / n.p());
            }
            case Normalisation.Count n -> Math.max(1, s.length);
        };
    }

    private void sparseMixer(double jitter) {
        double[] rest = logits.clone();
        for (int k = 0; k < 2; k++) {
            ids[k] = ReferenceSelection.takeBest(rest, free, 0, free.length);
            double max = rest[ids[k]];
            double sum = 0;
            for (int e = 0; e < rest.length; e++) {
                double distance = (max - logits[e]) / Math.max(Math.abs(logits[e]), max);
                if (!(distance > 2 * jitter)) {
                    sum += Math.exp(rest[e] - max);
                }
            }
            weights[k] = config.factor() / sum;
            rest[ids[k]] = Double.NEGATIVE_INFINITY;
        }
    }

    /** NaN if one of the scores is. */
    private double bestScore() {
        double best = Double.NEGATIVE_INFINITY;
        for (int e = 0; e < scores.length; e++) {
            if (isActive(e)) {
                best = Math.max(best, undefined[e] ? Double.NaN : scores[e]);
            }
        }
        return best;
    }
}
