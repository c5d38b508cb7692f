package jmoe.reference;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
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
        for (int token = 0; token < tokens; token++) {
            boolean served = tokenTypes == null || config.serves(tokenTypes.getInt(token));
            if (served) {
                router.readLogits(logits, token, tokens);
                router.routeToken();
                bestScores[token] = router.bestScore();
                weights[token] = router.weights.clone();
            }
            for (int k = 0; k < topK; k++) {
                routing.topkIds().setInt((long) token * topK + k, served ? router.ids[k] : -1);
            }
        }
        if (config.capacity() != null) {
            int[][] ranked = ranked(logits, config, inputs, tokens);
            new ReferenceCapacity(logits, config, routing.topkIds(), weights)
                    .apply(bestScores, ranked);
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

    /** Experts by falling candidate, more than K of them; null if nobody asks for these. */
    private static int @Nullable [][] ranked(
            Tensor logits, RouterConfig config, RouteInputs inputs, int tokens) {
        RouterConfig ranking = config.capacity().ranking(config);
        if (ranking == null) {
            return null;
        }
        ReferenceRouter router = new ReferenceRouter(ranking, inputs.selectionBias());
        int[][] ranked = new int[tokens][];
        for (int token = 0; token < tokens; token++) {
            router.readLogits(logits, token, tokens);
            router.routeToken();
            ranked[token] = router.ids.clone();
        }
        return ranked;
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
        weigh();
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
    private static int takeBest(double[] values, boolean[] free, int from, int to) {
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

    private void weigh() {
        double[] s = new double[ids.length];
        if (config.score() == Score.SOFTMAX
                && config.normalisation() instanceof Normalisation.Sum sum
                && sum.epsilon() == 0) {
            // The softmax over the selected logits: the same weights, without underflow.
            double max = Double.NEGATIVE_INFINITY;
            for (int id : ids) {
                max = Math.max(max, logits[id]);
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

    /** What scores are divided by to become weights. */
    static double divisor(Normalisation normalisation, double[] s) {
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
}
