package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.Capacity.RandomRouting;
import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;

/** {@link Kernels#route} within a {@link Capacity}: every scheme, and small ones worked out. */
interface CapacityContract extends RouteContract {
    /** Every priority, every overflow, experts and devices, before and after normalisation. */
    static List<Capacity> schemes() {
        CapacityLimit two = new CapacityLimit.Tokens(2);
        CapacityLimit half = new CapacityLimit.Factor(0.5, CapacityLimit.Rounding.MEGATRON);
        CapacityLimit even = new CapacityLimit.Factor(1, CapacityLimit.Rounding.FASTMOE);
        CapacityLimit grown = new CapacityLimit.Grown(even, 1.1);
        RandomRouting paper = new RandomRouting(0.5, 7);
        RandomRouting mesh = new RandomRouting(0.2, -1);
        return List.of(
                new Capacity(half, Priority.WEIGHT, false),
                new Capacity(even, Priority.WEIGHT, true),
                new Capacity(even, Priority.POSITION, false).withRandomRouting(paper),
                new Capacity(half, Priority.PROBABILITY, true).withRandomRouting(mesh),
                new Capacity(two, Priority.WEIGHT, true).withRandomRouting(paper),
                new Capacity(even, Priority.WEIGHT, false).perDevice(2),
                new Capacity(half, Priority.POSITION, true).perDevice(1),
                new Capacity(two, Priority.POSITION, false).withOverflow(new Overflow.Ring(3)),
                new Capacity(half, Priority.WEIGHT, true).withOverflow(new Overflow.Ring(40)),
                new Capacity(even, Priority.PROBABILITY, true)
                        .withRandomRouting(mesh)
                        .withOverflow(new Overflow.Ring(1))
                        .perDevice(2),
                new Capacity(two, Priority.POSITION, false)
                        .withOverflow(new Overflow.NextChoice(3)),
                new Capacity(grown, Priority.PROBABILITY, true)
                        .withOverflow(new Overflow.NextChoice(1)),
                new Capacity(half, Priority.WEIGHT, false)
                        .withOverflow(new Overflow.NextChoice(30)),
                new Capacity(grown, Priority.WEIGHT, true)
                        .withRandomRouting(paper)
                        .withOverflow(new Overflow.NextChoice(5))
                        .perDevice(2),
                new Capacity(new CapacityLimit.Tokens(0), Priority.WEIGHT, true)
                        .withOverflow(new Overflow.NextChoice(2)),
                new Capacity(new CapacityLimit.Tokens(99), Priority.WEIGHT, false)
                        .withOverflow(new Overflow.Ring(2)));
    }

    @Tag("broad")
    @ParameterizedTest
    @MethodSource("jmoe.ops.CapacityContract#schemes")
    default void route_withinCapacity_combinesRules(Capacity capacity) {
        Selection best = new Selection.TopK();
        Selection groups = new Selection.GroupLimited(4, 2, GroupScore.TOP2_SUM);
        Normalisation sum = new Normalisation.Sum(0);
        Normalisation clamped = new Normalisation.ClampedSum(0.9);
        Normalisation none = new Normalisation.None();
        RouterConfig softmax = rule(16, 4, Score.SOFTMAX, best, sum, capacity);
        for (int tokens : new int[] {0, 1, 3, 17}) {
            route(softmax, tokens, Logits.NORMAL, null, null);
        }
        route(rule(16, 4, Score.SIGMOID, groups, clamped, capacity), 17, Logits.NORMAL, null, null);
        route(rule(16, 3, Score.SOFTMAX, groups, none, capacity), 9, Logits.NORMAL, 0.3, null);
        Selection keys = new Selection.ProductKeys(4);
        Normalisation norm = new Normalisation.PNorm(2);
        route(rule(16, 3, Score.SOFTMAX, keys, norm, capacity), 9, Logits.NORMAL, null, null);
        route(rule(2, 1, Score.SOFTMAX, best, none, capacity), 9, Logits.NORMAL, null, null);
        route(rule(4, 4, Score.SIGMOID, best, sum, capacity), 9, Logits.NORMAL, null, null);
        // Absent tokens, and others of another type.
        route(softmax, 9, Logits.NORMAL, null, -1);
        route(softmax, 9, Logits.NORMAL, null, 2);
        // Every token wants the same.
        route(rule(16, 4, Score.SIGMOID, best, sum, capacity), 9, Logits.ALL_EQUAL, null, null);
        for (Logits kind : new Logits[] {Logits.SOME_NAN, Logits.ALL_NAN, Logits.INFINITE}) {
            route(rule(16, 4, Score.SIGMOID, best, none, capacity), 9, kind, null, null);
            // Normalised afterwards, a score of 0 beside a NaN counts as dropped.
            if (kind != Logits.INFINITE || !capacity.normaliseAfter()) {
                route(softmax, 9, kind, null, null);
            }
        }
    }

