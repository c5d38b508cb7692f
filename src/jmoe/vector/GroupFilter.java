package jmoe.vector;

import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Selection.GroupLimited;

/** Keeps the best groups of consecutive experts. */
final class GroupFilter {
    private final int numGroups;
    private final int groupSize;
    private final boolean byTwoBest;
    private final TopK pair;
    private final TopK groups;
    private final int[] pairIds;
    private final int[] groupIds;
    private final boolean[] kept;

    GroupFilter(int numExperts, GroupLimited rule) {
        numGroups = rule.numGroups();
        groupSize = numExperts / numGroups;
        byTwoBest = rule.groupScore() == GroupScore.TOP2_SUM && groupSize > 1;
        pairIds = new int[byTwoBest ? 2 : 1];
        pair = new TopK(pairIds.length);
        groupIds = new int[rule.topGroups()];
        groups = new TopK(groupIds.length);
        kept = new boolean[numGroups];
    }

    /** Replaces the candidates of all other groups by NaN, which is below -inf. */
    void filter(double[] candidates) {
        groups.clear();
        for (int g = 0; g < numGroups; g++) {
            groups.offer(groupScore(candidates, g), g);
            kept[g] = false;
        }
        groups.drain(groupIds);
        for (int g : groupIds) {
            kept[g] = true;
        }
        for (int e = 0; e < candidates.length; e++) {
            if (!kept[e / groupSize]) {
                candidates[e] = Double.NaN;
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
        return byTwoBest ? best + candidates[pairIds[1]] : best;
    }
}
