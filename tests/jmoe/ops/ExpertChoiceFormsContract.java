package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/** Expert choice as Mesh TensorFlow has it: {@code _expert_selection_gating} of its moe.py. */
interface ExpertChoiceFormsContract extends Contract {
    /** Most tokens whose logits of an expert differ in every case. */
    int MAX_TOKENS = 300;

    private static RouterConfig config(
            int experts, int topK, Score score, Selection choice, Normalisation normalisation) {
        return new RouterConfig(
                experts,
                topK,
                score,
                choice,
                normalisation,
                1.5,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    @Tag("broad")
    @Test
    default void route_byExpertChoice_overTokens() {
        Selection mesh = new Selection.ExpertChoice(1.25, 4, Scope.TOKENS);
        Selection least = new Selection.ExpertChoice(0.5, 1, Scope.TOKENS);
        List<Normalisation> normalisations =
                List.of(
                        new Normalisation.Count(),
                        new Normalisation.None(),
                        new Normalisation.Sum(0),
                        new Normalisation.ClampedSum(0.4),
                        new Normalisation.PNorm(2));
        int[][] sizes = {{0, 3}, {1, 1}, {2, 7}, {9, 2}, {33, 8}, {70, 40}, {MAX_TOKENS, 5}};
        for (int[] size : sizes) {
            for (Normalisation normalisation : normalisations) {
                RouterConfig config = config(size[1], size[1], Score.SOFTMAX, mesh, normalisation);
                check(config, size[0], Logits.NORMAL, false);
            }
            Normalisation count = new Normalisation.Count();
            check(
                    config(size[1], size[1], Score.SOFTMAX, least, count),
                    size[0],
                    Logits.TIES,
                    true);
            int few = Math.min(2, size[1]);
            check(config(size[1], few, Score.SOFTMAX, mesh, count), size[0], Logits.NORMAL, true);
        }
    }

    /** A NaN is taken by nobody, and leaves its expert no softmax; nor does an infinite maximum. */
    @Test
    default void route_byExpertChoice_overTokens_withoutASoftmax() {
        Selection mesh = new Selection.ExpertChoice(1.25, 4, Scope.TOKENS);
        for (Logits kind : new Logits[] {Logits.SOME_NAN, Logits.ALL_NAN, Logits.INFINITE}) {
            check(config(6, 6, Score.SOFTMAX, mesh, new Normalisation.Count()), 20, kind, false);
        }
    }

    @Test
    default void route_byExpertChoice_overExperts_dividesByTheirNumber() {
        Selection paper = new Selection.ExpertChoice(2);
        Selection four = new Selection.ExpertChoice(0.1, 4, Scope.GLOBAL);
        for (Score score : new Score[] {Score.SOFTMAX, Score.SIGMOID}) {
            for (Selection choice : new Selection[] {paper, four}) {
                RouterConfig config = config(6, 6, score, choice, new Normalisation.Count());
                check(config, 33, Logits.NORMAL, false);
                check(config, 33, Logits.NORMAL, true);
            }
        }
    }

    private void check(RouterConfig config, int tokens, Logits kind, boolean everyThirdAbsent) {
        String name =
                "%s T=%d logits %s absent %b".formatted(config, tokens, kind, everyThirdAbsent);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            int experts = config.numExperts();
            int topK = config.topK();
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, experts);
            Cases.logits(logits, kind, experts * 31L + tokens);
            Tensor types = Tensor.allocate(arena, DType.I32, tokens);
            for (int t = 0; t < tokens; t++) {
                types.setInt(t, everyThirdAbsent && t % 3 == 2 ? -1 : 0);
            }
            int[][] ids = new int[tokens][topK];
            double[][] weights = new double[tokens][topK];
            oracle(logits, types, config, ids, weights);
            RouteInputs inputs = new RouteInputs(null, types);
            Routing want = Routing.allocate(arena, tokens, topK, experts);
            reference.route(logits, config, inputs, want);
            Routing got = Routing.allocate(arena, tokens, topK, experts);
            Poisoned.fill(got.topkIds());
            Poisoned.fill(got.topkWeights());
            backend().route(logits, config, inputs, got);
            Routings.compare(name, config, ids, weights, want, got);
            Routing again = Routing.allocate(arena, tokens, topK, experts);
            backend().route(logits, config, inputs, again);
            assertThat(again.topkWeights().data().mismatch(got.topkWeights().data()))
                    .as(name)
                    .isEqualTo(-1);
        }
    }

    /**
     * On whole matrices: gates [tokens, E], top_k of each column, one_hot, divided by the count.
     */
    private static void oracle(
            Tensor logits, Tensor types, RouterConfig config, int[][] ids, double[][] weights) {
        int experts = config.numExperts();
        int[] served = IntStream.range(0, ids.length).filter(t -> types.getInt(t) >= 0).toArray();
        double[][] z = new double[served.length][experts];
        for (int i = 0; i < z.length; i++) {
            for (int e = 0; e < experts; e++) {
                z[i][e] = logits.getDouble((long) served[i] * experts + e);
            }
        }
        Selection.ExpertChoice choice = (Selection.ExpertChoice) config.selection();
        boolean overTokens = choice.scope() == Scope.TOKENS;
        double[][] gates = new double[z.length][experts];
        for (int i = 0; i < z.length; i++) {
            for (int e = 0; e < experts; e++) {
                int expert = e;
                double[] over =
                        overTokens
                                ? Arrays.stream(z).mapToDouble(row -> row[expert]).toArray()
                                : z[i];
                gates[i][e] =
                        config.score() == Score.SIGMOID
                                ? 1 / (1 + Math.exp(-z[i][e]))
                                : softmax(z[i][e], over);
            }
        }
        long share = (long) (choice.capacityFactor() * z.length / experts);
        long capacity = Math.min(Math.max(share, choice.minTokens()), z.length);
        boolean[][] sent = new boolean[z.length][experts];
        for (int e = 0; e < experts; e++) {
            int expert = e;
            double[][] by = overTokens || config.score() == Score.SIGMOID ? z : gates;
            IntStream.range(0, z.length)
                    .filter(i -> !Double.isNaN(z[i][expert]))
                    .boxed()
                    .sorted(Comparator.comparingDouble(i -> 0.0 - by[i][expert]))
                    .limit(capacity)
                    .forEach(i -> sent[i][expert] = true);
        }
        for (int[] none : ids) {
            Arrays.fill(none, -1);
        }
        for (int i = 0; i < z.length; i++) {
            int token = i;
            int[] own =
                    IntStream.range(0, experts)
                            .filter(e -> sent[token][e])
                            .boxed()
                            .sorted(Comparator.comparingDouble(e -> 0.0 - z[token][e]))
                            .limit(config.topK())
                            .mapToInt(Integer::intValue)
                            .toArray();
            double[] s = Arrays.stream(own).mapToDouble(e -> gates[token][e]).toArray();
            double divisor = RouteOracle.divisor(config.normalisation(), s);
            for (int k = 0; k < own.length; k++) {
                ids[served[i]][k] = own[k];
                weights[served[i]][k] = s[k] / divisor * config.factor();
            }
        }
    }

    /** NaN where a NaN is among the others, or their maximum is infinite. */
    private static double softmax(double z, double[] over) {
        double max = Arrays.stream(over).max().orElseThrow();
        double sum = Arrays.stream(over).map(v -> Math.exp(v - max)).sum();
        return Math.exp(z - max) / sum;
    }
}
