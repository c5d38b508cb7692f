package jmoe.ops;

import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.Tensor;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/**
 * The rules of few models once more, as lists of the experts that are there: what {@link
 * RouteOracle} is for the usual ones. Without capacities and token types.
 */
final class RareOracle {
    private final RouterConfig config;
    private final RouteInputs inputs;
    private final int width;
    private double margin = Double.POSITIVE_INFINITY;

    // Of the token in hand: logits, scores as selections and as weights see them, candidates.
    private double[] z = new double[0];
    private double[] seen = new double[0];
    private double[] scores = new double[0];
    private double[] candidates = new double[0];

    /** Experts of each token. */
    final int[][] ids;

    /** Their weights. */
    final double[][] weights;

    /** Applies the rule to every token. */
    RareOracle(Tensor logits, RouterConfig config, RouteInputs inputs) {
        this.config = config;
        this.inputs = inputs;
        int tokens = (int) logits.dim(0);
        ids = new int[tokens][];
        weights = new double[tokens][];
        width = config.numExperts() / numGroups();
        for (int t = 0; t < tokens; t++) {
            Tensor row = logits.row(t);
            z = IntStream.range(0, config.numExperts()).mapToDouble(row::getDouble).toArray();
            score();
            List<Integer> chosen = chosen();
            while (chosen.size() < config.topK()) {
                chosen.add(-1);
            }
            ids[t] = chosen.stream().mapToInt(i -> i).toArray();
            weights[t] = weights(ids[t]);
        }
    }

    /** The smallest distance that decided something and may be rounded away. */
    double margin() {
        return margin;
    }

    private int numGroups() {
        return switch (config.selection()) {
            case Selection.GroupLimited g -> g.numGroups();
            case Selection.OnePerGroup o -> o.numGroups();
            case Selection.TwoLevel t -> t.numGroups();
            default -> 1;
        };
    }

    private List<Integer> present(int from, int to) {
        Tensor active = inputs.activeExperts();
        return IntStream.range(from, to)
                .filter(e -> active == null || active.getInt(e) != 0)
                .boxed()
                .toList();
    }

    private List<Integer> group(int g) {
        return present(g * width, (g + 1) * width);
    }

    // ---- Scores

    private void score() {
        seen = new double[z.length];
        scores = new double[z.length];
        boolean local =
                config.selection() instanceof Selection.OnePerGroup o && o.scope() == Scope.LOCAL;
        if (config.score() != Score.SOFTMAX) {
            seen = Arrays.stream(z).map(v -> RouteOracle.ownScore(config.score(), v)).toArray();
            scores = seen;
        } else if (local) {
            IntStream.range(0, numGroups()).forEach(g -> softmax(group(g)));
        } else {
            softmax(present(0, z.length));
        }
        Tensor bias = inputs.selectionBias();
        boolean byLogit = bias == null && !judgesBySum();
        candidates = new double[z.length];
        for (int e = 0; e < z.length; e++) {
            float added = bias == null ? 0 : bias.getFloat(e);
            candidates[e] = byLogit ? z[e] : (float) seen[e] + added;
        }
    }

    private boolean judgesBySum() {
        return config.selection() instanceof Selection.TwoLevel
                || (config.selection() instanceof Selection.GroupLimited g
                        && g.groupScore() != GroupScore.MAX);
    }

    private void softmax(List<Integer> experts) {
        List<Integer> numbers = experts.stream().filter(e -> !Double.isNaN(z[e])).toList();
        double max = numbers.stream().mapToDouble(e -> z[e]).max().orElse(Double.NaN);
        long atMax = numbers.stream().filter(e -> z[e] == max).count();
        double sum = numbers.stream().mapToDouble(e -> Math.exp(z[e] - max)).sum();
        boolean defined = numbers.size() == experts.size() && Double.isFinite(max);
        for (int e : experts) {
            double p = Math.exp(z[e] - max) / sum;
            double limit = Double.isNaN(z[e]) ? Double.NaN : z[e] == max ? 1.0 / atMax : 0;
            seen[e] = Double.isFinite(max) ? p : limit;
            scores[e] = defined ? p : Double.NaN;
        }
    }

