package jmoe.ops;

import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * The rules that choose by batch once more, from the equations of their papers and on whole
 * matrices [tokens, E] of the logits of the tokens that are served.
 */
final class BatchRouteOracle {
    private BatchRouteOracle() {}

    /** Zhou et al.: {@code S = softmax(z); G, I = topk(S^T, C)}. Experts of each token. */
    static int[][] expertChoice(double[][] z, int numExperts, Score score, int share, int topK) {
        boolean[][] takes = new boolean[z.length][numExperts];
        for (int e = 0; e < numExperts; e++) {
            int expert = e;
            IntStream.range(0, z.length)
                    .filter(t -> !Double.isNaN(z[t][expert]))
                    .boxed()
                    .sorted(
                            Comparator.comparingDouble((Integer t) ->
                                    score == Score.SIGMOID
                                            ? 0.0 - z[t][expert]
                                            : -softmax(z[t], expert)))
                    .limit(share)
                    .forEach(t -> takes[t][expert] = true);
        }
        return IntStream.range(0, z.length)
                .mapToObj(t ->
                        IntStream.range(0, numExperts)
                                .filter(e -> takes[t][e])
                                .boxed()
                                .sorted(Comparator.comparingDouble(e -> 0.0 - z[t][e]))
                                .limit(topK)
                                .mapToInt(Integer::intValue)
                                .toArray())
                .toArray(int[][]::new);
    }

    /** One entry of a softmax over the numbers of a row, as F32; the limit at an infinity. */
    private static double softmax(double[] row, int expert) {
        double[] numbers = Arrays.stream(row).filter(v -> !Double.isNaN(v)).toArray();
        double max = Arrays.stream(numbers).max().orElseThrow();
        if (Double.isInfinite(max)) {
            double count = Arrays.stream(numbers).filter(v -> v == max).count();
            return (float) (row[expert] == max ? 1 / count : 0);
        }
        double sum = Arrays.stream(numbers).map(v -> Math.exp(v - max)).sum();
        return (float) (Math.exp(row[expert] - max) / sum);
    }

    /**
     * Sinkhorn on the plan itself: its rows are scaled to sums of 1/T, then its columns to 1/E.
     *
     * @return the plan when a column's scale hardly changes any more; 0 for NaN
     */
    static double[][] plan(double[][] z, int numExperts, double tolerance, int maxIterations) {
        int tokens = z.length;
        double[][] plan = new double[tokens][];
        for (int t = 0; t < tokens; t++) {
            double max = Arrays.stream(z[t]).filter(v -> !Double.isNaN(v)).max().orElse(Double.NaN);
            plan[t] = Arrays.stream(z[t]).map(v -> Math.exp(v - max)).toArray();
            for (int e = 0; e < numExperts; e++) {
                plan[t][e] = Double.isNaN(plan[t][e]) ? 0 : plan[t][e];
            }
        }
        double[] scale = new double[numExperts];
        Arrays.fill(scale, 1);
        for (int i = 0; i < maxIterations; i++) {
            for (double[] row : plan) {
                double sum = Arrays.stream(row).sum();
                for (int e = 0; sum > 0 && e < numExperts; e++) {
                    row[e] /= tokens * sum;
                }
            }
            double change = 0;
            for (int e = 0; e < numExperts; e++) {
                int expert = e;
                double by =
                        1 / (numExperts * Arrays.stream(plan).mapToDouble(r -> r[expert]).sum());
                for (double[] row : plan) {
                    row[e] *= by;
                }
                change += Math.abs(scale[e] * by - scale[e]) / numExperts;
                scale[e] *= by;
            }
            if (change < tolerance) {
                break;
            }
        }
        return plan;
    }

