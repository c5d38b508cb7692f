package jmoe.ops;

import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases.Case;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.function.DoubleBinaryOperator;

/** {@link Kernels#swiglu}, of every {@link Activation}. */
interface SwigluContract extends Contract {
    /** Bound of the clamps in gpt-oss. */
    float LIMIT = 7;

    /** Where the tails of both gelus are no F32, and where they are no double either. */
    double[] GELU_TAILS = {5, -5, -9, -13.5, -19, -20.5, -24, -38, -39};

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void swiglu_agreesWithReference(Case c) {
        Kind[] kinds = Kind.values();
        try (Arena arena = Arena.ofConfined()) {
            Tensor offsets = Cases.routing(arena, c).expertOffsets();
            for (Kind kind : kinds) {
                long columns = (activation(kind).gated() ? 2L : 1L) * c.intermediate();
                Tensor f32 = Cases.normal(arena, DType.F32, c.seed(), c.slots(), columns);
                swiglu(c + " " + kind, f32, activation(kind), offsets, DType.F32);
                DType mixed = c.dtype(kind.ordinal() % 3);
                Tensor other = Cases.normal(arena, mixed, c.seed(), c.slots(), columns);
                swiglu(c + " " + kind, other, activation(kind), offsets, c.dtype(1));
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    default void swiglu_mixesAllTypes(Kind kind) {
        Activation activation = activation(kind);
        try (Arena arena = Arena.ofConfined()) {
            Tensor offsets = Cases.offsets(arena, 2, 0, 5);
            for (DType from : Cases.FLOATING) {
                for (DType to : Cases.FLOATING) {
                    Tensor gateUp = Cases.normal(arena, from, 1, 9, activation.gated() ? 74 : 37);
                    swiglu(kind.toString(), gateUp, activation, offsets, to);
                }
            }
        }
    }

    /** Where exp overflows, clamps act, and NaN and infinities must come through. */
    @Tag("broad")
    @ParameterizedTest
    @EnumSource
    default void swiglu_atExtremes_agreesWithReference(Kind kind) {
        float above = Math.nextUp(LIMIT);
        double[] gates = {
            0,
            -0.0,
            1e-30,
            -1e-30,
            88,
            -88,
            89,
            -89,
            104,
            -104,
            -151,
            -160,
            -170,
            -199,
            -300,
            1000,
            -1000,
            LIMIT,
            -LIMIT,
            above,
            -above,
            Double.NaN,
            1 / 0.0,
            -1 / 0.0
        };
        double[] ups = {
            0,
            1,
            -1,
            LIMIT,
            -LIMIT,
            above,
            -above,
            1000,
            -1000,
            3e38,
            -3e38,
            1 / 0.0,
            -1 / 0.0,
            Double.NaN
        };
        Activation activation = activation(kind);
        // The slope of the clamped one is rounded: its tail is off by as many ulp as its exponent.
        double[] tails = kind == Kind.CLAMPED_SWIGLU ? new double[0] : GELU_TAILS;
        if (activation.gated()) {
            extremes(activation, gates, ups);
            extremes(activation, tails, ups);
        } else {
            double[] none = {Double.NaN};
            extremes(activation, none, gates);
            extremes(activation, none, tails);
            extremes(activation, none, ups);
        }
    }

    /** One value at a time: beside a large neighbour the tolerance would hide it. */
    private void extremes(Activation activation, double[] gates, double[] ups) {
        for (double gate : gates) {
            for (double up : ups) {
                extreme(activation, gate, up);
            }
        }
    }

    private void extreme(Activation activation, double gate, double up) {
        int width = 9;
        try (Arena arena = Arena.ofConfined()) {
            int columns = activation.gated() ? 2 * width : width;
            Tensor gateUp = Tensor.allocate(arena, DType.F32, 1, columns);
            for (int i = 0; i < columns; i++) {
                gateUp.setDouble(i, activation.gated() && i < width ? gate : up);
            }
            String name = "%s gate %s up %s".formatted(activation, gate, up);
            swiglu(name, gateUp, activation, Cases.offsets(arena, 1), DType.F32);
        }
    }

    /** The formulas once more, in the test. */
    @Test
    default void swiglu_equalsFormulas() {
        formula(Kind.SWIGLU, (g, u) -> g / (1 + Math.exp(-g)) * u);
        formula(Kind.SILU, (g, u) -> u / (1 + Math.exp(-u)));
        formula(Kind.RELU, (g, u) -> u > 0 ? u : 0);
        formula(Kind.SQUARED_RELU, (g, u) -> u > 0 ? u * u : 0);
        formula(Kind.GELU, (g, u) -> u * NormalOracle.cumulative(u));
        formula(Kind.GELU_TANH, (g, u) -> geluTanh(u));
        formula(Kind.LINEAR, (g, u) -> u);
        formula(Kind.GEGLU, (g, u) -> g * NormalOracle.cumulative(g) * u);
        formula(Kind.GEGLU_TANH, (g, u) -> geluTanh(g) * u);
        formula(Kind.REGLU, (g, u) -> (g > 0 ? g : 0) * u);
        formula(Kind.GLU, (g, u) -> u / (1 + Math.exp(-g)));
        formula(Kind.BILINEAR, (g, u) -> g * u);
        formula(
                Kind.CLAMPED_SWIGLU,
                (g, u) -> {
                    double gate = g > LIMIT ? LIMIT : g;
                    double up = u > LIMIT ? LIMIT : u < -LIMIT ? -LIMIT : u;
                    return gate / (1 + Math.exp(-1.702 * gate)) * (up + 1);
                });
    }

    private static double geluTanh(double x) {
        return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
    }

    private void formula(Kind kind, DoubleBinaryOperator formula) {
        int width = 13;
        try (Arena arena = Arena.ofConfined()) {
            Activation activation = activation(kind);
            int columns = activation.gated() ? 2 * width : width;
            Tensor gateUp = Tensor.allocate(arena, DType.F32, 4, columns);
            Cases.normal(gateUp, kind.ordinal());
            for (long i = 0; i < gateUp.numElements(); i++) {
                gateUp.setDouble(i, 6 * gateUp.getDouble(i));
            }
            Tensor got = Tensor.allocate(arena, DType.F32, 4, width);
            backend().swiglu(gateUp, activation, Cases.offsets(arena, 4), got);
            Tensor want = Tensor.allocate(arena, DType.F64, 4, width);
            for (int row = 0; row < 4; row++) {
                for (int i = 0; i < width; i++) {
                    int up = row * columns + columns - width + i;
                    want.setDouble(
                            row * width + i,
                            formula.applyAsDouble(
                                    gateUp.getDouble(row * columns + i), gateUp.getDouble(up)));
                }
            }
            Tolerance.assertClose(
                    "swiglu", "formula " + kind, got, want, Tolerance.ACTIVATION_ROUNDINGS);
        }
    }

    private static Activation activation(Kind kind) {
        return kind == Kind.CLAMPED_SWIGLU ? Activation.clampedSwiglu(LIMIT) : Activation.of(kind);
    }

    private void swiglu(
            String name, Tensor gateUp, Activation activation, Tensor offsets, DType out) {
        String full = "%s, gateUp %s to %s".formatted(name, gateUp, out);
        long width = activation.gated() ? gateUp.dim(1) / 2 : gateUp.dim(1);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            int rows = Cases.rows(offsets);
            Tensor want = Tensor.allocate(arena, DType.F64, gateUp.dim(0), width);
            reference.swiglu(gateUp, activation, offsets, want);
            Poisoned hidden = Poisoned.allocate(arena, out, gateUp.dim(0), width);
            backend().swiglu(gateUp, activation, offsets, hidden.tensor());
            Tolerance.assertClose(
                    "swiglu",
                    full,
                    hidden.tensor(),
                    want.slice(0, rows),
                    Tolerance.ACTIVATION_ROUNDINGS);
            hidden.assertUntouchedFrom("swiglu", full, rows);
        }
    }
}
