package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;

/** {@link Kernels#route} by rules that look at the whole batch. */
interface BatchRouteContract extends Contract {
    /** More tokens are left out. */
    int MAX_TOKENS = Integer.getInteger(Cases.MAX_TOKENS_PROPERTY, Integer.MAX_VALUE);

    /** One of each kind. */
    List<Selection> RULES =
            List.of(
                    new Selection.ExpertChoice(1.5),
                    new Selection.Sinkhorn(1e-4, 20),
                    new Selection.BalancedAssignment(0.02));

    /** Tokens, experts, K. */
    static List<int[]> sizes() {
        int[][] sizes = {
            {0, 4, 2},
            {1, 1, 1},
            {1, 4, 4},
            {3, 8, 2},
            {7, 3, 1},
            {33, 4, 3},
            {67, 8, 2},
            {20, 70, 70}
        };
        return Arrays.stream(sizes).filter(size -> size[0] <= MAX_TOKENS).toList();
    }

    /** Logits without a number that overflows. */
    List<Logits> ORDINARY = List.of(Logits.NORMAL, Logits.TIES, Logits.ALL_EQUAL);

    @ParameterizedTest
    @EnumSource(Logits.class)
    default void route_byExpertChoice(Logits kind) {
        Normalisation none = new Normalisation.None();
        Normalisation sum = new Normalisation.Sum(0);
        Selection two = new Selection.ExpertChoice(2);
        Selection few = new Selection.ExpertChoice(0.7);
        for (int[] size : sizes()) {
            checkExpertChoice(config(size, Score.SOFTMAX, two, none), size[0], kind, 1);
            checkExpertChoice(config(size, Score.SOFTMAX, few, sum), size[0], kind, -1);
            checkExpertChoice(config(size, Score.SIGMOID, two, sum), size[0], kind, -2);
        }
    }

    @Tag("broad")
    @Test
    default void route_byExpertChoice_ofManyExperts() {
        int[] size = {300, 256, 256};
        Selection one = new Selection.ExpertChoice(1);
        Normalisation none = new Normalisation.None();
        for (Score score : new Score[] {Score.SOFTMAX, Score.SIGMOID}) {
            for (Logits kind : new Logits[] {Logits.NORMAL, Logits.TIES}) {
                checkExpertChoice(config(size, score, one, none), 300, kind, 1);
            }
        }
        Selection every = new Selection.ExpertChoice(1e9);
        int[] small = {9, 8, 8};
        checkExpertChoice(config(small, Score.SIGMOID, every, none), 9, Logits.NORMAL, 1);
    }

    private void checkExpertChoice(RouterConfig config, int tokens, Logits kind, int numTypes) {
        try (Arena arena = Arena.ofConfined()) {
            Batch batch = new Batch(arena, config, tokens, kind, numTypes);
            Selection.ExpertChoice choice = (Selection.ExpertChoice) config.selection();
            int experts = config.numExperts();
            int share = choice.tokensPerExpert(batch.z.length, experts);
            int topK = config.topK();
            int[][] ids =
                    BatchRouteOracle.expertChoice(batch.z, experts, config.score(), share, topK);
            batch.check(route(batch), ids);
        }
    }

    @ParameterizedTest
    @EnumSource(Logits.class)
    default void route_bySinkhorn(Logits kind) {
        Selection sinkhorn = new Selection.Sinkhorn(1e-3, 9);
        for (int[] size : sizes()) {
            Score score = size[2] == 1 ? Score.SIGMOID : Score.SOFTMAX;
            RouterConfig config = config(size, score, sinkhorn, new Normalisation.None());
            try (Arena arena = Arena.ofConfined()) {
                Batch batch = new Batch(arena, config, size[0], kind, size[0] % 2 == 0 ? 1 : -1);
                Routing got = route(batch);
                if (ORDINARY.contains(kind)) {
                    double[][] plan = BatchRouteOracle.plan(batch.z, config.numExperts(), 1e-3, 9);
                    batch.check(got, BatchRouteOracle.best(plan, batch.z, config.topK()));
                }
            }
        }
    }

    @Tag("broad")
    @Test
    default void route_bySinkhorn_ofManyExperts() {
        RouterConfig config =
                config(
                        new int[] {200, 256, 8},
                        Score.SOFTMAX,
                        new Selection.Sinkhorn(1e-3, 20),
                        new Normalisation.Sum(0));
        try (Arena arena = Arena.ofConfined()) {
            Batch batch = new Batch(arena, config, 200, Logits.NORMAL, 1);
            double[][] plan = BatchRouteOracle.plan(batch.z, 256, 1e-3, 20);
            batch.check(route(batch), BatchRouteOracle.best(plan, batch.z, 8));
        }
    }

