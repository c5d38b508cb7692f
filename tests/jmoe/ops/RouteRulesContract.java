package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Capacity.Priority;
import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/** Single rules of {@link Kernels#route} on numbers small enough to be worked out by hand. */
interface RouteRulesContract extends Contract {
    @Test
    default void route_prefersLowerIdAmongEquals() {
        RouterConfig config = RouterConfig.softmaxTopK(6, 3, true);
        assertThat(ids(config, 1, 5, 1, 5, 0, 5)).containsExactly(1, 3, 5);
        assertThat(ids(config, 2, 2, 2, 2, 2, 2)).containsExactly(0, 1, 2);
        assertThat(ids(config, -0.0, 0.0, -1, -1, -1, -1)).containsExactly(0, 1, 2);
    }

    @Test
    default void route_ordersByLogitWhereScoresSaturate() {
        RouterConfig sigmoid = rule(4, 2, Score.SIGMOID, new Selection.TopK());
        assertThat(ids(sigmoid, 100, 200, 300, 150)).containsExactly(2, 1);
        RouterConfig softmax = RouterConfig.softmaxTopK(4, 3, true);
        assertThat(ids(softmax, -3e38, 3e38, -1e38, -2e38)).containsExactly(1, 2, 3);
    }

    @Test
    default void route_neverSelectsNanWhileThereAreOthers() {
        double nan = Double.NaN;
        RouterConfig config = RouterConfig.softmaxTopK(5, 2, true);
        assertThat(ids(config, nan, -1 / 0.0, nan, -9, nan)).containsExactly(3, 1);
        RouterConfig three = RouterConfig.softmaxTopK(5, 3, true);
        assertThat(ids(three, nan, nan, 1, nan, nan)).containsExactly(2, 0, 1);
        assertThat(ids(three, nan, nan, nan, nan, nan)).containsExactly(0, 1, 2);
    }

    @Test
    default void route_makesWeightsNanThatDependOnNan() {
        double nan = Double.NaN;
        RouterConfig all = RouterConfig.softmaxTopK(4, 2, false);
        assertThat(weights(all, 1, nan, 2, 3)).containsOnly(nan);
        RouterConfig own = rule(4, 2, Score.SIGMOID, new Selection.TopK());
        assertThat(weights(own, 0, nan, 0, -1)).containsExactly(0.5, 0.5);
        RouterConfig nothingElse = rule(3, 3, Score.SIGMOID, new Selection.TopK());
        assertThat(weights(nothingElse, 0, nan, 0)).containsExactly(0.5, 0.5, nan);
    }

    @Test
    default void route_judgesGroupsByTheirBestOrTheSumOfTwo() {
        // Groups {0,1}, {2,3}, {4,5}: the best expert is in the first, the best pair in the second.
        double[] z = {3, -9, 2, 2, -5, -5};
        Selection max = new Selection.GroupLimited(3, 1, GroupScore.MAX);
        assertThat(ids(rule(6, 2, Score.SIGMOID, max), z)).containsExactly(0, 1);
        Selection sum = new Selection.GroupLimited(3, 1, GroupScore.TOP2_SUM);
        assertThat(ids(rule(6, 2, Score.SIGMOID, sum), z)).containsExactly(2, 3);
    }

    /** Without a bias a sum of logits would keep the other group. */
    @Test
    default void route_judgesGroupsByScoresNotLogits() {
        // Sums of scores: 1.00 and 1.02; of logits: 2 and 0.1.
        double[] z = {12, -10, 1, -0.9};
        Selection sum = new Selection.GroupLimited(2, 1, GroupScore.TOP2_SUM);
        assertThat(ids(rule(4, 2, Score.SIGMOID, sum), z)).containsExactly(2, 3);
    }