    // ---- Choices

    /** By falling value, NaN last, lower number first; notes the gaps behind the first ones. */
    private List<Integer> sorted(List<Integer> items, double[] values, int count) {
        Comparator<Integer> nanLast = Comparator.comparingInt(i -> Double.isNaN(values[i]) ? 1 : 0);
        List<Integer> order =
                items.stream()
                        .sorted(
                                nanLast.thenComparingDouble(
                                                i -> Double.isNaN(values[i]) ? 0 : -values[i])
                                        .thenComparingInt(i -> i))
                        .toList();
        for (int i = 1; i < Math.min(order.size(), count + 1); i++) {
            double gap = values[order.get(i - 1)] - values[order.get(i)];
            margin = gap > 0 && values != z ? Math.min(margin, gap) : margin;
        }
        return order;
    }

    private List<Integer> best(List<Integer> experts, int count) {
        double[] values = inputs.selectionBias() == null && !judgesBySum() ? z : candidates;
        List<Integer> order = sorted(experts, values, count);
        return new ArrayList<>(order.subList(0, Math.min(count, order.size())));
    }

    private List<Integer> chosen() {
        int topK = config.topK();
        List<Integer> all = present(0, z.length);
        return switch (config.selection()) {
            case Selection.TopK t -> best(all, topK);
            case Selection.GroupLimited g -> {
                int judgedBy = judgedBy(g);
                double[] judged = new double[g.numGroups()];
                for (int i = 0; i < judged.length; i++) {
                    List<Integer> of = best(group(i), judgedBy);
                    judged[i] = (float) of.stream().mapToDouble(e -> candidates[e]).sum();
                }
                List<Integer> kept = bestGroups(judged, g.topGroups());
                yield best(all.stream().filter(e -> kept.contains(e / width)).toList(), topK);
            }
            case Selection.OnePerGroup o -> {
                List<Integer> chosen = new ArrayList<>();
                for (int g = 0; g < o.numGroups(); g++) {
                    List<Integer> one = best(group(g), 1);
                    chosen.add(one.isEmpty() ? -1 : one.getFirst());
                }
                yield chosen;
            }
            case Selection.TopP p ->
                    best(all, Math.min(topK, Math.max(p.minExperts(), reaching(all, p))));
            case Selection.EntropyK e -> {
                double wanted = e.alpha() * entropy(all) - 1e-9;
                double toInteger = Math.abs(wanted - Math.rint(wanted));
                margin =
                        toInteger > 0 && wanted > e.minExperts()
                                ? Math.min(margin, toInteger)
                                : margin;
                yield best(all, (int) Math.min(topK, Math.max(e.minExperts(), Math.ceil(wanted))));
            }
            case Selection.TwoLevel t -> twoLevel(t);
            default -> throw new IllegalArgumentException("not here: " + config.selection());
        };
    }

    private int judgedBy(Selection.GroupLimited g) {
        return switch (g.groupScore()) {
            case MAX -> 1;
            case TOP2_SUM -> 2;
            case TOP_SHARE_SUM -> config.topK() / g.topGroups();
        };
    }

    private List<Integer> bestGroups(double[] judged, int count) {
        List<Integer> there =
                IntStream.range(0, judged.length).filter(g -> !group(g).isEmpty()).boxed().toList();
        List<Integer> order = sorted(there, judged, count);
        return order.subList(0, Math.min(count, order.size()));
    }

    /** The least number of best experts whose scores reach p, or all numbers. */
    private int reaching(List<Integer> all, Selection.TopP p) {
        List<Integer> numbers =
                best(all, z.length).stream().filter(e -> !Double.isNaN(z[e])).toList();
        double sum = 0;
        for (int count = 0; count < numbers.size(); count++) {
            if (count > 0 && sum >= p.p()) {
                return count;
            }
            sum += seen[numbers.get(count)];
            double gap = Math.abs(sum - p.p());
            margin = gap > 0 ? Math.min(margin, gap) : margin;
        }
        return numbers.size();
    }