    /** The plan that experts are chosen from gives each token and each expert its share. */
    @Test
    default void route_bySinkhorn_evensOutTheLoad() {
        int tokens = 48;
        int experts = 6;
        int[] size = {tokens, experts, 1};
        Selection sinkhorn = new Selection.Sinkhorn(1e-5, 60);
        RouterConfig config = config(size, Score.SIGMOID, sinkhorn, new Normalisation.None());
        try (Arena arena = Arena.ofConfined()) {
            Batch batch = new Batch(arena, config, tokens, Logits.NORMAL, 1);
            for (int t = 0; t < tokens; t++) {
                // Everybody likes expert 2.
                batch.set(t, 2, batch.z[t][2] + 3);
            }
            double[][] plan = BatchRouteOracle.plan(batch.z, experts, 1e-5, 60);
            for (double[] row : plan) {
                assertThat(Arrays.stream(row).sum()).isBetween(0.999 / tokens, 1.001 / tokens);
            }
            for (int e = 0; e < experts; e++) {
                int expert = e;
                assertThat(Arrays.stream(plan).mapToDouble(row -> row[expert]).sum())
                        .isBetween(0.999 / experts, 1.001 / experts);
            }
            Routing got = route(batch);
            batch.check(got, BatchRouteOracle.best(plan, batch.z, 1));
            assertThat(mostTokens(got)).isLessThan(2 * tokens / experts);
        }
    }

    /** What all logits of a token have in common does not matter. */
    @Test
    default void route_bySinkhorn_ignoresShiftsOfRows() {
        int[] size = {40, 7, 2};
        Selection sinkhorn = new Selection.Sinkhorn(1e-6, 12);
        RouterConfig config = config(size, Score.SOFTMAX, sinkhorn, new Normalisation.None());
        try (Arena arena = Arena.ofConfined()) {
            Batch batch = new Batch(arena, config, 40, Logits.NORMAL, 1);
            // Numbers to which whole numbers can be added exactly.
            for (int t = 0; t < 40; t++) {
                for (int e = 0; e < 7; e++) {
                    batch.set(t, e, Math.rint(batch.z[t][e] * 64) / 64);
                }
            }
            Routing before = route(batch);
            for (int t = 0; t < 40; t++) {
                for (int e = 0; e < 7; e++) {
                    batch.set(t, e, batch.z[t][e] + t % 5 * 8 - 16);
                }
            }
            Routing after = route(batch);
            assertThat(bytes(after.topkIds())).isEqualTo(bytes(before.topkIds()));
            assertThat(bytes(after.topkWeights())).isEqualTo(bytes(before.topkWeights()));
        }
    }

    @ParameterizedTest
    @EnumSource(Logits.class)
    default void route_byBalancedAssignment_isNearlyTheBest(Logits kind) {
        int[][] sizes = {
            {0, 3}, {1, 1}, {5, 1}, {1, 4}, {3, 8}, {7, 3}, {33, 4}, {20, 35}, {48, 12}
        };
        for (int[] size : sizes) {
            int tokens = Math.min(size[0], MAX_TOKENS);
            double epsilon = tokens % 2 == 0 ? 0.02 : 0.005;
            RouterConfig config =
                    config(
                            new int[] {tokens, size[1], 1},
                            Score.SIGMOID,
                            new Selection.BalancedAssignment(epsilon),
                            new Normalisation.None());
            try (Arena arena = Arena.ofConfined()) {
                int numTypes = tokens % 5 == 3 ? -1 : 1;
                Batch batch = new Batch(arena, config, tokens, kind, numTypes);
                checkAssignment(route(batch), batch, epsilon);
            }
        }
    }

    private static void checkAssignment(Routing got, Batch batch, double epsilon) {
        int experts = batch.config.numExperts();
        int limit = Math.ceilDiv(batch.z.length, experts);
        double[][] values = BatchRouteOracle.values(batch.z);
        int[][] ids = new int[batch.z.length][1];
        double sum = 0;
        for (int i = 0; i < ids.length; i++) {
            ids[i][0] = got.topkIds().getInt(batch.tokens[i]);
            assertThat(ids[i][0]).isBetween(0, experts - 1);
            sum += values[i][ids[i][0]];
        }
        assertThat(mostTokens(got)).isLessThanOrEqualTo(limit);
        double largest = BatchRouteOracle.largestSum(values, experts, limit);
        assertThat(sum).isBetween(largest - ids.length * epsilon - 1e-9, largest + 1e-9);
        batch.check(got, ids);
    }

