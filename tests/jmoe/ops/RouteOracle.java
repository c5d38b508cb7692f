package jmoe.ops;

import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;
import java.util.Comparator;
import java.util.Iterator;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Routing once more, straight from the formulas and with sorted lists of all experts: proves that
 * reference and backends are not only equal to each other.
 */
final class RouteOracle {
    private final RouterConfig config;
    private final double[] bias;
    private final @Nullable Tensor protectedTokens;
    private final boolean[][] dropped;
    private final double[] bestScores;
    private final CapacityOracle.Token[] known;
    private double capacityMargin = Double.POSITIVE_INFINITY;

    /** Experts of each token. */
    final int[][] ids;

    /** Their weights. */
    final double[][] weights;

    /** Applies the rule to every token. */
    RouteOracle(
            Tensor logits,
            RouterConfig config,
            @Nullable Tensor selectionBias,
            @Nullable Tensor tokenTypes) {
        this(logits, config, selectionBias, tokenTypes, null);
    }

    /** The same with tokens that a capacity must keep. */
    RouteOracle(
            Tensor logits,
            RouterConfig config,
            @Nullable Tensor selectionBias,
            @Nullable Tensor tokenTypes,
            @Nullable Tensor protectedTokens) {
        int tokens = (int) logits.dim(0);
        this.config = config;
        this.protectedTokens = protectedTokens;
        this.ids = new int[tokens][config.topK()];
        this.weights = new double[tokens][config.topK()];
        this.dropped = new boolean[tokens][config.topK()];
        this.bestScores = new double[tokens];
        this.known = new CapacityOracle.Token[tokens];
        this.bias = selectionBias == null ? new double[0] : new double[config.numExperts()];
        for (int e = 0; e < bias.length; e++) {
            bias[e] = selectionBias.getDouble(e);
        }
        for (int t = 0; t < tokens; t++) {
            int type = tokenTypes == null ? 0 : tokenTypes.getInt(t);
            boolean others = config.tokenType() != RouterConfig.ALL_TOKENS;
            if (type < 0 || others && type != config.tokenType()) {
                Arrays.fill(ids[t], -1);
                Arrays.fill(dropped[t], true);
                known[t] = absent(t);
                continue;
            }
            double[] z = logits(logits, t);
            if (config.selection() instanceof Selection.SparseMixer m) {
                sparseMixer(t, z, m.jitter());
            } else {
                select(t, z);
            }
        }
        if (config.capacity() != null) {
            drop();
        }
        for (int t = 0; t < tokens; t++) {
            if (config.capacity() == null || config.capacity().normaliseAfter()) {
                normalise(weights[t]);
            }
            for (int k = 0; k < config.topK(); k++) {
                // 0 even where nothing is left to divide by.
                weights[t][k] = dropped[t][k] ? 0 : weights[t][k] * config.factor();
            }
        }
    }

    /**
     * The smallest distance of unequal numbers by which a capacity decided something: what became
     * of slots is only comparable if it is far above the rounding of F32.
     */
    double margin() {
        return capacityMargin;
    }

    private double[] logits(Tensor logits, int t) {
        double[] z = new double[config.numExperts()];
        if (config.selection() instanceof Selection.ProductKeys p) {
            int n = p.numKeys();
            long second = logits.dim(0) * n;
            for (int e = 0; e < z.length; e++) {
                z[e] =
                        logits.getDouble((long) t * n + e / n)
                                + logits.getDouble(second + (long) t * n + e % n);
            }
        } else {
            for (int e = 0; e < z.length; e++) {
                z[e] = logits.getDouble((long) t * z.length + e);
            }
        }
        return z;
    }

    private double[] scores(double[] z) {
        if (config.score() != Score.SOFTMAX) {
            return Arrays.stream(z).map(v -> ownScore(config.score(), v)).toArray();
        }
        double max = Arrays.stream(z).max().orElse(0);
        double[] exp = Arrays.stream(z).map(v -> Math.exp(v - max)).toArray();
        double sum = Arrays.stream(exp).sum();
        return Arrays.stream(exp).map(v -> v / sum).toArray();
    }

    /** The scores that look at one logit. */
    static double ownScore(Score score, double z) {
        return switch (score) {
            case SIGMOID -> 1 / (1 + Math.exp(-z));
            case SQRT_SOFTPLUS -> Math.sqrt(z > 40 ? z : Math.log1p(Math.exp(z)));
            case NONE -> z;
            case SOFTMAX -> throw new IllegalArgumentException("a softmax looks at all logits");
        };
    }

    /** Scores as if NaN logits were absent; at an infinite maximum the limit of the softmax. */
    private double[] selectionScores(double[] z) {
        double[] numbers = Arrays.stream(z).filter(v -> !Double.isNaN(v)).toArray();
        double max = Arrays.stream(numbers).max().orElse(0);
        if (config.score() == Score.SOFTMAX && Double.isInfinite(max)) {
            double count = Arrays.stream(numbers).filter(v -> v == max).count();
            return Arrays.stream(z)
                    .map(v -> Double.isNaN(v) ? v : v == max ? 1 / count : 0)
                    .toArray();
        }
        Iterator<Double> scores = Arrays.stream(scores(numbers)).iterator();
        return Arrays.stream(z).map(v -> Double.isNaN(v) ? v : scores.next()).toArray();
    }

