package jmoe.reference;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Capacity;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.RouterConfig.Selection;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/** The rules of {@link RouterConfig}, one token after the other. */
final class ReferenceRouter {
    private final RouterConfig config;
    private final @Nullable Tensor selectionBias;
    private final double[] logits;
    private final double[] scores;
    private final double[] candidates;
    private final boolean[] free;
    private final int[] ids;
    private final double[] weights;

    /** Whether a softmax over all experts is undefined, and with it every weight. */
    private boolean sumIsNan;

    private ReferenceRouter(RouterConfig config, @Nullable Tensor selectionBias) {
        this.config = config;
        this.selectionBias = selectionBias;
        logits = new double[config.numExperts()];
        scores = new double[config.numExperts()];
        candidates = new double[config.numExperts()];
        free = new boolean[config.numExperts()];
        ids = new int[config.topK()];
        weights = new double[config.topK()];
    }

    static void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        ReferenceRouter router = new ReferenceRouter(config, inputs.selectionBias());
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
                        : new int[0][];
        for (int token = 0; token < tokens; token++) {
            if (served[token]) {
                router.readLogits(logits, token, tokens);
                if (config.choosesByBatch()) {
                    router.weighChosen(chosen[token]);
                } else {
                    router.routeToken();
                }
                bestScores[token] = router.bestScore();
                weights[token] = router.weights.clone();
            }
            for (int k = 0; k < topK; k++) {
                int id = served[token] ? router.ids[k] : -1;
                routing.topkIds().setInt((long) token * topK + k, id);
            }
        }
        if (config.capacity() != null) {
            dropBeyondCapacity(config, config.capacity(), bestScores, routing.topkIds(), weights);
        }
        for (int token = 0; token < tokens; token++) {
            for (int k = 0; k < topK; k++) {
                double weight = weights[token][k];
                // One NaN for all, so that a repeated call gives the same bits.
                routing.topkWeights()
                        .setDouble(
                                (long) token * topK + k,
                                Double.isNaN(weight) ? Double.NaN : weight);
            }
        }
    }

    private void readLogits(Tensor all, long token, long tokens) {
        if (config.selection() instanceof Selection.ProductKeys p) {
            int n = p.numKeys();
            for (int i = 0; i < n; i++) {
                for (int j = 0; j < n; j++) {
                    logits[i * n + j] =
                            all.getDouble(token * n + i) + all.getDouble((tokens + token) * n + j);
                }
            }
            return;
        }
        for (int e = 0; e < logits.length; e++) {
            logits[e] = all.getDouble(token * logits.length + e);
        }
    }

    private void routeToken() {
        Arrays.fill(free, true);
        if (config.selection() instanceof Selection.SparseMixer mixer) {
            sparseMixer(mixer.jitter());
            return;
        }
        score();
        boolean byLogit = selectionBias == null && !config.judgesGroupsBySum();
        for (int e = 0; e < logits.length; e++) {
            double bias = selectionBias == null ? 0 : selectionBias.getDouble(e);
            candidates[e] = byLogit ? logits[e] : scores[e] + bias;
        }
        if (config.selection() instanceof Selection.GroupLimited limited) {
            keepBestGroups(limited);
        }
        for (int k = 0; k < ids.length; k++) {
            ids[k] = takeBest(candidates, free, 0, free.length);
        }
        weigh(ids.length);
    }

    /** Weighs the experts that a look at the whole batch has given this token; -1 for none. */
    private void weighChosen(int[] chosen) {
        score();
        Arrays.fill(weights, 0);
        int count = 0;
        for (int k = 0; k < ids.length; k++) {
            ids[k] = chosen[k];
            count += chosen[k] >= 0 ? 1 : 0;
        }
        weigh(count);
    }

    /**
     * Scores of the numbers, as if NaN logits were not there, so that they cannot decide who is
     * chosen; with an infinite maximum the limit of the softmax, all equal at the maximum.
     */
    private void score() {
        boolean anyNan = false;
        double max = Double.NEGATIVE_INFINITY;
        for (double z : logits) {
            anyNan |= Double.isNaN(z);
            max = z > max ? z : max;
        }
        boolean softmax = config.score() == Score.SOFTMAX;
        double sum = 0;
        for (int e = 0; e < logits.length; e++) {
            double z = logits[e];
            scores[e] = softmax ? Math.exp(z == max ? 0 : z - max) : ReferenceKernels.sigmoid(z);
            sum += Double.isNaN(z) ? 0 : scores[e];
        }
        if (softmax) {
            for (int e = 0; e < scores.length; e++) {
                scores[e] /= sum;
            }
        }
        sumIsNan = softmax && (anyNan || Double.isInfinite(max));
    }

    /** Takes the best free entry of a range; the lowest index of equals, NaN below every number. */
    static int takeBest(double[] values, boolean[] free, int from, int to) {
        int best = -1;
        for (int i = from; i < to; i++) {
            if (free[i] && (best < 0 || ranksAbove(values[i], values[best]))) {
                best = i;
            }
        }
        free[best] = false;
        return best;
    }

    private static boolean ranksAbove(double a, double b) {
        return a > b || (Double.isNaN(b) && !Double.isNaN(a));
    }

    /** Leaves only the experts of the best groups free: at least K. */
    private void keepBestGroups(Selection.GroupLimited limited) {
        int groupSize = candidates.length / limited.numGroups();
        double[] groupScores = new double[limited.numGroups()];
        boolean[] out = new boolean[limited.numGroups()];
        Arrays.fill(out, true);
        for (int g = 0; g < groupScores.length; g++) {
            int from = g * groupSize;
            groupScores[g] = candidates[takeBest(candidates, free, from, from + groupSize)];
            if (limited.groupScore() == GroupScore.TOP2_SUM && groupSize > 1) {
                groupScores[g] += candidates[takeBest(candidates, free, from, from + groupSize)];
            }
        }
        for (int k = 0; k < limited.topGroups(); k++) {
            takeBest(groupScores, out, 0, out.length);
        }
        for (int e = 0; e < free.length; e++) {
            free[e] = !out[e / groupSize];
        }
    }

    /** Weighs the first experts of {@code ids}, as many as there are. */
    private void weigh(int count) {
        double[] s = new double[count];
        if (config.score() == Score.SOFTMAX
                && config.normalisation() instanceof Normalisation.Sum sum
                && sum.epsilon() == 0) {
            // The softmax over the selected logits: the same weights, without underflow.
            double max = Double.NEGATIVE_INFINITY;
            for (int k = 0; k < s.length; k++) {
                max = Math.max(max, logits[ids[k]]);
            }
            for (int k = 0; k < s.length; k++) {
                s[k] = Math.exp(logits[ids[k]] - max);
            }
        } else {
            for (int k = 0; k < s.length; k++) {
                s[k] = sumIsNan ? Double.NaN : scores[ids[k]];
            }
        }
        boolean later = config.capacity() != null && config.capacity().normaliseAfter();
        double divisor = later ? 1 : divisor(config.normalisation(), s);
        for (int k = 0; k < s.length; k++) {
            weights[k] = s[k] / divisor * (later ? 1 : config.factor());
        }
    }

    private static double divisor(Normalisation normalisation, double[] s) {
        double sum = 0;
        for (double value : s) {
            sum += value;
        }
        return switch (normalisation) {
            case Normalisation.None none -> 1;
            case Normalisation.Sum n -> sum + n.epsilon();
            case Normalisation.ClampedSum n -> Math.max(sum, n.min());
            case Normalisation.PNorm n -> {
                double powers = 0;
                for (double value : s) {
                    powers += Math.pow(Math.abs(value), n.p());
                }
                yield Math.pow(powers, 1 / n.p());
            }
        };
    }

    private void sparseMixer(double jitter) {
        double[] rest = logits.clone();
        for (int k = 0; k < 2; k++) {
            ids[k] = takeBest(rest, free, 0, free.length);
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

    private double bestScore() {
        double best = sumIsNan ? Double.NaN : Double.NEGATIVE_INFINITY;
        for (double s : scores) {
            best = Math.max(best, s);
        }
        return best;
    }

    /** Tokens by position, or by falling best score: NaN first, of equals the earlier token. */
    private static int[] queue(Capacity capacity, double[] bestScores) {
        int[] order = new int[bestScores.length];
        for (int token = 0; token < order.length; token++) {
            int place = token;
            while (capacity.byProbability()
                    && place > 0
                    && Double.compare(bestScores[order[place - 1]], bestScores[token]) < 0) {
                order[place] = order[place - 1];
                place--;
            }
            order[place] = token;
        }
        return order;
    }

    private static void dropBeyondCapacity(
            RouterConfig config,
            Capacity capacity,
            double[] bestScores,
            Tensor ids,
            double[][] weights) {
        int[] order = queue(capacity, bestScores);
        long limit = capacity.limit(weights.length);
        long[] queued = new long[config.numExperts()];
        for (int k = 0; k < config.topK(); k++) {
            for (int token : order) {
                int id = ids.getInt((long) token * config.topK() + k);
                if (id >= 0 && queued[id]++ >= limit) {
                    weights[token][k] = 0;
                }
            }
        }
        if (capacity.normaliseAfter()) {
            for (double[] w : weights) {
                double divisor = divisor(config.normalisation(), w);
                for (int k = 0; k < w.length; k++) {
                    w[k] = w[k] == 0 ? 0 : w[k] / divisor * config.factor();
                }
            }
        }
    }
}