    @Test
    default void routeSort_byBatch_sortsWhatRouteFinds() {
        for (Selection rule : RULES) {
            int topK = rule instanceof Selection.BalancedAssignment ? 1 : 2;
            int[] size = {67, 8, topK};
            RouterConfig config = config(size, Score.SIGMOID, rule, new Normalisation.None());
            try (Arena arena = Arena.ofConfined()) {
                Batch batch = new Batch(arena, config, 67, Logits.NORMAL, -1);
                Routing want = route(batch);
                Cases.sort(want);
                Routing got = Routing.allocate(arena, 67, topK, 8);
                backend().routeSort(batch.logits, config, batch.inputs, got);
                assertThat(bytes(got.topkIds())).isEqualTo(bytes(want.topkIds()));
                assertThat(bytes(got.topkWeights())).isEqualTo(bytes(want.topkWeights()));
                assertThat(bytes(got.slotToRow())).isEqualTo(bytes(want.slotToRow()));
                assertThat(bytes(got.expertOffsets())).isEqualTo(bytes(want.expertOffsets()));
            }
        }
    }

    @Test
    default void route_byBatch_scalesExpertsLast() {
        for (Selection rule : RULES) {
            int topK = rule instanceof Selection.BalancedAssignment ? 1 : 3;
            int[] size = {19, 5, topK};
            RouterConfig config = config(size, Score.SIGMOID, rule, new Normalisation.Sum(0));
            try (Arena arena = Arena.ofConfined()) {
                Batch batch = new Batch(arena, config, 19, Logits.NORMAL, 1);
                Routing plain = route(batch);
                Tensor scale = Cases.normal(arena, DType.F32, 3, 5);
                Routing scaled = Routing.allocate(arena, 19, topK, 5);
                RouteInputs inputs = batch.inputs.withExpertScale(scale);
                backend().route(batch.logits, config, inputs, scaled);
                assertThat(bytes(scaled.topkIds())).isEqualTo(bytes(plain.topkIds()));
                for (int slot = 0; slot < 19 * topK; slot++) {
                    int id = plain.topkIds().getInt(slot);
                    double by = id < 0 ? 0 : scale.getDouble(id);
                    double want = plain.topkWeights().getDouble(slot) * by;
                    assertThat(scaled.topkWeights().getDouble(slot))
                            .isCloseTo(want, within(2e-7 * Math.abs(want)));
                }
            }
        }
    }

    /** Tokens that are not there change nothing: a batch may be padded with them. */
    @Test
    default void route_byBatch_doesNotSeeAbsentTokens() {
        for (Selection rule : RULES) {
            RouterConfig config =
                    config(new int[] {30, 5, 1}, Score.SIGMOID, rule, new Normalisation.None());
            try (Arena arena = Arena.ofConfined()) {
                Batch batch = new Batch(arena, config, 30, Logits.NORMAL, 1);
                Tensor types = Tensor.allocate(arena, DType.I32, 30);
                for (int t = 20; t < 30; t++) {
                    types.setInt(t, -1);
                }
                Routing padded = Routing.allocate(arena, 30, 1, 5);
                backend().route(batch.logits, config, new RouteInputs(null, types), padded);
                Routing alone = Routing.allocate(arena, 20, 1, 5);
                backend().route(batch.logits.slice(0, 20), config, RouteInputs.NONE, alone);
                for (int t = 0; t < 30; t++) {
                    int id = t < 20 ? alone.topkIds().getInt(t) : -1;
                    double weight = t < 20 ? alone.topkWeights().getDouble(t) : 0;
                    assertThat(padded.topkIds().getInt(t)).isEqualTo(id);
                    assertThat(padded.topkWeights().getDouble(t)).isEqualTo(weight);
                }
            }
        }
    }

    @Test
    default void route_byBatch_repeatsItsBits() {
        for (Selection rule : RULES) {
            int[] size = {Math.min(129, MAX_TOKENS), 8, 1};
            RouterConfig config = config(size, Score.SOFTMAX, rule, new Normalisation.None());
            try (Arena arena = Arena.ofConfined()) {
                Batch batch = new Batch(arena, config, size[0], Logits.NORMAL, 1);
                Routing first = route(batch);
                Routing second = route(batch);
                assertThat(bytes(second.topkIds())).isEqualTo(bytes(first.topkIds()));
                assertThat(bytes(second.topkWeights())).isEqualTo(bytes(first.topkWeights()));
            }
        }
    }