    /** The K largest entries of each row of a plan; what differs by rounding only is equal. */
    static int[][] best(double[][] plan, double[][] z, int topK) {
        int[][] ids = new int[plan.length][topK];
        for (int t = 0; t < plan.length; t++) {
            boolean[] out = new boolean[plan[t].length];
            for (int k = 0; k < topK; k++) {
                int best = -1;
                for (int e = 0; e < out.length; e++) {
                    boolean number = !Double.isNaN(z[t][e]);
                    boolean better =
                            best < 0
                                    || (number && Double.isNaN(z[t][best]))
                                    || (number && plan[t][e] > plan[t][best] * (1 + 1e-6));
                    best = !out[e] && better ? e : best;
                }
                ids[t][k] = best;
                out[best] = true;
            }
        }
        return ids;
    }

    /** The weights of a token's experts. */
    static double[] weights(double[] z, int[] ids, RouterConfig config) {
        double[] s;
        boolean sums = config.normalisation() instanceof Normalisation.Sum;
        if (config.score() == Score.SIGMOID) {
            s = Arrays.stream(ids).mapToDouble(e -> 1 / (1 + Math.exp(-z[e]))).toArray();
        } else {
            // Over all experts, or over those that were chosen.
            double[] over = sums ? Arrays.stream(ids).mapToDouble(e -> z[e]).toArray() : z;
            double max = Arrays.stream(over).max().orElse(0);
            double sum = Arrays.stream(over).map(v -> Math.exp(v - max)).sum();
            s = Arrays.stream(ids).mapToDouble(e -> Math.exp(z[e] - max) / sum).toArray();
        }
        double divisor = sums ? Arrays.stream(s).sum() : 1;
        return Arrays.stream(s).map(v -> v / divisor * config.factor()).toArray();
    }

    /** Logits as the auction sees them. */
    static double[][] values(double[][] z) {
        double[] finite =
                Arrays.stream(z).flatMapToDouble(Arrays::stream).filter(Double::isFinite).toArray();
        double min = Arrays.stream(finite).min().orElse(0);
        double spread = Arrays.stream(finite).max().orElse(0) - min;
        return Arrays.stream(z)
                .map(row ->
                        Arrays.stream(row)
                                .map(v ->
                                        v == Double.POSITIVE_INFINITY
                                                ? 2
                                                : !Double.isFinite(v)
                                                        ? -1
                                                        : spread == 0 ? 0 : (v - min) / spread)
                                .toArray())
                .toArray(double[][]::new);
    }

    /**
     * The largest sum of values with at most so many tokens for an expert, exactly: the Hungarian
     * algorithm, by shortest augmenting paths over as many copies of each expert (Jonker and
     * Volgenant 1987).
     */
    static double largestSum(double[][] values, int numExperts, int limit) {
        int columns = numExperts * limit;
        double[] u = new double[values.length + 1];
        double[] v = new double[columns + 1];
        int[] rowOf = new int[columns + 1];
        for (int row = 1; row <= values.length; row++) {
            int[] way = new int[columns + 1];
            double[] least = new double[columns + 1];
            boolean[] used = new boolean[columns + 1];
            Arrays.fill(least, Double.POSITIVE_INFINITY);
            rowOf[0] = row;
            int column = 0;
            do {
                used[column] = true;
                int from = rowOf[column];
                int next = 0;
                double delta = Double.POSITIVE_INFINITY;
                for (int c = 1; c <= columns; c++) {
                    if (used[c]) {
                        continue;
                    }
                    double cost = -values[from - 1][(c - 1) / limit] - u[from] - v[c];
                    if (cost < least[c]) {
                        least[c] = cost;
                        way[c] = column;
                    }
                    if (least[c] < delta) {
                        delta = least[c];
                        next = c;
                    }
                }
                for (int c = 0; c <= columns; c++) {
                    if (used[c]) {
                        u[rowOf[c]] += delta;
                        v[c] -= delta;
                    } else {
                        least[c] -= delta;
                    }
                }
                column = next;
            } while (rowOf[column] != 0);
            while (column != 0) {
                rowOf[column] = rowOf[way[column]];
                column = way[column];
            }
        }
        double sum = 0;
        for (int c = 1; c <= columns; c++) {
            sum += rowOf[c] == 0 ? 0 : values[rowOf[c] - 1][(c - 1) / limit];
        }
        return sum;
    }
}