    private double entropy(List<Integer> all) {
        double[] finite =
                all.stream().mapToDouble(e -> z[e]).filter(v -> !Double.isNaN(v)).toArray();
        double max = Arrays.stream(finite).max().orElse(0);
        if (Double.isInfinite(max)) {
            return Math.log(Arrays.stream(finite).filter(v -> v == max).count());
        }
        double sum = Arrays.stream(finite).map(v -> Math.exp(v - max)).sum();
        return Arrays.stream(finite)
                .map(v -> Math.exp(v - max) / sum)
                .filter(p -> p > 0)
                .map(p -> -p * Math.log(p))
                .sum();
    }

    private List<Integer> twoLevel(Selection.TwoLevel t) {
        double[] judged = new double[t.numGroups()];
        for (int g = 0; g < judged.length; g++) {
            double[] numbers =
                    group(g).stream()
                            .mapToDouble(e -> candidates[e])
                            .filter(v -> !Double.isNaN(v))
                            .toArray();
            judged[g] = numbers.length == 0 ? Double.NaN : (float) Arrays.stream(numbers).sum();
        }
        List<Integer> chosen = new ArrayList<>();
        for (int g : bestGroups(judged, t.topGroups())) {
            List<Integer> members = best(group(g), t.perGroup());
            while (members.size() < t.perGroup()) {
                members.add(-1);
            }
            chosen.addAll(members);
        }
        return chosen;
    }

    // ---- Weights

    private double[] weights(int[] chosen) {
        double[] s = Arrays.stream(chosen).mapToDouble(e -> e < 0 ? 0 : scores[e]).toArray();
        boolean sums = config.normalisation() instanceof Normalisation.Sum n && n.epsilon() == 0;
        if (config.selection() instanceof Selection.TwoLevel t) {
            s = sums ? levels(t, chosen, s) : s;
        } else {
            boolean global =
                    !(config.selection() instanceof Selection.OnePerGroup o)
                            || o.scope() == Scope.GLOBAL;
            if (config.score() == Score.SOFTMAX && sums && global) {
                double max =
                        Arrays.stream(chosen)
                                .filter(e -> e >= 0)
                                .mapToDouble(e -> z[e])
                                .max()
                                .orElse(0);
                s =
                        Arrays.stream(chosen)
                                .mapToDouble(e -> e < 0 ? 0 : Math.exp(z[e] - max))
                                .toArray();
            }
            double divisor = RouteOracle.divisor(config.normalisation(), s);
            s = Arrays.stream(s).map(v -> v / divisor).toArray();
        }
        Tensor scale = inputs.expertScale();
        for (int k = 0; k < s.length; k++) {
            double own = scale == null || chosen[k] < 0 ? 1 : scale.getDouble(chosen[k]);
            s[k] = chosen[k] < 0 ? 0 : s[k] * config.factor() * own;
        }
        return s;
    }

    private double[] levels(Selection.TwoLevel t, int[] chosen, double[] s) {
        double[] mass = new double[t.topGroups()];
        double[] inner = new double[t.topGroups()];
        for (int k = 0; k < s.length; k++) {
            int i = k / t.perGroup();
            inner[i] += s[k];
            if (k % t.perGroup() == 0 && chosen[k] >= 0) {
                mass[i] = group(chosen[k] / width).stream().mapToDouble(e -> scores[e]).sum();
            }
        }
        double outer = Arrays.stream(mass).sum();
        double[] product = new double[s.length];
        for (int k = 0; k < s.length; k++) {
            int i = k / t.perGroup();
            product[k] = s[k] == 0 ? 0 : mass[i] / outer * s[k] / inner[i];
        }
        return product;
    }
}
