package jmoe.vector;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.Capacity.RandomRouting;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Score;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * Drops or moves the slots that exceed a {@link Capacity}. One thread: whether a slot is kept
 * depends on all slots before it.
 */
final class ExpertQueues {
    // States of a slot.
    private static final byte AWAY = 0;
    private static final byte QUEUED = 1;
    private static final byte WAITING = 2;

    private final FallingOrder falling = new FallingOrder();
    private long[] queued = new long[0];
    private int[] order = new int[0];
    private byte[] states = new byte[0];
    private double[] slotWeights = new double[0];

    /** Slots in a queue. */
    private long limit;

    private int expertsPerQueue;

    /**
     * Sets the scores of dropped slots to 0, ids and scores of moved ones to what they are there.
     *
     * @param batch whose rule has a capacity
     * @param bestScores by token
     * @param slotScores by slot; weights, or plain scores if these are normalised later
     * @param ranked experts of each token by falling candidate, the chosen ones first, or null
     * @param numRanked how many of each token
     */
    void apply(
            Route.Batch batch,
            double[] bestScores,
            double[] slotScores,
            int @Nullable [] ranked,
            int numRanked) {
        Capacity capacity = batch.capacity();
        RouterConfig config = batch.config();
        limit = capacity.limit(config, batch.tokens());
        expertsPerQueue = capacity.expertsPerQueue(config);
        int slots = batch.slots();
        if (order.length < slots) {
            order = new int[slots];
            states = new byte[slots];
        }
        if (queued.length < config.numExperts()) {
            queued = new long[config.numExperts()];
        }
        Arrays.fill(queued, 0);
        arrange(batch, bestScores, slotScores);
        leaveOut(batch, slotScores);
        for (int i = 0; i < slots; i++) {
            int slot = order[i];
            if (states[slot] == QUEUED && !enter(batch.ids().getInt(slot))) {
                states[slot] = WAITING;
            }
        }
        move(batch, slotScores, ranked, numRanked);
        for (int slot = 0; slot < slots; slot++) {
            if (states[slot] == WAITING) {
                slotScores[slot] = 0;
            }
        }
    }

    /** Takes a place in the queue of an expert, if there is one. */
    private boolean enter(int expert) {
        int queue = expert / expertsPerQueue;
        if (queued[queue] >= limit) {
            return false;
        }
        queued[queue]++;
        return true;
    }

    /** Fills in the order in which slots queue. */
    private void arrange(Route.Batch batch, double[] bestScores, double[] slotScores) {
        int tokens = batch.tokens();
        int topK = batch.config().topK();
        Priority priority = batch.capacity().priority();
        if (priority == Priority.WEIGHT) {
            int slots = batch.slots();
            System.arraycopy(falling.of(weights(batch, slotScores), slots), 0, order, 0, slots);
            return;
        }
        int[] ofTokens = priority == Priority.PROBABILITY ? falling.of(bestScores, tokens) : null;
        int i = 0;
        for (int k = 0; k < topK; k++) {
            for (int place = 0; place < tokens; place++) {
                order[i++] = (ofTokens == null ? place : ofTokens[place]) * topK + k;
            }
        }
    }

    /** The weights that slots have if nothing is dropped, as F32. */
    private double[] weights(Route.Batch batch, double[] slotScores) {
        int slots = batch.slots();
        int topK = batch.config().topK();
        if (slotWeights.length < slots) {
            slotWeights = new double[slots];
        }
        System.arraycopy(slotScores, 0, slotWeights, 0, slots);
        for (int from = 0; batch.capacity().normaliseAfter() && from < slots; from += topK) {
            TokenRouter.normalise(batch.config(), slotWeights, from);
        }
        for (int slot = 0; slot < slots; slot++) {
            slotWeights[slot] = (float) slotWeights[slot];
        }
        return slotWeights;
    }

    /**
     * Leaves out slots without an expert and those that random routing does not want, and gives
     * protected ones their places whatever the limit.
     */
    private void leaveOut(Route.Batch batch, double[] slotScores) {
        int topK = batch.config().topK();
        RandomRouting random = batch.capacity().randomRouting();
        for (int token = 0; token < batch.tokens(); token++) {
            int first = token * topK;
            double sum = 0;
            for (int k = 0; k < topK; k++) {
                sum += slotScores[first + k];
            }
            for (int k = 0; k < topK; k++) {
                int slot = first + k;
                int id = batch.ids().getInt(slot);
                boolean asks = id >= 0;
                if (asks && batch.isProtected(token)) {
                    queued[id / expertsPerQueue]++;
                    asks = false;
                } else if (asks
                        && k > 0
                        && random != null
                        && random.leavesOut(slot, slotScores[slot] / sum)) {
                    asks = false;
                    slotScores[slot] = 0;
                }
                states[slot] = asks ? QUEUED : AWAY;
            }
        }
    }

    private void move(
            Route.Batch batch, double[] slotScores, int @Nullable [] ranked, int numRanked) {
        Overflow overflow = batch.capacity().overflow();
        int topK = batch.config().topK();
        int rounds = overflow.rounds(batch.config().numExperts());
        if (overflow instanceof Overflow.NextChoice) {
            rounds = Math.min(rounds, Math.max(0, numRanked - topK));
        }
        for (int round = 1; round <= rounds; round++) {
            for (int i = 0; i < batch.slots(); i++) {
                int slot = order[i];
                if (states[slot] != WAITING) {
                    continue;
                }
                int token = slot / topK;
                int from = batch.ids().getInt(slot);
                int to =
                        ranked == null
                                ? Overflow.Ring.neighbour(from, round, batch.config().numExperts())
                                : ranked[token * numRanked + topK + round - 1];
                // -1 where no more experts are active.
                double logit = ranked == null || to < 0 ? 0 : batch.logit(token, to);
                if (to < 0 || Double.isNaN(logit) || has(batch, token, to) || !enter(to)) {
                    continue;
                }
                double score = slotScores[slot];
                if (ranked != null && score != 0) {
                    double old = batch.logit(token, from);
                    slotScores[slot] = score * ratio(batch.config().score(), logit, old);
                }
                batch.ids().setInt(slot, to);
                states[slot] = QUEUED;
            }
        }
    }

    private static boolean has(Route.Batch batch, int token, int expert) {
        int topK = batch.config().topK();
        for (int k = 0; k < topK; k++) {
            if (batch.ids().getInt((long) token * topK + k) == expert) {
                return true;
            }
        }
        return false;
    }

    /** Score of one logit / score of another; 1 for equals, infinite ones too. */
    private static double ratio(Score score, double logit, double other) {
        if (logit == other) {
            return 1;
        }
        return score == Score.SOFTMAX
                ? Math.exp(logit - other)
                : TokenRouter.ownScore(Score.SIGMOID, logit)
                        / TokenRouter.ownScore(Score.SIGMOID, other);
    }
}
