package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.List;

/** Tokens that a {@link Capacity} must keep: of device-limited dropping, and of every other. */
interface ProtectedTokensContract extends Contract {
    /** DeepSeek-V2's, and one for each path of a backend. */
    static List<Capacity> schemes() {
        CapacityLimit two = new CapacityLimit.Tokens(2);
        CapacityLimit even = new CapacityLimit.Factor(1, CapacityLimit.Rounding.MEGATRON);
        return List.of(
                new Capacity(even, Priority.WEIGHT, false).perDevice(4),
                new Capacity(even, Priority.WEIGHT, true).perDevice(2),
                new Capacity(two, Priority.POSITION, false),
                new Capacity(even, Priority.PROBABILITY, true)
                        .withRandomRouting(new Capacity.RandomRouting(0.9, 3)),
                new Capacity(two, Priority.POSITION, true).withOverflow(new Overflow.Ring(3)),
                new Capacity(even, Priority.WEIGHT, false)
                        .perDevice(8)
                        .withOverflow(new Overflow.NextChoice(4)),
                new Capacity(new CapacityLimit.Tokens(0), Priority.WEIGHT, false));
    }

    private static RouterConfig rule(int experts, int topK, Score score, Capacity capacity) {
        return new RouterConfig(
                experts,
                topK,
                score,
                new Selection.TopK(),
                new Normalisation.Sum(1e-20),
                2.5,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    @Tag("broad")
    @Test
    default void route_withProtectedTokens_agreesWithOracle() {
        for (Capacity capacity : schemes()) {
            RouterConfig config = rule(16, 4, Score.SOFTMAX, capacity);
            for (int every : new int[] {1, 3, 100}) {
                protect(config, 17, every, null);
            }
            protect(config, 0, 1, null);
            protect(config, 1, 1, null);
            protect(config, 9, 2, -1);
        }
        // More slots than one block of a device looks at together.
        protect(rule(8, 2, Score.SOFTMAX, schemes().get(2)), 600, 10, null);
    }

    /** Every so many tokens are protected; of a negative type, every third one is absent. */
    private void protect(RouterConfig config, int tokens, int every, @Nullable Integer absent) {
        String name = "%s T=%d protected every %d".formatted(config, tokens, every);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, config.numExperts());
            Cases.logits(logits, Logits.NORMAL, tokens);
            Tensor stays = Tensor.allocate(arena, DType.I32, tokens);
            Tensor types = Tensor.allocate(arena, DType.I32, tokens);
            for (int t = 0; t < tokens; t++) {
                stays.setInt(t, t % every == every - 1 ? -t - 1 : 0);
                types.setInt(t, absent != null && t % 3 == 1 ? absent : 0);
            }
            RouteInputs inputs = new RouteInputs(null, types).withProtectedTokens(stays);
            RouteOracle oracle = new RouteOracle(logits, config, null, types, stays);
            assertThat(oracle.margin()).as(name).isGreaterThan(RouteContract.DECIDED);
            Routing want = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
            reference.route(logits, config, inputs, want);
            Routing got = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
            backend().route(logits, config, inputs, got);
            Routings.compare(name, config, oracle.ids, oracle.weights, want, got);
        }
    }

    /**
     * Devices with experts 0, 1 and 2, 3 take two slots each. The first is asked by all four
     * tokens: as many are dropped as would be without protection, but others, until more are
     * protected than it takes.
     */
    @Test
    default void route_perDevice_neverDropsProtectedTokens() {
        double[] affinities = {4, 3, 2, 1};
        assertThat(dropped(affinities)).containsExactly(false, false, true, true);
        assertThat(dropped(affinities, 3)).containsExactly(false, true, true, false);
        assertThat(dropped(affinities, 3, 2)).containsExactly(true, true, false, false);
        assertThat(dropped(affinities, 3, 2, 1)).containsExactly(true, false, false, false);
        assertThat(dropped(affinities, 0, 1, 2, 3)).containsExactly(false, false, false, false);
    }

    private boolean[] dropped(double[] affinities, int... protectedOnes) {
        try (Arena arena = Arena.ofConfined()) {
            int tokens = affinities.length;
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, 4);
            Tensor stays = Tensor.allocate(arena, DType.I32, tokens);
            for (int t = 0; t < tokens; t++) {
                logits.setDouble(4L * t + t % 2, affinities[t]);
                logits.setDouble(4L * t + 2, -9);
            }
            for (int t : protectedOnes) {
                stays.setInt(t, 1);
            }
            CapacityLimit two = new CapacityLimit.Tokens(2);
            Capacity devices = new Capacity(two, Priority.WEIGHT, false).perDevice(2);
            RouterConfig config =
                    new RouterConfig(
                            4,
                            1,
                            Score.SIGMOID,
                            new Selection.TopK(),
                            new Normalisation.None(),
                            1,
                            false,
                            devices,
                            RouterConfig.ALL_TOKENS);
            Routing routing = Routing.allocate(arena, tokens, 1, 4);
            RouteInputs inputs = RouteInputs.NONE.withProtectedTokens(stays);
            backend().route(logits, config, inputs, routing);
            boolean[] dropped = new boolean[tokens];
            for (int t = 0; t < tokens; t++) {
                assertThat(routing.topkIds().getInt(t)).isEqualTo(t % 2);
                dropped[t] = routing.topkWeights().getDouble(t) == 0;
            }
            return dropped;
        }
    }

    @Test
    default void route_refusesProtectedTokens_whereNothingIsDropped() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 3, 4);
            Routing to = Routing.allocate(arena, 3, 2, 4);
            Tensor stays = Tensor.allocate(arena, DType.I32, 3);
            RouteInputs inputs = RouteInputs.NONE.withProtectedTokens(stays);
            RouterConfig dropless = RouterConfig.softmaxTopK(4, 2, true);
            assertThatThrownBy(() -> backend().route(logits, dropless, inputs, to))
                    .hasMessage(
                            "protectedTokens: expected none without a capacity, which alone drops"
                                    + " tokens, got I32 [3]");
            RouterConfig config = rule(4, 2, Score.SOFTMAX, schemes().get(2));
            RouteInputs two = RouteInputs.NONE.withProtectedTokens(stays.slice(0, 2));
            assertThatThrownBy(() -> backend().route(logits, config, two, to))
                    .hasMessage("protectedTokens: expected I32 [tokens=3], got I32 [2]");
        }
    }
}
