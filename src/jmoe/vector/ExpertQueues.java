package jmoe.vector;

import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Capacity;

import java.util.Arrays;

/**
 * Drops the slots that exceed the capacity of their expert. One thread: whether a slot is kept
 * depends on all slots before it.
 */
final class ExpertQueues {
    private long[] queued = new long[0];
    private int[] order = new int[0];
    private int[] merged = new int[0];

    /**
     * Sets the scores of dropped slots to 0.
     *
     * @param capacity the bound
     * @param config the rule
     * @param ids experts by slot; -1 does not queue
     * @param tokens tokens of the batch
     * @param bestScores by token
     * @param slotScores by slot
     */
    void drop(
            Capacity capacity,
            RouterConfig config,
            Elements ids,
            int tokens,
            double[] bestScores,
            double[] slotScores) {
        if (order.length < tokens) {
            order = new int[tokens];
            merged = new int[tokens];
        }
        for (int token = 0; token < tokens; token++) {
            order[token] = token;
        }
        if (capacity.byProbability()) {
            sortFalling(bestScores, tokens);
        }
        if (queued.length < config.numExperts()) {
            queued = new long[config.numExperts()];
        }
        Arrays.fill(queued, 0);
        long limit = capacity.limit(tokens);
        int topK = config.topK();
        for (int k = 0; k < topK; k++) {
            for (int i = 0; i < tokens; i++) {
                int slot = order[i] * topK + k;
                int id = ids.getInt(slot);
                if (id >= 0 && queued[id]++ >= limit) {
                    slotScores[slot] = 0;
                }
            }
        }
    }

    /** A merge sort of the order, stable; NaN comes first. */
    private void sortFalling(double[] scores, int tokens) {
        for (long width = 1; width < tokens; width *= 2) {
            for (long from = 0; from < tokens; from += 2 * width) {
                int middle = (int) Math.min(from + width, tokens);
                int to = (int) Math.min(from + 2 * width, tokens);
                merge(scores, (int) from, middle, to);
            }
            int[] sorted = merged;
            merged = order;
            order = sorted;
        }
    }

    private void merge(double[] scores, int from, int middle, int to) {
        int left = from;
        int right = middle;
        for (int i = from; i < to; i++) {
            boolean takesLeft =
                    right == to
                            || (left < middle
                                    && Double.compare(scores[order[left]], scores[order[right]])
                                            >= 0);
            merged[i] = order[takesLeft ? left++ : right++];
        }
    }
}