    private void select(int t, double[] z) {
        double[] scores = scores(z);
        double[] candidates = z.clone();
        if (bias.length > 0 || config.judgesGroupsBySum()) {
            candidates = selectionScores(z);
            for (int e = 0; e < z.length; e++) {
                candidates[e] = (float) candidates[e] + (bias.length > 0 ? (float) bias[e] : 0f);
            }
        }
        int[] order =
                config.selection() instanceof Selection.GroupLimited g
                        ? bestOf(keptExperts(g, candidates), candidates)
                        : best(candidates);
        double max = Arrays.stream(order, 0, config.topK()).mapToDouble(e -> z[e]).max().orElse(0);
        boolean overSelected =
                config.score() == Score.SOFTMAX
                        && config.normalisation() instanceof Normalisation.Sum s
                        && s.epsilon() == 0;
        for (int k = 0; k < config.topK(); k++) {
            ids[t][k] = order[k];
            weights[t][k] = overSelected ? Math.exp(z[order[k]] - max) : scores[order[k]];
        }
        bestScores[t] = (float) Arrays.stream(scores).max().orElseThrow();
        if (config.capacity() != null) {
            double[] all =
                    overSelected ? Arrays.stream(z).map(v -> Math.exp(v - max)).toArray() : scores;
            known[t] = known(t, all, order, candidates);
        }
    }

    /** Indices by falling value, NaN last, lower index first. */
    private int[] best(double[] values) {
        return IntStream.range(0, values.length)
                .boxed()
                .sorted(
                        Comparator.<Integer>comparingInt(i -> Double.isNaN(values[i]) ? 1 : 0)
                                .thenComparingDouble(i -> Double.isNaN(values[i]) ? 0 : -values[i])
                                .thenComparingInt(i -> i))
                .mapToInt(i -> i)
                .toArray();
    }

    private int[] bestOf(int[] experts, double[] candidates) {
        double[] values = Arrays.stream(experts).mapToDouble(e -> candidates[e]).toArray();
        return Arrays.stream(best(values)).map(i -> experts[i]).toArray();
    }

    /** Experts of the groups that are not out, by rising id. */
    private int[] keptExperts(Selection.GroupLimited g, double[] candidates) {
        int width = config.numExperts() / g.numGroups();
        double[] judged = new double[g.numGroups()];
        for (int group = 0; group < judged.length; group++) {
            double[] members = Arrays.copyOfRange(candidates, group * width, (group + 1) * width);
            int[] order = best(members);
            judged[group] = members[order[0]];
            if (g.groupScore() == GroupScore.TOP2_SUM && width > 1) {
                judged[group] = (float) (judged[group] + members[order[1]]);
            }
        }
        return Arrays.stream(best(judged))
                .limit(g.topGroups())
                .flatMap(group -> IntStream.range(group * width, (group + 1) * width))
                .sorted()
                .toArray();
    }

    private void sparseMixer(int t, double[] z, double jitter) {
        double[] left = z.clone();
        for (int k = 0; k < 2; k++) {
            int arg = best(left)[0];
            double max = left[arg];
            double sum = 0;
            for (int e = 0; e < z.length; e++) {
                boolean outside = (max - z[e]) / Math.max(Math.abs(z[e]), max) > 2 * jitter;
                sum += outside ? 0 : Math.exp(left[e] - max);
            }
            ids[t][k] = arg;
            weights[t][k] = 1 / sum;
            left[arg] = Double.NEGATIVE_INFINITY;
        }
        bestScores[t] = weights[t][0];
    }

    private void normalise(double[] s) {
        if (config.selection() instanceof Selection.SparseMixer) {
            return;
        }
        double divisor = divisor(config.normalisation(), s);
        for (int k = 0; k < s.length; k++) {
            s[k] /= divisor;
        }
    }

    /** What scores are divided by. */
    static double divisor(Normalisation normalisation, double[] s) {
        return switch (normalisation) {
            case Normalisation.None n -> 1;
            case Normalisation.Sum n -> Arrays.stream(s).sum() + n.epsilon();
            case Normalisation.ClampedSum n -> Math.max(Arrays.stream(s).sum(), n.minSum());
            case Normalisation.PNorm n ->
                    Math.pow(
                            Arrays.stream(s).map(v -> Math.pow(Math.abs(v), n.p())).sum(),
                            1 / n.p());
            case Normalisation.Count n -> s.length;
        };
    }

    private void drop() {
        CapacityOracle oracle = new CapacityOracle(config, List.of(known));
        oracle.apply();
        capacityMargin = oracle.margin();
    }

    private CapacityOracle.Token absent(int t) {
        double[] none = new double[config.topK()];
        return new CapacityOracle.Token(
                ids[t], weights[t], none, none, ids[t], dropped[t], 0, false);
    }

    /** What a capacity decides by, of a token whose slots are weighed. */
    private CapacityOracle.Token known(int t, double[] scores, int[] order, double[] candidates) {
        double[] plain = weights[t].clone();
        normalise(weights[t]);
        double[] before = weights[t].clone();
        boolean later = config.capacity().normaliseAfter();
        if (later) {
            weights[t] = plain.clone();
        }
        double divisor = later ? 1 : Arrays.stream(plain).sum() / Arrays.stream(before).sum();
        return new CapacityOracle.Token(
                ids[t],
                weights[t],
                Arrays.stream(before).map(w -> w * config.factor()).toArray(),
                Arrays.stream(scores).map(s -> s / divisor).toArray(),
                Arrays.stream(order).filter(e -> !Double.isNaN(candidates[e])).toArray(),
                dropped[t],
                bestScores[t],
                protectedTokens != null && protectedTokens.getInt(t) != 0);
    }
}
