package jmoe.vector;

import jmoe.ops.Capacity.Priority;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;

import org.jspecify.annotations.Nullable;

/**
 * The rules of few models for one token at a time: one expert per group, a number of experts that
 * depends on the token, two levels, and any rule over a row of logits with inactive experts. What
 * is selected is the business of {@link RarePick}; here are scores and weights.
 */
final class RareRouter {
    private final RouterConfig config;
    private final int width;
    private final int[] ids;
    private final double[] weights;
    private final float[] row;
    private final double[] logits;
    private final double[] scores;
    private final double[] candidates;
    private final boolean[] active;
    private final boolean[] undefined;
    private final RarePick pick;
    private final boolean scoresAll;

    /** Writes ids and weights, not yet normalised, into arrays of the caller's. */
    RareRouter(RouterConfig config, int[] ids, double[] weights) {
        this.config = config;
        this.ids = ids;
        this.weights = weights;
        int numExperts = config.numExperts();
        boolean local =
                config.selection() instanceof Selection.OnePerGroup one
                        && one.scope() == Scope.LOCAL;
        width = local ? numExperts / config.topK() : numExperts;
        row = new float[Lanes.padded(numExperts)];
        logits = new double[numExperts];
        scores = new double[numExperts];
        candidates = new double[numExperts];
        active = new boolean[numExperts];
        undefined = new boolean[numExperts];
        pick = new RarePick(config, logits, scores, candidates, active);
        scoresAll =
                !config.isSoftmaxOfSelected()
                        || config.judgesGroupsBySum()
                        || config.selection() instanceof Selection.TopP
                        || (config.capacity() != null
                                && config.capacity().priority() != Priority.POSITION);
    }

    /** Whether a rule is routed here even if all experts are active. */
    static boolean serves(RouterConfig config) {
        return switch (config.selection()) {
            case Selection.OnePerGroup o -> true;
            case Selection.TopP p -> true;
            case Selection.EntropyK e -> true;
            case Selection.TwoLevel t -> true;
            case Selection.GroupLimited g -> g.groupScore() == GroupScore.TOP_SHARE_SUM;
            default -> false;
        };
    }

    void route(
            Elements all, @Nullable Elements bias, @Nullable Elements activeExperts, long token) {
        int numExperts = logits.length;
        all.read(token * numExperts, numExperts, row, 0);
        for (int e = 0; e < numExperts; e++) {
            logits[e] = row[e];
            active[e] = activeExperts == null || activeExperts.getInt(e) != 0;
        }
        boolean byLogit = bias == null && !config.judgesGroupsBySum();
        if (scoresAll || !byLogit) {
            score();
        }
        for (int e = 0; e < numExperts; e++) {
            float added = bias == null ? 0 : bias.getFloat(e);
            candidates[e] = byLogit ? logits[e] : (float) scores[e] + added;
        }
        pick.select(ids);
        weigh();
    }

    /** The best score of the last token, NaN if one is; valid if tokens queue by it. */
    double bestScore() {
        double best = Double.NEGATIVE_INFINITY;
        for (int e = 0; e < scores.length; e++) {
            if (active[e]) {
                best = Math.max(best, undefined[e] ? Double.NaN : scores[e]);
            }
        }
        return best;
    }

    private void score() {
        if (config.score() == Score.SOFTMAX) {
            for (int from = 0; from < scores.length; from += width) {
                softmax(from, from + width);
            }
            return;
        }
        for (int e = 0; e < scores.length; e++) {
            scores[e] = TokenRouter.ownScore(config.score(), logits[e]);
        }
    }

    /** As {@link TokenRouter}'s, over the active experts of a range. */
    private void softmax(int from, int to) {
        boolean anyNan = false;
        double max = Double.NEGATIVE_INFINITY;
        for (int e = from; e < to; e++) {
            if (active[e]) {
                anyNan |= Double.isNaN(logits[e]);
                max = logits[e] > max ? logits[e] : max;
            }
        }
        double sum = 0;
        for (int e = from; e < to; e++) {
            double z = logits[e];
            if (active[e]) {
                scores[e] = Math.exp(z == max ? 0 : z - max);
                sum += Double.isNaN(z) ? 0 : scores[e];
            }
        }
        boolean isUndefined = anyNan || Double.isInfinite(max);
        for (int e = from; e < to; e++) {
            scores[e] /= sum;
            undefined[e] = isUndefined;
        }
    }

    private void weigh() {
        boolean ofSelected = config.isSoftmaxOfSelected();
        double max = Double.NEGATIVE_INFINITY;
        for (int id : ids) {
            max = id < 0 ? max : Math.max(max, logits[id]);
        }
        for (int k = 0; k < ids.length; k++) {
            int id = ids[k];
            if (id < 0) {
                weights[k] = 0;
            } else if (ofSelected) {
                weights[k] = Math.exp(logits[id] - max);
            } else {
                weights[k] = undefined[id] ? Double.NaN : scores[id];
            }
        }
        if (config.selection() instanceof Selection.TwoLevel two
                && config.normalisation() instanceof RouterConfig.Normalisation.Sum) {
            normaliseLevels(two.topGroups(), two.perGroup(), logits.length / two.numGroups());
        }
    }

    /** Divides the share of a group by that of all selected, of an expert by its group's. */
    private void normaliseLevels(int topGroups, int perGroup, int groupSize) {
        double all = 0;
        for (int i = 0; i < topGroups; i++) {
            int id = ids[i * perGroup];
            all += id < 0 ? 0 : pick.sum(scores, id / groupSize * groupSize, groupSize);
        }
        for (int from = 0; from < ids.length; from += perGroup) {
            double selected = 0;
            for (int k = from; k < from + perGroup; k++) {
                selected += weights[k];
            }
            int id = ids[from];
            double share =
                    id < 0 ? 0 : pick.sum(scores, id / groupSize * groupSize, groupSize) / all;
            for (int k = from; k < from + perGroup; k++) {
                weights[k] = weights[k] == 0 ? 0 : share * (weights[k] / selected);
            }
        }
    }
}