    /** Runs the backend and compares with the reference. */
    private Routing route(Batch batch) {
        RouterConfig config = batch.config;
        int tokens = (int) batch.logits.dim(0);
        Routing want = Routing.allocate(batch.arena, tokens, config.topK(), config.numExperts());
        try (Kernels reference = new ReferenceKernels()) {
            reference.route(batch.logits, config, batch.inputs, want);
        }
        Routing got = Routing.allocate(batch.arena, tokens, config.topK(), config.numExperts());
        Poisoned.fill(got.topkIds());
        Poisoned.fill(got.topkWeights());
        backend().route(batch.logits, config, batch.inputs, got);
        assertThat(ids(got)).as(batch.name).isEqualTo(ids(want));
        Tolerance.assertClose(
                "route", batch.name, got.topkWeights(), want.topkWeights(), config.numExperts());
        return got;
    }

    private static int[] ids(Routing routing) {
        return IntStream.range(0, (int) routing.topkIds().numElements())
                .map(slot -> routing.topkIds().getInt(slot))
                .toArray();
    }

    private static int mostTokens(Routing routing) {
        int[] counts = new int[routing.numExperts()];
        for (int id : ids(routing)) {
            if (id >= 0) {
                counts[id]++;
            }
        }
        return Arrays.stream(counts).max().orElse(0);
    }

    private static byte[] bytes(Tensor tensor) {
        return tensor.data().toArray(JAVA_BYTE);
    }

    private static RouterConfig config(
            int[] size, Score score, Selection selection, Normalisation normalisation) {
        return new RouterConfig(
                size[1], size[2], score, selection, normalisation, 1.5, false, null, -1);
    }

    /** Logits, whose tokens are all served or, of a negative number of types, every other one. */
    final class Batch {
        final Arena arena;
        final RouterConfig config;
        final String name;
        final Tensor logits;
        final RouteInputs inputs;

        /** The tokens that are served, and their logits. */
        final int[] tokens;

        final double[][] z;

        Batch(Arena arena, RouterConfig config, int tokens, Logits kind, int numTypes) {
            this.arena = arena;
            this.config = config;
            name = "%s T=%d logits %s types %d".formatted(config, tokens, kind, numTypes);
            int experts = config.numExperts();
            logits = Tensor.allocate(arena, DType.F32, tokens, experts);
            Cases.logits(logits, kind, experts * 31L + tokens);
            @Nullable Tensor types = null;
            if (numTypes < 0) {
                types = Tensor.allocate(arena, DType.I32, tokens);
                for (int t = 0; t < tokens; t++) {
                    types.setInt(t, t % 2 * numTypes);
                }
            }
            inputs = new RouteInputs(null, types);
            this.tokens =
                    IntStream.range(0, tokens).filter(t -> numTypes > 0 || t % 2 == 0).toArray();
            z = new double[this.tokens.length][experts];
            for (int i = 0; i < z.length; i++) {
                for (int e = 0; e < experts; e++) {
                    z[i][e] = logits.getDouble((long) this.tokens[i] * experts + e);
                }
            }
        }

        /** Changes a logit of a batch of which every token is served. */
        void set(int token, int expert, double logit) {
            logits.setDouble((long) token * config.numExperts() + expert, logit);
            z[token][expert] = logits.getDouble((long) token * config.numExperts() + expert);
        }

        /** Compares with the ids of the tokens that are served, and the weights that these have. */
        void check(Routing got, int[][] ids) {
            int topK = config.topK();
            Tensor weights = Tensor.allocate(arena, DType.F64, logits.dim(0), topK);
            int[] slots = new int[(int) weights.numElements()];
            Arrays.fill(slots, -1);
            for (int i = 0; i < ids.length; i++) {
                double[] ofToken = BatchRouteOracle.weights(z[i], ids[i], config);
                for (int k = 0; k < ids[i].length; k++) {
                    slots[tokens[i] * topK + k] = ids[i][k];
                    weights.setDouble((long) tokens[i] * topK + k, ofToken[k]);
                }
            }
            assertThat(ids(got)).as(name + " (oracle)").isEqualTo(slots);
            Tolerance.assertClose(
                    "route", name + " (oracle)", got.topkWeights(), weights, config.numExperts());
        }
    }
}