    @Test
    default void route_addsBiasToSelectionOnly() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = tensor(arena, 0, 1, 2, 3).reshape(1, 4);
            Tensor bias = tensor(arena, 9, 0, 8, 0);
            Routing routing = Routing.allocate(arena, 1, 2, 4);
            RouterConfig config = rule(4, 2, Score.SIGMOID, new Selection.TopK());
            backend().route(logits, config, new RouteInputs(bias, null), routing);
            assertThat(ints(routing.topkIds())).containsExactly(0, 2);
            assertThat(routing.topkWeights().getDouble(0)).isEqualTo(0.5);
        }
    }

    /** With a bias the order is that of scores, and a softmax runs over all logits. */
    @Test
    default void route_withBiasNeverSelectsNanWhileThereAreOthers() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = tensor(arena, Double.NaN, 1, 2, 3).reshape(1, 4);
            Tensor bias = tensor(arena, 9, 0, 8, 0);
            Routing routing = Routing.allocate(arena, 1, 2, 4);
            for (Score score : Score.values()) {
                RouterConfig config = rule(4, 2, score, new Selection.TopK());
                backend().route(logits, config, new RouteInputs(bias, null), routing);
                assertThat(ints(routing.topkIds())).as(score.name()).containsExactly(2, 3);
                boolean nan = Double.isNaN(routing.topkWeights().getDouble(0));
                assertThat(nan).as(score.name()).isEqualTo(score == Score.SOFTMAX);
            }
        }
    }

    /** Where scores decide, an infinite maximum must not turn all of them into NaN. */
    @Test
    default void route_selectsTheMaximumOfAnInfiniteSoftmax() {
        double nan = Double.NaN;
        double inf = Double.POSITIVE_INFINITY;
        Selection best = new Selection.TopK();
        try (Arena arena = Arena.ofConfined()) {
            RouterConfig one = rule(2, 1, Score.SOFTMAX, best);
            Routing routing = routed(arena, one, tensor(arena, 0, 0), 1, inf);
            assertThat(ints(routing.topkIds())).containsExactly(1);
            assertThat(doubles(routing.topkWeights())).containsExactly(nan);
            RouterConfig ofFour = rule(4, 2, Score.SOFTMAX, best);
            routing = routed(arena, ofFour, tensor(arena, 0, 0, 0, 0), nan, inf, 1, 2);
            assertThat(ints(routing.topkIds())).containsExactly(1, 2);
            assertThat(doubles(routing.topkWeights())).containsOnly(nan);
            // Two at the maximum have 1/2 each: too little to make up for a bias of 0.6.
            routing = routed(arena, ofFour, tensor(arena, 0, 0, 0.6, 0), inf, inf, 1, 2);
            assertThat(ints(routing.topkIds())).containsExactly(2, 0);
            RouterConfig ofThree = rule(3, 2, Score.SOFTMAX, best);
            routing = routed(arena, ofThree, tensor(arena, 0, 0, 0), nan, -inf, -inf);
            assertThat(ints(routing.topkIds())).containsExactly(1, 2);
            assertThat(doubles(routing.topkWeights())).containsOnly(nan);
        }
        Selection sum = new Selection.GroupLimited(2, 1, GroupScore.TOP2_SUM);
        assertThat(ids(rule(4, 2, Score.SOFTMAX, sum), 5, 5, 1, inf)).containsExactly(3, 2);
    }

    @Test
    default void route_neverSelectsFromGroupsThatAreOut() {
        double nan = Double.NaN;
        Selection oneOfTwo = new Selection.GroupLimited(2, 1, GroupScore.MAX);
        for (Score score : Score.values()) {
            RouterConfig config = rule(4, 2, score, oneOfTwo);
            assertThat(ids(config, nan, 10, 1, 1)).containsExactly(1, 0);
            assertThat(ids(config, 1, 1, nan, 10)).containsExactly(3, 2);
        }
    }

    /** Infinity minus infinity and a NaN of any bits give one and the same NaN. */
    @Test
    default void route_writesOneNan() {
        int[][] rows = {
            {0xffc00001, 0x7fc12345, 0xffffffff}, {0x7f800000, 0x7f800000, 0}, {0xff800000, -1, -1}
        };
        for (int[] row : rows) {
            for (Score score : Score.values()) {
                for (Normalisation n :
                        List.of(new Normalisation.None(), new Normalisation.Sum(0))) {
                    for (int maxTokens = 0; maxTokens < 2; maxTokens++) {
                        Capacity capacity =
                                maxTokens == 0
                                        ? null
                                        : new Capacity(
                                                new CapacityLimit.Tokens(maxTokens),
                                                Priority.POSITION,
                                                true);
                        assertNansAreOne(row, score, n, capacity);
                    }
                }
            }
        }
    }

    private void assertNansAreOne(
            int[] row, Score score, Normalisation normalisation, @Nullable Capacity capacity) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 1, row.length);
            for (int e = 0; e < row.length; e++) {
                logits.data().set(ValueLayout.JAVA_INT_UNALIGNED, 4L * e, row[e]);
            }
            RouterConfig config =
                    new RouterConfig(
                            row.length,
                            row.length,
                            score,
                            new Selection.TopK(),
                            normalisation,
                            1,
                            false,
                            capacity,
                            RouterConfig.ALL_TOKENS);
            Routing routing = Routing.allocate(arena, 1, row.length, row.length);
            backend().route(logits, config, RouteInputs.NONE, routing);
            for (int k = 0; k < row.length; k++) {
                int bits = routing.topkWeights().data().get(ValueLayout.JAVA_INT_UNALIGNED, 4L * k);
                if (Float.isNaN(Float.intBitsToFloat(bits))) {
                    assertThat(bits).as(config.toString()).isEqualTo(0x7fc00000);
                }
            }
        }
    }

    /** The bias belongs to experts, not to keys, and is added to scores. */
    @Test
    default void route_addsBiasToScoresOfProductKeys() {
        try (Arena arena = Arena.ofConfined()) {
            RouterConfig config = rule(4, 2, Score.SIGMOID, new Selection.ProductKeys(2));
            // Logits of the experts: 2, 1, 1, 0.
            double[] keys = {1, 0, 1, 0};
            Routing routing = routed(arena, config, tensor(arena, 0, 0, 0, 9), keys);
            assertThat(ints(routing.topkIds())).containsExactly(3, 0);
            assertThat(routing.topkWeights().getDouble(0)).isEqualTo(0.5);
        }
    }

    /** They have no place in the order; first means that nothing else can drop them. */
    @Test
    default void route_queuesTokensWithNanBestScoreFirst() {
        try (Arena arena = Arena.ofConfined()) {
            Capacity one = new Capacity(new CapacityLimit.Tokens(1), Priority.PROBABILITY, false);
            RouterConfig config = within(one, RouterConfig.ALL_TOKENS);
            Routing routing = Routing.allocate(arena, 3, 1, 3);
            double[] z = {0, 9, 0, /**/ Double.NaN, 1, 0, /**/ 0, 1 / 0.0, 0};
            backend().route(tensor(arena, z).reshape(3, 3), config, RouteInputs.NONE, routing);
            assertThat(ints(routing.topkIds())).containsExactly(1, 1, 1);
            assertThat(doubles(routing.topkWeights())).containsExactly(0.0, Double.NaN, 0.0);
        }
    }

    @Test
    default void route_countsTokensOfOtherTypesInTheCapacity() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor types = Tensor.allocate(arena, DType.I32, 4);
            types.setInt(1, 1);
            types.setInt(3, 1);
            Routing routing = Routing.allocate(arena, 4, 1, 3);
            Tensor logits = Tensor.allocate(arena, DType.F32, 4, 3);
            RouterConfig half =
                    within(
                            new Capacity(new CapacityLimit.Fraction(0.5), Priority.POSITION, false),
                            1);
            backend().route(logits, half, new RouteInputs(null, types), routing);
            float third = 1 / 3f;
            assertThat(doubles(routing.topkWeights()))
                    .containsExactly(0.0, (double) third, 0.0, (double) third);
        }
    }

    private static RouterConfig within(Capacity capacity, int tokenType) {
        return new RouterConfig(
                3,
                1,
                Score.SOFTMAX,
                new Selection.TopK(),
                new Normalisation.None(),
                1,
                false,
                capacity,
                tokenType);
    }

    @Test
    default void route_dropsBeyondCapacityByPositionOrProbability() {
        // Everybody wants expert 0 first and expert 1 second; token 2 the most, then token 0.
        double[] z = {3, 1, 0, /**/ 2, 1, 0, /**/ 4, 1, 0};
        Capacity byPosition = new Capacity(new CapacityLimit.Tokens(2), Priority.POSITION, false);
        assertThat(kept(byPosition, z)).containsExactly(true, true, true, true, false, false);
        Capacity byProbability =
                new Capacity(new CapacityLimit.Tokens(2), Priority.PROBABILITY, false);
        assertThat(kept(byProbability, z)).containsExactly(true, true, false, false, true, true);
        Capacity third =
                new Capacity(new CapacityLimit.Fraction(1 / 3.0), Priority.POSITION, false);
        assertThat(kept(third, z)).containsExactly(true, true, false, false, false, false);
    }

    private boolean[] kept(Capacity capacity, double[] z) {
        try (Arena arena = Arena.ofConfined()) {
            RouterConfig plain = RouterConfig.softmaxTopK(3, 2, false);
            RouterConfig config =
                    new RouterConfig(
                            3,
                            2,
                            plain.score(),
                            plain.selection(),
                            plain.normalisation(),
                            1,
                            false,
                            capacity,
                            RouterConfig.ALL_TOKENS);
            Routing routing = Routing.allocate(arena, z.length / 3, 2, 3);
            backend()
                    .route(
                            tensor(arena, z).reshape(z.length / 3, 3),
                            config,
                            RouteInputs.NONE,
                            routing);
            boolean[] kept = new boolean[(int) routing.topkWeights().numElements()];
            for (int slot = 0; slot < kept.length; slot++) {
                kept[slot] = routing.topkWeights().getDouble(slot) != 0;
                assertThat(routing.topkIds().getInt(slot)).isEqualTo(slot % 2);
            }
            return kept;
        }
    }

    /** A second choice queues behind every first choice, and behind dropped ones. */
    @Test
    default void route_queuesSecondChoicesBehindFirst() {
        double[] z = {3, 2, 0, /**/ 2, 3, 0, /**/ 0, 3, 2};
        try (Arena arena = Arena.ofConfined()) {
            Capacity capacity = new Capacity(new CapacityLimit.Tokens(1), Priority.POSITION, true);
            RouterConfig config =
                    new RouterConfig(
                            3,
                            2,
                            Score.SIGMOID,
                            new Selection.TopK(),
                            new Normalisation.Sum(0),
                            1,
                            false,
                            capacity,
                            RouterConfig.ALL_TOKENS);
            Routing routing = Routing.allocate(arena, 3, 2, 3);
            backend().route(tensor(arena, z).reshape(3, 3), config, RouteInputs.NONE, routing);
            // First choices 0, 1, 1 fill experts 0 and 1; of the second ones only expert 2 is free.
            assertThat(doubles(routing.topkWeights()))
                    .containsExactly(1.0, 0.0, 1.0, 0.0, 0.0, 1.0);
        }
    }

    @Test
    default void route_givesOtherTokenTypesNoExpert() {
        try (Arena arena = Arena.ofConfined()) {
            RouterConfig config =
                    new RouterConfig(
                            3,
                            2,
                            Score.SIGMOID,
                            new Selection.TopK(),
                            new Normalisation.None(),
                            1,
                            false,
                            null,
                            1);
            Tensor types = Tensor.allocate(arena, DType.I32, 2);
            types.setInt(1, 1);
            Routing routing = Routing.allocate(arena, 2, 2, 3);
            Tensor logits = tensor(arena, 0, 0, 0, 0, 0, 1).reshape(2, 3);
            backend().route(logits, config, new RouteInputs(null, types), routing);
            assertThat(ints(routing.topkIds())).containsExactly(-1, -1, 2, 0);
            assertThat(doubles(routing.topkWeights()).subList(0, 2)).containsExactly(0.0, 0.0);
            assertThat(routing.topkWeights().getDouble(3)).isEqualTo(0.5);
        }
    }

    /** Whatever the logits, whatever the rule: ids are unique and in range. */
    @Tag("broad")
    @ParameterizedTest
    @EnumSource
    default void route_givesUniqueIdsInRange(Logits kind) {
        int experts = 16;
        List<Selection> selections = new ArrayList<>(RouteContract.selections());
        selections.add(new Selection.SparseMixer(0.01));
        for (Selection selection : selections) {
            for (Score score : Score.values()) {
                for (int biased = 0; biased < 2; biased++) {
                    if (biased == 1 && !(selection instanceof Selection.TopK)) {
                        continue;
                    }
                    int topK = selection instanceof Selection.SparseMixer ? 2 : 4;
                    RouterConfig config = rule(experts, topK, score, selection);
                    uniqueIds(config, kind, biased == 1);
                }
            }
        }
    }

    private void uniqueIds(RouterConfig config, Logits kind, boolean biased) {
        try (Arena arena = Arena.ofConfined()) {
            int tokens = 129;
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, config.numLogits());
            Cases.logits(logits, kind, 3);
            Tensor bias = Tensor.allocate(arena, DType.F32, config.numExperts());
            Cases.logits(bias, kind, 4);
            Routing routing = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
            backend().route(logits, config, new RouteInputs(biased ? bias : null, null), routing);
            for (int t = 0; t < tokens; t++) {
                List<Integer> ids = ints(routing.topkIds().row(t));
                assertThat(ids)
                        .as("token %d, %s, %s", t, kind, config)
                        .doesNotHaveDuplicates()
                        .allMatch(id -> id >= 0 && id < config.numExperts());
            }
        }
    }

    private static RouterConfig rule(int experts, int topK, Score score, Selection selection) {
        return new RouterConfig(
                experts,
                topK,
                score,
                selection,
                new Normalisation.None(),
                1,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    private List<Integer> ids(RouterConfig config, double... logits) {
        try (Arena arena = Arena.ofConfined()) {
            return ints(routed(arena, config, null, logits).topkIds());
        }
    }

    private List<Double> weights(RouterConfig config, double... logits) {
        try (Arena arena = Arena.ofConfined()) {
            return doubles(routed(arena, config, null, logits).topkWeights());
        }
    }

    private Routing routed(
            Arena arena, RouterConfig config, @Nullable Tensor bias, double... logits) {
        Routing routing = Routing.allocate(arena, 1, config.topK(), config.numExperts());
        Tensor z = tensor(arena, logits).reshape(1, logits.length);
        backend().route(z, config, new RouteInputs(bias, null), routing);
        return routing;
    }

    private static Tensor tensor(Arena arena, double... values) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setDouble(i, values[i]);
        }
        return tensor;
    }

    private static List<Integer> ints(Tensor tensor) {
        List<Integer> values = new ArrayList<>();
        for (long i = 0; i < tensor.numElements(); i++) {
            values.add(tensor.getInt(i));
        }
        return values;
    }

    private static List<Double> doubles(Tensor tensor) {
        List<Double> values = new ArrayList<>();
        for (long i = 0; i < tensor.numElements(); i++) {
            values.add(tensor.getDouble(i));
        }
        return values;
    }
}