    /** More slots than one block of a device looks at together. */
    @Test
    default void route_withinCapacity_ofManyTokens() {
        Selection best = new Selection.TopK();
        CapacityLimit tight = new CapacityLimit.Factor(0.9, CapacityLimit.Rounding.VMOE);
        for (Overflow overflow :
                new Overflow[] {
                    new Overflow.Drop(), new Overflow.Ring(2), new Overflow.NextChoice(2)
                }) {
            Capacity capacity =
                    new Capacity(tight, Priority.POSITION, false).withOverflow(overflow);
            RouterConfig config =
                    rule(8, 2, Score.SOFTMAX, best, new Normalisation.Sum(0), capacity);
            route(config, 700, Logits.NORMAL, null, null);
        }
    }

    private static RouterConfig rule(
            int numExperts,
            int topK,
            Score score,
            Selection selection,
            Normalisation normalisation,
            Capacity capacity) {
        int devices = capacity.numDevices();
        return new RouterConfig(
                numExperts,
                topK,
                score,
                selection,
                normalisation,
                2.5,
                false,
                devices == 0 ? capacity : capacity.perDevice(Math.min(devices, numExperts)),
                RouterConfig.ALL_TOKENS);
    }

    /** The experts that took something, or -1 where a slot was dropped. */
    private int[] taken(Capacity capacity, int topK, double[][] z) {
        try (Arena arena = Arena.ofConfined()) {
            int experts = z[0].length;
            RouterConfig config =
                    rule(
                            experts,
                            topK,
                            Score.SIGMOID,
                            new Selection.TopK(),
                            new Normalisation.None(),
                            capacity);
            Tensor logits = Tensor.allocate(arena, DType.F32, z.length, experts);
            for (int i = 0; i < z.length * experts; i++) {
                logits.setDouble(i, z[i / experts][i % experts]);
            }
            Routing routing = Routing.allocate(arena, z.length, topK, experts);
            backend().route(logits, config, RouteInputs.NONE, routing);
            int[] taken = new int[z.length * topK];
            for (int slot = 0; slot < taken.length; slot++) {
                boolean kept = routing.topkWeights().getDouble(slot) != 0;
                taken[slot] = kept ? routing.topkIds().getInt(slot) : -1;
            }
            return taken;
        }
    }

    /** The slots with the highest weights stay, though they are second and last. */
    @Test
    default void route_byWeight_keepsTheHighest() {
        double[][] z = {{1, 9, -9}, {2, 9, -9}, {9, 3, -9}, {4, -9, 3}};
        Capacity two = new Capacity(new CapacityLimit.Tokens(2), Priority.WEIGHT, false);
        assertThat(taken(two, 2, z)).containsExactly(1, -1, 1, -1, 0, -1, 0, 2);
    }

    /** Scores that are the same F32 queue by position, though one is larger in double. */
    @Test
    default void route_queuesByScoresAsF32() {
        double[][] z = {{20, -9}, {25, -9}};
        for (Priority priority : List.of(Priority.PROBABILITY, Priority.WEIGHT)) {
            Capacity one = new Capacity(new CapacityLimit.Tokens(1), priority, false);
            assertThat(taken(one, 1, z)).containsExactly(0, -1);
        }
    }

