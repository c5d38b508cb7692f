package jmoe.reference;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.Capacity.RandomRouting;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/** What a {@link Capacity} leaves of a routed batch, one slot after the other. */
final class ReferenceCapacity {
    private final Tensor logits;
    private final RouterConfig config;
    private final Capacity capacity;
    private final int topK;
    private final Tensor ids;
    private final @Nullable Tensor protectedTokens;

    /** Of slots that are not in a queue any more: 0, as soon as that is certain. */
    private final double[][] weights;

    private final long limit;
    private final long[] queued;

    ReferenceCapacity(
            Tensor logits,
            RouterConfig config,
            Tensor ids,
            double[][] weights,
            @Nullable Tensor protectedTokens) {
        this.logits = logits;
        this.config = config;
        this.ids = ids;
        this.weights = weights;
        this.protectedTokens = protectedTokens;
        capacity = config.capacity();
        topK = config.topK();
        limit = capacity.limit(config, weights.length);
        queued = new long[config.numExperts()];
    }

    /**
     * Drops and moves slots.
     *
     * @param bestScores of the tokens
     * @param ranked experts of each token by falling candidate, the K chosen ones first; or null
     */
    void apply(double[] bestScores, int @Nullable [][] ranked) {
        int[] order = order(bestScores);
        for (int slot : order) {
            if (isProtected(slot / topK) && id(slot) >= 0) {
                queued[id(slot) / capacity.expertsPerQueue(config)]++;
            }
        }
        boolean[] asks = leaveOut();
        boolean[] waits = new boolean[order.length];
        for (int slot : order) {
            waits[slot] = asks[slot] && !enter(id(slot));
        }
        for (int round = 1; round <= capacity.overflow().rounds(config.numExperts()); round++) {
            for (int slot : order) {
                if (waits[slot]) {
                    waits[slot] = !move(slot, round, ranked);
                }
            }
        }
        for (int slot : order) {
            if (waits[slot]) {
                weights[slot / topK][slot % topK] = 0;
            }
        }
        if (capacity.normaliseAfter()) {
            for (double[] w : weights) {
                double divisor = ReferenceRouter.divisor(config.normalisation(), w);
                for (int k = 0; k < w.length; k++) {
                    w[k] = w[k] == 0 ? 0 : w[k] / divisor * config.factor();
                }
            }
        }
    }

    /** Its slots have their places whatever the limit. */
    private boolean isProtected(int token) {
        return protectedTokens != null && protectedTokens.getInt(token) != 0;
    }

    private int id(int slot) {
        return ids.getInt(slot);
    }

    /** All slots in the order in which they queue. */
    private int[] order(double[] bestScores) {
        int tokens = weights.length;
        int[] order = new int[tokens * topK];
        if (capacity.priority() == Priority.WEIGHT) {
            return falling(slotWeights());
        }
        int[] tokenOrder = new int[tokens];
        for (int token = 0; token < tokens; token++) {
            tokenOrder[token] = token;
        }
        if (capacity.priority() == Priority.PROBABILITY) {
            tokenOrder = falling(bestScores);
        }
        for (int k = 0; k < topK; k++) {
            for (int place = 0; place < tokens; place++) {
                order[k * tokens + place] = tokenOrder[place] * topK + k;
            }
        }
        return order;
    }

    /** Indices by falling value: NaN first, of equals the lower index. */
    private static int[] falling(double[] values) {
        int[] order = new int[values.length];
        for (int i = 0; i < order.length; i++) {
            int place = i;
            while (place > 0 && ranksAbove(values[i], values[order[place - 1]])) {
                order[place] = order[place - 1];
                place--;
            }
            order[place] = i;
        }
        return order;
    }

    private static boolean ranksAbove(double a, double b) {
        return a > b || (Double.isNaN(a) && !Double.isNaN(b));
    }

    /** The weights that slots have if nothing is dropped. */
    private double[] slotWeights() {
        double[] all = new double[weights.length * topK];
        for (int token = 0; token < weights.length; token++) {
            double[] w = weights[token];
            boolean plain = capacity.normaliseAfter();
            double divisor = plain ? ReferenceRouter.divisor(config.normalisation(), w) : 1;
            for (int k = 0; k < topK; k++) {
                all[token * topK + k] = (float) (w[k] / divisor * (plain ? config.factor() : 1));
            }
        }
        return all;
    }

    /**
     * Which slots queue: those of tokens that are served, less protected ones, and what random
     * routing leaves out.
     */
    private boolean[] leaveOut() {
        boolean[] asks = new boolean[weights.length * topK];
        RandomRouting random = capacity.randomRouting();
        for (int token = 0; token < weights.length; token++) {
            double[] w = weights[token];
            double sum = 0;
            for (double weight : w) {
                sum += weight;
            }
            for (int k = 0; k < topK; k++) {
                int slot = token * topK + k;
                asks[slot] = id(slot) >= 0 && !isProtected(token);
                if (asks[slot] && k > 0 && random != null && random.leavesOut(slot, w[k] / sum)) {
                    asks[slot] = false;
                    w[k] = 0;
                }
            }
        }
        return asks;
    }

    /** Takes a place in the queue of an expert, if there is one. */
    private boolean enter(int expert) {
        int queue = expert / capacity.expertsPerQueue(config);
        if (queued[queue] >= limit) {
            return false;
        }
        queued[queue]++;
        return true;
    }

    /** Whether a slot found a place in a round. */
    private boolean move(int slot, int round, int @Nullable [][] ranked) {
        int token = slot / topK;
        int from = id(slot);
        double scale = 1;
        int to;
        if (capacity.overflow() instanceof Overflow.Ring) {
            to = Overflow.Ring.neighbour(from, round, config.numExperts());
        } else {
            if (ranked == null || topK + round > ranked[token].length) {
                return false;
            }
            to = ranked[token][topK + round - 1];
            if (to < 0) {
                // No more experts are active.
                return false;
            }
            double logit = ReferenceRouter.logit(logits, config, token, weights.length, to);
            if (Double.isNaN(logit)) {
                return false;
            }
            double old = ReferenceRouter.logit(logits, config, token, weights.length, from);
            scale = ratio(logit, old);
        }
        for (int k = 0; k < topK; k++) {
            if (id(token * topK + k) == to) {
                return false;
            }
        }
        if (!enter(to)) {
            return false;
        }
        ids.setInt(slot, to);
        double weight = weights[token][slot % topK];
        weights[token][slot % topK] = weight == 0 ? 0 : weight * scale;
        return true;
    }

    /** Score of one logit / score of another; 1 for equals, infinite ones too. */
    private double ratio(double logit, double other) {
        if (logit == other) {
            return 1;
        }
        return config.score() == Score.SOFTMAX
                ? Math.exp(logit - other)
                : ReferenceActivation.sigmoid(logit) / ReferenceActivation.sigmoid(other);
    }
}
