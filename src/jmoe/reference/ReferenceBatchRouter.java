package jmoe.reference;

import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.tensor.Tensor;

import java.util.Arrays;

/** The rules of {@link RouterConfig} by which the tokens of a batch get their experts together. */
final class ReferenceBatchRouter {
    /** Bounds what Sinkhorn scales an expert by that hardly any token can have. */
    private static final double LARGEST_SCALE = 1e30;

    private final RouterConfig config;
    private final int numExperts;

    /** Tokens that are served, and their logits; all below goes by the place in this list. */
    private final int tokens;

    private final double[][] logits;

    /** Experts by falling candidate; -1 in slots that stay empty. */
    private final int[][] ids;

    private ReferenceBatchRouter(RouterConfig config, double[][] logits) {
        this.config = config;
        this.logits = logits;
        numExperts = config.numExperts();
        tokens = logits.length;
        ids = new int[tokens][config.topK()];
        for (int[] ofToken : ids) {
            Arrays.fill(ofToken, -1);
        }
    }

    /**
     * Chooses the experts of all tokens.
     *
     * @param logits [tokens, E]
     * @param config a rule that chooses by batch
     * @param served the tokens that take part
     * @return experts by token and slot, -1 for none; of tokens that do not take part nothing
     */
    static int[][] choose(Tensor logits, RouterConfig config, boolean[] served) {
        int count = 0;
        for (boolean takesPart : served) {
            count += takesPart ? 1 : 0;
        }
        double[][] ofServed = new double[count][config.numExperts()];
        int place = 0;
        for (int token = 0; token < served.length; token++) {
            for (int e = 0; served[token] && e < config.numExperts(); e++) {
                ofServed[place][e] = logits.getDouble((long) token * config.numExperts() + e);
            }
            place += served[token] ? 1 : 0;
        }
        ReferenceBatchRouter router = new ReferenceBatchRouter(config, ofServed);
        switch (config.selection()) {
            case Selection.ExpertChoice choice -> router.chooseByExperts(choice);
            case Selection.Sinkhorn sinkhorn -> router.chooseBySinkhorn(sinkhorn);
            case Selection.BalancedAssignment assignment -> router.assign(assignment.epsilon());
            default -> throw new IllegalArgumentException(config + " looks at one token");
        }
        int[][] chosen = new int[served.length][];
        place = 0;
        for (int token = 0; token < served.length; token++) {
            chosen[token] = served[token] ? router.ids[place++] : new int[0];
        }
        return chosen;
    }

    /** What {@code exp(z - max)} is of, without NaN; at an infinite maximum the limit. */
    private static double max(double[] row) {
        double max = Double.NEGATIVE_INFINITY;
        for (double z : row) {
            max = z > max ? z : max;
        }
        return max;
    }

    private static double power(double z, double max) {
        return Double.isNaN(z) ? 0 : Math.exp(z == max ? 0 : z - max);
    }

    // ---- Expert choice

    private void chooseByExperts(Selection.ExpertChoice choice) {
        double[][] candidates = candidates();
        boolean[][] taken = new boolean[tokens][numExperts];
        double[] column = new double[tokens];
        boolean[] free = new boolean[tokens];
        for (int e = 0; e < numExperts; e++) {
            int numbers = 0;
            for (int t = 0; t < tokens; t++) {
                column[t] = candidates[t][e];
                free[t] = !Double.isNaN(column[t]);
                numbers += free[t] ? 1 : 0;
            }
            int count = Math.min(choice.tokensPerExpert(tokens, numExperts), numbers);
            for (int i = 0; i < count; i++) {
                taken[ReferenceSelection.takeBest(column, free, 0, tokens)][e] = true;
            }
        }
        for (int t = 0; t < tokens; t++) {
            int experts = 0;
            for (boolean takes : taken[t]) {
                experts += takes ? 1 : 0;
            }
            for (int k = 0; k < Math.min(experts, config.topK()); k++) {
                ids[t][k] = ReferenceSelection.takeBest(logits[t], taken[t], 0, numExperts);
            }
        }
    }

    /** What experts order tokens by; NaN where a logit is. */
    private double[][] candidates() {
        boolean overTokens =
                config.selection() instanceof Selection.ExpertChoice c && c.scope() == Scope.TOKENS;
        if (config.score() == Score.SIGMOID || overTokens) {
            return logits;
        }
        double[][] scores = new double[tokens][numExperts];
        for (int t = 0; t < tokens; t++) {
            double max = max(logits[t]);
            double sum = 0;
            for (double z : logits[t]) {
                sum += power(z, max);
            }
            for (int e = 0; e < numExperts; e++) {
                double z = logits[t][e];
                scores[t][e] = Double.isNaN(z) ? z : (float) (power(z, max) / sum);
            }
        }
        return scores;
    }

    // ---- Sinkhorn