    /** Devices hold experts 0, 1 and 2, 3: three slots want the first, two the second. */
    @Test
    default void route_perDevice_dropsTheLowestOfAllItsExperts() {
        double[][] z = {{3, -9, -9, -9}, {-9, 1, -9, -9}, {-9, 2, -9, -9}, {-9, -9, 1, 0}};
        CapacityLimit two = new CapacityLimit.Tokens(2);
        Capacity devices = new Capacity(two, Priority.WEIGHT, false).perDevice(2);
        assertThat(taken(devices, 1, z)).containsExactly(0, -1, 1, 2);
        CapacityLimit even = new CapacityLimit.Factor(1, CapacityLimit.Rounding.MEGATRON);
        Capacity factor = new Capacity(even, Priority.WEIGHT, false).perDevice(2);
        assertThat(taken(factor, 1, z)).containsExactly(0, -1, 1, 2);
    }

    /** All want expert 0 of 5: its neighbours are 1, 4, 2 and 3, in this order. */
    @Test
    default void route_overflowsAroundTheRing() {
        double[][] z = new double[6][];
        for (int token = 0; token < z.length; token++) {
            z[token] = new double[] {9, 0, 0, 0, 0};
        }
        CapacityLimit one = new CapacityLimit.Tokens(1);
        Capacity capacity = new Capacity(one, Priority.POSITION, false);
        Capacity two = capacity.withOverflow(new Overflow.Ring(2));
        assertThat(taken(two, 1, z)).containsExactly(0, 1, 4, -1, -1, -1);
        for (int tries : new int[] {4, 9, Integer.MAX_VALUE}) {
            Capacity all = capacity.withOverflow(new Overflow.Ring(tries));
            assertThat(taken(all, 1, z)).containsExactly(0, 1, 4, 2, 3, -1);
        }
    }

    /**
     * Mesh's No Token Left Behind: token 1 finds its second expert taken by token 2, who asked for
     * it first, and token 3 its third one free.
     */
    @Test
    default void route_overflowsToTheNextChoice() {
        double[][] z = {{9, 1, 0, 0}, {9, 8, 7, -9}, {1, 9, 0, 0}, {9, -9, 7, 8}};
        CapacityLimit one = new CapacityLimit.Tokens(1);
        Capacity capacity = new Capacity(one, Priority.POSITION, false);
        Capacity once = capacity.withOverflow(new Overflow.NextChoice(1));
        assertThat(taken(once, 1, z)).containsExactly(0, -1, 1, 3);
        for (int tries : new int[] {2, Integer.MAX_VALUE}) {
            Capacity twice = capacity.withOverflow(new Overflow.NextChoice(tries));
            assertThat(taken(twice, 1, z)).containsExactly(0, 2, 1, 3);
        }
    }

    /** Experts that are not active are as if their logits were NaN, which are not asked. */
    @Test
    default void route_overflowsToActiveExpertsOnly() {
        for (Selection selection :
                new Selection[] {
                    new Selection.TopK(), new Selection.GroupLimited(2, 2, GroupScore.MAX)
                }) {
            for (int every : new int[] {2, 3, 5}) {
                Capacity next =
                        new Capacity(new CapacityLimit.Tokens(2), Priority.WEIGHT, false)
                                .withOverflow(new Overflow.NextChoice(8));
                overflowAmong(
                        every,
                        rule(12, 2, Score.SIGMOID, selection, new Normalisation.Sum(0), next));
            }
        }
    }

