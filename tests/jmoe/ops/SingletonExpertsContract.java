package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** {@link Kernels#singletonExperts}. */
interface SingletonExpertsContract extends Contract {
    /** What a neuron may make of its sum. */
    Activation.Kind[] UNGATED =
            Stream.of(Activation.Kind.values())
                    .filter(kind -> !Activation.of(kind).gated())
                    .toArray(Activation.Kind[]::new);

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void singletonExperts_isWhatTheEquationsSay(Case c) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            Tensor weights = routing.topkWeights();
            Activation mixed = Activation.of(UNGATED[(int) (c.seed() % UNGATED.length)]);
            Tensor f32 = Cases.normal(arena, DType.F32, c.seed(), c.tokens(), c.hidden());
            Tensor other = Cases.normal(arena, c.dtype(0), c.seed(), c.tokens(), c.hidden());
            Tensor ids = routing.topkIds();
            SingletonExperts gelu = bank(arena, DType.F32, Activation.of(Activation.Kind.GELU), c);
            sum(c.toString(), f32, ids, null, gelu, DType.F32);
            sum(c.toString(), other, ids, weights, bank(arena, c.dtype(1), mixed, c), c.dtype(2));
        }
    }

    @Tag("broad")
    @ParameterizedTest
    @FieldSource("UNGATED")
    default void singletonExperts_mixesAllTypes(Activation.Kind kind) {
        // Columns of whole vectors, and more than a chunk of the vector backend.
        Case wide = new Case(3, 5, 4, 2056, 1, Pattern.SOME_NONE);
        Case odd = new Case(3, 5, 4, 37, 1, Pattern.SOME_NONE);
        try (Arena arena = Arena.ofConfined()) {
            for (Case c : new Case[] {wide, odd}) {
                Routing routing = Cases.routing(arena, c);
                for (DType from : Cases.FLOATING) {
                    Tensor x = Cases.normal(arena, from, 1, c.tokens(), c.hidden());
                    for (DType type : Cases.FLOATING) {
                        SingletonExperts experts = bank(arena, type, Activation.of(kind), c);
                        Tensor weights = routing.topkWeights();
                        sum(kind + " " + c, x, routing.topkIds(), weights, experts, from);
                    }
                }
            }
        }
    }

    /** One expert, one column: what comes out is the function itself. */
    @Tag("broad")
    @ParameterizedTest
    @FieldSource("UNGATED")
    default void singletonExperts_atExtremes_isWhatTheEquationsSay(Activation.Kind kind) {
        double[] sums = {
            0,
            -0.0,
            1e-30,
            1,
            -1,
            -0.66,
            0.66,
            3,
            -3,
            -5.5,
            -8,
            8,
            20,
            -20,
            -38,
            -88,
            88,
            -104,
            1000,
            -1000,
            1e30,
            -1e30,
            Double.NaN,
            1 / 0.0,
            -1 / 0.0
        };
        try (Arena arena = Arena.ofConfined()) {
            Tensor ids = Tensor.allocate(arena, DType.I32, 1, 1);
            Tensor one = tensor(arena, new double[][] {{1}});
            SingletonExperts experts = new SingletonExperts(one, one, Activation.of(kind));
            for (double a : sums) {
                Tensor x = Tensor.allocate(arena, DType.F32, 1, 1);
                x.setDouble(0, a);
                sum(kind + " of " + a, x, ids, null, experts, DType.F32);
            }
        }
    }

    /** What adds nothing is not read: experts nobody chose, weights 0, neurons at 0. */
    @Test
    default void singletonExperts_ignoresNanOfSlotsThatAddNothing() {
        double nan = Double.NaN;
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = tensor(arena, new double[][] {{1, 2}, {-1, nan}, {3, 0}});
            Tensor up = tensor(arena, new double[][] {{1, 1}, {nan, nan}, {-1, -1}, {2, 1}});
            Tensor down = tensor(arena, new double[][] {{1, 10}, {nan, 1}, {nan, nan}, {5, 7}});
            Tensor ids = Tensor.allocate(arena, DType.I32, 3, 4);
            int[] all = {0, 2, 1, -1, /**/ 3, -5, 9, 4, /**/ 2, 3, Integer.MAX_VALUE, 0};
            Tensor weights = Tensor.allocate(arena, DType.F32, 3, 4);
            for (int slot = 0; slot < 12; slot++) {
                ids.setInt(slot, all[slot]);
                weights.setDouble(slot, slot == 2 || slot == 11 ? 0 : 0.5);
            }
            Tensor y = Tensor.allocate(arena, DType.F32, 3, 2);
            SingletonExperts experts =
                    new SingletonExperts(up, down, Activation.of(Activation.Kind.RELU));
            backend().singletonExperts(x, ids, weights, experts, y);
            // Token 1 is NaN because its own x is.
            double[] want = {1.5, 15, nan, nan, 15, 21};
            assertThat(IntStream.range(0, 6).mapToObj(y::getDouble).toList())
                    .isEqualTo(Arrays.stream(want).boxed().toList());
        }
    }

    private static Tensor tensor(Arena arena, double[][] rows) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, rows.length, rows[0].length);
        for (int i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, rows[i / rows[0].length][i % rows[0].length]);
        }
        return tensor;
    }

    @Test
    default void singletonExperts_doesNotDependOnBatch() {
        Case c = new Case(7, 40, 6, 45, 1, Pattern.SOME_NONE);
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                Routing routing = Cases.routing(arena, c);
                Tensor x = Cases.normal(arena, type, 1, c.tokens(), c.hidden());
                SingletonExperts experts =
                        bank(arena, type, Activation.of(Activation.Kind.GELU), c);
                Tensor y = Tensor.allocate(arena, DType.F32, x.shape());
                Tensor ids = routing.topkIds();
                Tensor weights = routing.topkWeights();
                backend().singletonExperts(x, ids, weights, experts, y);
                for (int t = 0; t < c.tokens(); t++) {
                    Tensor own = Tensor.allocate(arena, DType.F32, 1, c.hidden());
                    Tensor w = weights.slice(t, 1);
                    backend().singletonExperts(x.slice(t, 1), ids.slice(t, 1), w, experts, own);
                    assertThat(own.data().toArray(JAVA_BYTE))
                            .as("%s, token %d", type, t)
                            .isEqualTo(y.slice(t, 1).data().toArray(JAVA_BYTE));
                }
            }
        }
    }

    @Test
    default void singletonExperts_refusesBanksOfTwoShapesOrTypes() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor up = Tensor.allocate(arena, DType.F32, 4, 3);
            Tensor narrow = Tensor.allocate(arena, DType.F32, 4, 2);
            Tensor half = Tensor.allocate(arena, DType.F16, 4, 3);
            for (Tensor down : new Tensor[] {narrow, half}) {
                assertThatThrownBy(() ->
                                new SingletonExperts(up, down, Activation.of(Activation.Kind.GELU)))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(
                                "down: expected F32 [numExperts=4, hidden=3], got "
                                        + down.describe());
            }
        }
    }

    private static SingletonExperts bank(Arena arena, DType type, Activation activation, Case c) {
        return new SingletonExperts(
                Cases.normal(arena, type, c.seed() + 1, c.numExperts(), c.hidden()),
                Cases.normal(arena, type, c.seed() + 2, c.numExperts(), c.hidden()),
                activation);
    }

    private void sum(
            String name,
            Tensor x,
            Tensor ids,
            @Nullable Tensor weights,
            SingletonExperts experts,
            DType out) {
        try (Arena arena = Arena.ofConfined()) {
            String full = "%s, x %s experts %s to %s".formatted(name, x, experts, out);
            SingletonOracle oracle = new SingletonOracle(arena, x, ids, weights, experts);
            Poisoned y = Poisoned.allocate(arena, out, x.shape());
            backend().singletonExperts(x, ids, weights, experts, y.tensor());
            Tolerance.assertRounded(
                    "singletonExperts",
                    full,
                    y.tensor(),
                    oracle.y,
                    ids.dim(1) + 2,
                    DType.F32,
                    oracle.squares);
            y.assertUntouchedFrom("singletonExperts", full, x.dim(0));
        }
    }
}