    private void chooseBySinkhorn(Selection.Sinkhorn sinkhorn) {
        float[][] kernel = new float[tokens][numExperts];
        for (int t = 0; t < tokens; t++) {
            double max = max(logits[t]);
            for (int e = 0; e < numExperts; e++) {
                kernel[t][e] = (float) power(logits[t][e], max);
            }
        }
        double[] scales = new double[numExperts];
        Arrays.fill(scales, 1);
        double change = Double.POSITIVE_INFINITY;
        for (int i = 0; i < sinkhorn.maxIterations() && !(change < sinkhorn.tolerance()); i++) {
            change = rescale(kernel, scales);
        }
        double[] candidates = new double[numExperts];
        boolean[] free = new boolean[numExperts];
        for (int t = 0; t < tokens; t++) {
            for (int e = 0; e < numExperts; e++) {
                boolean nan = Double.isNaN(logits[t][e]);
                candidates[e] = nan ? Double.NaN : (float) (kernel[t][e] * scales[e]);
            }
            Arrays.fill(free, true);
            for (int k = 0; k < config.topK(); k++) {
                ids[t][k] = ReferenceSelection.takeBest(candidates, free, 0, numExperts);
            }
        }
    }

    /** One iteration; returns the mean change. The factor T of d0 is moved to d1. */
    private double rescale(float[][] kernel, double[] scales) {
        double[] columnSums = new double[numExperts];
        for (int t = 0; t < tokens; t++) {
            double sum = 0;
            for (int e = 0; e < numExperts; e++) {
                sum += kernel[t][e] * scales[e];
            }
            // A row without a number has no sum.
            double scale = sum > 0 ? 1 / sum : 0;
            for (int e = 0; e < numExperts; e++) {
                columnSums[e] += kernel[t][e] * scale;
            }
        }
        double change = 0;
        for (int e = 0; e < numExperts; e++) {
            double scale = Math.min(tokens / (numExperts * columnSums[e]), LARGEST_SCALE);
            change += Math.abs(scale - scales[e]);
            scales[e] = scale;
        }
        return change / numExperts;
    }

    // ---- Balanced assignment

    private void assign(double epsilon) {
        double[][] values = values();
        int limit = Math.ceilDiv(tokens, numExperts);
        double[] prices = new double[numExperts];
        double[] bids = new double[tokens];
        int[] experts = new int[tokens];
        Arrays.fill(experts, -1);
        int without = tokens;
        while (without > 0) {
            for (int t = 0; t < tokens; t++) {
                if (experts[t] < 0) {
                    bid(t, values[t], prices, epsilon, experts, bids);
                }
            }
            without = 0;
            for (int e = 0; e < numExperts; e++) {
                without += keepHighest(e, limit, experts, bids, prices);
            }
        }
        for (int t = 0; t < tokens; t++) {
            ids[t][0] = experts[t];
        }
    }

    /** Finite logits as shares of their spread. */
    private double[][] values() {
        double min = Double.POSITIVE_INFINITY;
        double max = Double.NEGATIVE_INFINITY;
        for (double[] row : logits) {
            for (double z : row) {
                if (Math.abs(z) <= Float.MAX_VALUE) {
                    min = Math.min(min, z);
                    max = Math.max(max, z);
                }
            }
        }
        double[][] values = new double[tokens][numExperts];
        for (int t = 0; t < tokens; t++) {
            for (int e = 0; e < numExperts; e++) {
                double z = logits[t][e];
                if (Math.abs(z) <= Float.MAX_VALUE) {
                    values[t][e] = max > min ? (z - min) / (max - min) : 0;
                } else {
                    values[t][e] = z > 0 ? 2 : -1;
                }
            }
        }
        return values;
    }

    private void bid(
            int token,
            double[] values,
            double[] prices,
            double epsilon,
            int[] experts,
            double[] bids) {
        int best = 0;
        double most = Double.NEGATIVE_INFINITY;
        double second = Double.NEGATIVE_INFINITY;
        for (int e = 0; e < numExperts; e++) {
            double profit = values[e] - prices[e];
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
        bids[token] = numExperts == 1 ? epsilon : values[best] - second + epsilon;
    }

    /** Sends away the lowest bids beyond the limit; returns how many. */
    private int keepHighest(int expert, int limit, int[] experts, double[] bids, double[] prices) {
        int sentAway = 0;
        while (true) {
            int count = 0;
            int lowest = -1;
            for (int t = 0; t < tokens; t++) {
                if (experts[t] == expert) {
                    count++;
                    lowest = lowest < 0 || bids[t] <= bids[lowest] ? t : lowest;
                }
            }
            if (count <= limit) {
                prices[expert] = count == limit ? bids[lowest] : 0;
                return sentAway;
            }
            experts[lowest] = -1;
            sentAway++;
        }
    }
}
