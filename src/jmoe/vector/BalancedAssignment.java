package jmoe.vector;

import jmoe.threads.Workers;

/**
 * The auction for experts: all tokens without one bid, in parallel; then experts keep the highest
 * bids, one token after the other.
 */
final class BalancedAssignment {
    /** Bids that are worth handing to another thread. */
    private static final int GRAIN_TOKENS = 64;

    /** What takes the place of an infinite logit among the shares, and of one that is absent. */
    private static final double ABOVE = 2;

    private static final double BELOW = -1;

    private final Workers workers;

    /** By token: logits as shares of their spread. */
    private double[][] values = new double[0][];

    private double[] bids = new double[0];
    private int[] experts = new int[0];
    private int[] without = new int[0];

    BalancedAssignment(Workers workers) {
        this.workers = workers;
    }

    BatchChoice prepare(Route.Batch batch, double epsilon) {
        int numExperts = batch.config().numExperts();
        if (values.length < batch.tokens()
                || (values.length > 0 && values[0].length != numExperts)) {
            values = new double[batch.tokens()][numExperts];
            bids = new double[batch.tokens()];
            experts = new int[batch.tokens()];
            without = new int[batch.tokens()];
        }
        int waiting = readValues(batch);
        int limit = Math.ceilDiv(waiting, numExperts);
        double[] prices = new double[numExperts];
        TopK[] kept = new TopK[numExperts];
        for (int e = 0; e < numExperts; e++) {
            kept[e] = new TopK(limit);
        }
        while (waiting > 0) {
            workers.run(
                    waiting,
                    GRAIN_TOKENS,
                    (worker, from, to) -> {
                        for (int i = (int) from; i < to; i++) {
                            bid(without[i], prices, epsilon);
                        }
                    });
            waiting = keepHighest(waiting, kept, prices);
        }
        return (worker, token, ids) -> {
            ids[0] = experts[token];
            return 1;
        };
    }

    /** Fills the values and the list of all tokens that are served; returns its length. */
    private int readValues(Route.Batch batch) {
        int numExperts = batch.config().numExperts();
        float[] row = new float[Lanes.padded(numExperts)];
        double min = Double.POSITIVE_INFINITY;
        double max = Double.NEGATIVE_INFINITY;
        int served = 0;
        for (int token = 0; token < batch.tokens(); token++) {
            if (!batch.serves(token)) {
                continue;
            }
            without[served++] = token;
            batch.logits().read((long) token * numExperts, numExperts, row, 0);
            for (int e = 0; e < numExperts; e++) {
                if (Math.abs(row[e]) <= Float.MAX_VALUE) {
                    min = Math.min(min, row[e]);
                    max = Math.max(max, row[e]);
                }
                values[token][e] = row[e];
            }
        }
        for (int i = 0; i < served; i++) {
            double[] ofToken = values[without[i]];
            for (int e = 0; e < numExperts; e++) {
                double z = ofToken[e];
                if (Math.abs(z) <= Float.MAX_VALUE) {
                    ofToken[e] = max > min ? (z - min) / (max - min) : 0;
                } else {
                    ofToken[e] = z > 0 ? ABOVE : BELOW;
                }
            }
        }
        return served;
    }

    private void bid(int token, double[] prices, double epsilon) {
        double[] ofToken = values[token];
        int best = 0;
        double most = Double.NEGATIVE_INFINITY;
        double second = Double.NEGATIVE_INFINITY;
        for (int e = 0; e < prices.length; e++) {
            double profit = ofToken[e] - prices[e];
            if (profit > most) {
                second = most;
                most = profit;
                best = e;
            } else if (profit > second) {
                second = profit;
            }
        }
        experts[token] = best;
        // A single expert has room for all, whatever they bid.
        bids[token] = prices.length == 1 ? epsilon : ofToken[best] - second + epsilon;
    }

    /** Lists the tokens whose bids were not high enough; returns how many. */
    private int keepHighest(int bidders, TopK[] kept, double[] prices) {
        int out = 0;
        for (int i = 0; i < bidders; i++) {
            int token = without[i];
            int loser = kept[experts[token]].exchange(bids[token], token);
            if (loser >= 0) {
                // Never further than the tokens that were read.
                without[out++] = loser;
            }
        }
        for (int e = 0; e < prices.length; e++) {
            prices[e] = kept[e].isFull() ? kept[e].worstValue() : 0;
        }
        return out;
    }
}
