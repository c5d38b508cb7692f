package jmoe.reference;

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
    private final int[] ids;
    private final double[] weights;
    private boolean anyNan;

    private ReferenceRouter(RouterConfig config, @Nullable Tensor selectionBias) {
        this.config = config;
        this.selectionBias = selectionBias;
        logits = new double[config.numExperts()];
        scores = new double[config.numExperts()];
        candidates = new double[config.numExperts()];
        ids = new int[config.topK()];
        weights = new double[config.topK()];
    }

    static void route(
            Tensor logits,
            RouterConfig config,
            @Nullable Tensor selectionBias,
            @Nullable Tensor tokenTypes,
            Routing routing) {
        ReferenceRouter router = new ReferenceRouter(config, selectionBias);
        int tokens = Math.toIntExact(routing.tokens());
        int topK = config.topK();
        double[][] weights = new double[tokens][topK];
        double[] bestScores = new double[tokens];
        for (int token = 0; token < tokens; token++) {
            boolean served =
                    config.tokenType() == RouterConfig.ALL_TOKENS
                            || tokenTypes.getInt(token) == config.tokenType();
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
            dropBeyondCapacity(config, config.capacity(), bestScores, routing.topkIds(), weights);
        }
        for (int token = 0; token < tokens; token++) {
            for (int k = 0; k < topK; k++) {
                routing.topkWeights().setDouble((long) token * topK + k, weights[token][k]);
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
            ids[k] = best(candidates, ids, k);
        }
        weigh();
    }

    /**
     * Scores of the numbers, as if NaN logits were not there, so that they cannot decide who is
     * chosen.
     */
    private void score() {
        anyNan = false;
        double max = Double.NEGATIVE_INFINITY;
        for (double z : logits) {
            anyNan |= Double.isNaN(z);
            max = z > max ? z : max;
        }
        double sum = 0;
        for (int e = 0; e < logits.length; e++) {
            scores[e] =
                    config.score() == Score.SOFTMAX
                            ? Math.exp(logits[e] - max)
                            : ReferenceKernels.sigmoid(logits[e]);
            sum += Double.isNaN(scores[e]) ? 0 : scores[e];
        }
        if (config.score() == Score.SOFTMAX) {
            for (int e = 0; e < scores.length; e++) {
                scores[e] /= sum;
            }
        }
    }

    /** The best entry that is not taken yet; the lowest index of equals, NaN below everything. */
    private static int best(double[] values, int[] taken, int numTaken) {
        int best = -1;
        for (int e = 0; e < values.length; e++) {
            boolean free = true;
            for (int k = 0; k < numTaken; k++) {
                free &= taken[k] != e;
            }
            if (free && (best < 0 || ranksAbove(values[e], values[best]))) {
                best = e;
            }
        }
        return best;
    }

    private static boolean ranksAbove(double a, double b) {
        return a > b || (Double.isNaN(b) && !Double.isNaN(a));
    }

    private void keepBestGroups(Selection.GroupLimited limited) {
        int groupSize = candidates.length / limited.numGroups();
        double[] groupScores = new double[limited.numGroups()];
        for (int g = 0; g < groupScores.length; g++) {
            double[] group = Arrays.copyOfRange(candidates, g * groupSize, (g + 1) * groupSize);
            int[] top = {best(group, new int[0], 0), -1};
            groupScores[g] = group[top[0]];
            if (limited.groupScore() == GroupScore.TOP2_SUM && groupSize > 1) {
                groupScores[g] += group[best(group, top, 1)];
            }
        }
        int[] kept = new int[limited.topGroups()];
        for (int k = 0; k < kept.length; k++) {
            kept[k] = best(groupScores, kept, k);
        }
        for (int e = 0; e < candidates.length; e++) {
            int group = e / groupSize;
            if (Arrays.stream(kept).noneMatch(g -> g == group)) {
                candidates[e] = Double.NaN; // below -inf, so that a kept group always wins
            }
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
            boolean sumIsNan = config.score() == Score.SOFTMAX && anyNan;
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
        double sum = Arrays.stream(s).sum();
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
            ids[k] = best(rest, ids, k);
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
        double best = Double.NEGATIVE_INFINITY;
        for (double s : scores) {
            best = Math.max(best, s);
        }
        return best;
    }

    private static void dropBeyondCapacity(
            RouterConfig config,
            Capacity capacity,
            double[] bestScores,
            Tensor ids,
            double[][] weights) {
        Integer[] order = new Integer[weights.length];
        Arrays.setAll(order, token -> token);
        if (capacity.byProbability()) {
            Arrays.sort(order, (a, b) -> Double.compare(bestScores[b], bestScores[a]));
        }
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
