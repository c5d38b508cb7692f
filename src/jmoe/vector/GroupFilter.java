package jmoe.vector;

import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.Selection.GroupLimited;

/** Keeps the best groups of consecutive experts. */
final class GroupFilter {
    private final int numGroups;
    private final int groupSize;
    private final boolean byTwoBest;
    private final TopK pair;
    private final TopK groups;
    private final int[] pairIds;
    private final int[] groupIds;

    GroupFilter(int numExperts, GroupLimited rule) {
        numGroups = rule.numGroups();
        groupSize = numExperts / numGroups;
        byTwoBest = rule.groupScore() == GroupScore.TOP2_SUM && groupSize > 1;
        pairIds = new int[byTwoBest ? 2 : 1];
        pair = new TopK(pairIds.length);
        groupIds = new int[rule.topGroups()];
        groups = new TopK(groupIds.length);
    }

    /**
     * Offers the candidates of the best groups, and no others: they hold at least K experts.
     *
     * @param candidates by expert
     * @param to considers the candidates
     */
    void offerBest(double[] candidates, TopK to) {
        groups.clear();
        for (int g = 0; g < numGroups; g++) {
            groups.offer(groupScore(candidates, g), g);
        }
        groups.drain(groupIds);
        for (int g : groupIds) {
            for (int e = g * groupSize; e < (g + 1) * groupSize; e++) {
                to.offer(candidates[e], e);
            }
        }
    }

    private double groupScore(double[] candidates, int group) {
        pair.clear();
        for (int e = group * groupSize; e < (group + 1) * groupSize; e++) {
            pair.offer(candidates[e], e);
        }
        pair.drain(pairIds);
        double best = candidates[pairIds[0]];
        return byTwoBest ? (float) (best + candidates[pairIds[1]]) : best;
    }
}