    @Test
    default void route_refusesRingsAmongActiveExperts() {
        try (Arena arena = Arena.ofConfined()) {
            Capacity ring =
                    new Capacity(new CapacityLimit.Tokens(1), Priority.POSITION, false)
                            .withOverflow(new Overflow.Ring(2));
            RouterConfig config =
                    rule(4, 2, Score.SIGMOID, new Selection.TopK(), new Normalisation.None(), ring);
            Tensor logits = Tensor.allocate(arena, DType.F32, 3, 4);
            Routing to = Routing.allocate(arena, 3, 2, 4);
            RouteInputs inputs =
                    RouteInputs.NONE.withActiveExperts(Tensor.allocate(arena, DType.I32, 4));
            assertThatThrownBy(() -> backend().route(logits, config, inputs, to))
                    .hasMessage(
                            "activeExperts: expected none with overflow Ring[tries=2], which may"
                                    + " move slots to any expert; take Drop or NextChoice, got I32"
                                    + " [4]");
        }
    }

    /** Of so many experts the last is not active. */
    private void overflowAmong(int every, RouterConfig config) {
        int tokens = 14;
        String name = config + " inactive " + every;
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, config.numExperts());
            Cases.logits(logits, Logits.NORMAL, 5);
            Tensor active = Tensor.allocate(arena, DType.I32, config.numExperts());
            Tensor withNan = logits.copy(arena);
            for (int e = 0; e < config.numExperts(); e++) {
                boolean out = e % every == every - 1;
                active.setInt(e, out ? 0 : 1);
                for (int t = 0; out && t < tokens; t++) {
                    withNan.setDouble((long) t * config.numExperts() + e, Double.NaN);
                }
            }
            RouteOracle oracle = new RouteOracle(withNan, config, null, null);
            assertThat(oracle.margin()).as("the case itself, %s", name).isGreaterThan(DECIDED);
            RouteInputs inputs = RouteInputs.NONE.withActiveExperts(active);
            Routing want = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
            reference.route(logits, config, inputs, want);
            Routing got = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
            backend().route(logits, config, inputs, got);
            Routings.compare(name, config, oracle.ids, oracle.weights, want, got);
        }
    }

    /** The moved slot has the weight of where it went. */
    @Test
    default void route_givesMovedSlotsTheScoreOfTheirExpert() {
        try (Arena arena = Arena.ofConfined()) {
            Capacity one =
                    new Capacity(new CapacityLimit.Tokens(1), Priority.POSITION, false)
                            .withOverflow(new Overflow.NextChoice(1));
            RouterConfig config =
                    rule(2, 1, Score.SIGMOID, new Selection.TopK(), new Normalisation.None(), one);
            Tensor logits = Tensor.allocate(arena, DType.F32, 2, 2);
            logits.setDouble(0, 1);
            logits.setDouble(2, 1);
            Routing routing = Routing.allocate(arena, 2, 1, 2);
            backend().route(logits, config, RouteInputs.NONE, routing);
            assertThat(routing.topkIds().getInt(1)).isEqualTo(1);
            // sigmoid(0), times the factor.
            assertThat(routing.topkWeights().getDouble(1)).isEqualTo(1.25);
        }
    }

    /** A second choice of weight 1/2 always stays at a threshold of 1/2, and first ones anyway. */
    @Test
    default void route_leavesOutSecondChoicesAtRandom() {
        int tokens = 400;
        double[][] z = new double[tokens][];
        for (int token = 0; token < tokens; token++) {
            z[token] = new double[] {1, 1, -9};
        }
        CapacityLimit all = new CapacityLimit.Tokens(tokens);
        Capacity capacity = new Capacity(all, Priority.POSITION, false);
        assertThat(taken(capacity.withRandomRouting(new RandomRouting(0.5, 1)), 2, z))
                .doesNotContain(-1);
        int[] taken = taken(capacity.withRandomRouting(new RandomRouting(2, 1)), 2, z);
        int seconds = 0;
        for (int token = 0; token < tokens; token++) {
            assertThat(taken[2 * token]).isZero();
            double drawn = SplitMix.uniform(1, 2L * token + 1);
            assertThat(taken[2 * token + 1]).isEqualTo(drawn < 0.25 ? 1 : -1);
            seconds += taken[2 * token + 1] == 1 ? 1 : 0;
        }
        // A quarter of them, within four standard deviations.
        assertThat(seconds).isBetween(65, 135);
    }
}
