package jmoe.vector;

import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;

import java.util.Arrays;

/** Which experts a token gets by the rules of {@link RareRouter}, whose arrays it reads. */
final class RarePick {
    private final RouterConfig config;
    private final double[] logits;
    private final double[] scores;
    private final double[] candidates;
    private final boolean[] active;
    private final int numGroups;
    private final int groupSize;

    /** The best of all, and of one group. */
    private final TopK top;

    private final TopK ofGroup;
    private final TopK groups;
    private final int[] topIds;
    private final int[] memberIds;
    private final int[] groupIds;

    RarePick(
            RouterConfig config,
            double[] logits,
            double[] scores,
            double[] candidates,
            boolean[] active) {
        this.config = config;
        this.logits = logits;
        this.scores = scores;
        this.candidates = candidates;
        this.active = active;
        int topGroups;
        int fromGroup;
        switch (config.selection()) {
            case Selection.GroupLimited g -> {
                numGroups = g.numGroups();
                topGroups = g.topGroups();
                fromGroup = config.judgedPerGroup();
            }
            case Selection.OnePerGroup one -> {
                numGroups = one.numGroups();
                topGroups = 0;
                fromGroup = 1;
            }
            case Selection.TwoLevel two -> {
                numGroups = two.numGroups();
                topGroups = two.topGroups();
                fromGroup = two.perGroup();
            }
            default -> {
                numGroups = 1;
                topGroups = 0;
                fromGroup = 0;
            }
        }
        groupSize = logits.length / numGroups;
        topIds = new int[config.topK()];
        top = new TopK(topIds.length);
        memberIds = new int[fromGroup];
        ofGroup = new TopK(fromGroup);
        groupIds = new int[topGroups];
        groups = new TopK(topGroups);
    }

    /** Writes K ids, -1 where nobody is left. */
    void select(int[] ids) {
        Arrays.fill(ids, -1);
        switch (config.selection()) {
            case Selection.GroupLimited g -> {
                rankGroups(false);
                for (int group : groupIds) {
                    if (group >= 0) {
                        offer(top, group * groupSize, (group + 1) * groupSize);
                    }
                }
                top.drain(ids);
            }
            case Selection.OnePerGroup one -> {
                for (int g = 0; g < numGroups; g++) {
                    bestMembers(g);
                    ids[g] = memberIds[0];
                }
            }
            case Selection.TopP p -> takeUntil(p.p(), p.minExperts(), ids);
            case Selection.EntropyK e -> {
                double wanted = Math.ceil(e.alpha() * entropy() - 1e-9);
                int count = (int) Math.min(ids.length, Math.max(e.minExperts(), wanted));
                rankAll();
                System.arraycopy(topIds, 0, ids, 0, count);
            }
            case Selection.TwoLevel two -> takeInGroups(two.perGroup(), ids);
            default -> {
                rankAll();
                System.arraycopy(topIds, 0, ids, 0, ids.length);
            }
        }
    }

    private void offer(TopK to, int from, int until) {
        for (int e = from; e < until; e++) {
            if (active[e]) {
                to.offer(candidates[e], e);
            }
        }
    }

    private void rankAll() {
        Arrays.fill(topIds, -1);
        offer(top, 0, candidates.length);
        top.drain(topIds);
    }

    private void bestMembers(int group) {
        Arrays.fill(memberIds, -1);
        offer(ofGroup, group * groupSize, (group + 1) * groupSize);
        ofGroup.drain(memberIds);
    }

    /** The best groups that have an active expert, judged by all members or by the best of them. */
    private void rankGroups(boolean byAll) {
        Arrays.fill(groupIds, -1);
        for (int g = 0; g < numGroups; g++) {
            bestMembers(g);
            if (memberIds[0] < 0) {
                continue;
            }
            double judged = 0;
            if (byAll) {
                judged = sum(candidates, g * groupSize, groupSize);
            } else {
                for (int id : memberIds) {
                    judged += id < 0 ? 0 : candidates[id];
                }
            }
            groups.offer((float) judged, g);
        }
        groups.drain(groupIds);
    }

    private void takeUntil(double p, int min, int[] ids) {
        rankAll();
        double sum = 0;
        for (int k = 0; k < ids.length && topIds[k] >= 0; k++) {
            boolean isNan = Double.isNaN(logits[topIds[k]]);
            if (k >= min && (isNan || sum >= p)) {
                return;
            }
            ids[k] = topIds[k];
            sum += isNan ? 0 : scores[topIds[k]];
        }
    }

    /** Of the softmax over active experts, in nats; NaN logits are absent. */
    private double entropy() {
        double max = Double.NEGATIVE_INFINITY;
        for (int e = 0; e < logits.length; e++) {
            max = active[e] && logits[e] > max ? logits[e] : max;
        }
        double sum = 0;
        double moment = 0;
        for (int e = 0; e < logits.length; e++) {
            if (active[e] && !Double.isNaN(logits[e])) {
                double distance = logits[e] == max ? 0 : logits[e] - max;
                double power = Math.exp(distance);
                sum += power;
                moment += power == 0 ? 0 : power * distance;
            }
        }
        return sum == 0 ? 0 : Math.log(sum) - moment / sum;
    }

    private void takeInGroups(int perGroup, int[] ids) {
        rankGroups(true);
        for (int i = 0; i < groupIds.length && groupIds[i] >= 0; i++) {
            bestMembers(groupIds[i]);
            System.arraycopy(memberIds, 0, ids, i * perGroup, perGroup);
        }
    }

    /** The sum of the numbers of a group's active experts; NaN if there is none. */
    double sum(double[] values, int from, int count) {
        double sum = 0;
        boolean any = false;
        for (int e = from; e < from + count; e++) {
            if (active[e] && !Double.isNaN(values[e])) {
                sum += values[e];
                any = true;
            }
        }
        return any ? sum : Double.NaN;
    }
}
