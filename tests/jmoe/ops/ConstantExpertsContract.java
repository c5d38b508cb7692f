package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.Kernels.Residual;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;

/** {@link Kernels#constantExperts}. */
interface ConstantExpertsContract extends Contract {
    /** The last ids are those of constant experts: at most so many. */
    int CONSTANTS = 5;

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void constantExperts_areWhatTheEquationsSay(Case c) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            ConstantExperts experts = experts(arena, c.hidden());
            int first = Math.max(0, c.numExperts() - CONSTANTS);
            Tensor x = Cases.normal(arena, DType.F32, c.seed(), c.tokens(), c.hidden());
            check(c.toString(), x, routing, experts, first, null, DType.F32);
            Tensor other = Cases.normal(arena, c.dtype(0), c.seed(), c.tokens(), c.hidden());
            Tensor addend = Cases.normal(arena, c.dtype(1), 1, c.tokens(), c.hidden());
            check(c + " addend", other, routing, experts, first, addend, c.dtype(2));
        }
    }

    /** Whole vectors, more than a chunk of columns, and tails; one addend for all. */
    @Test
    default void constantExperts_mixAllTypes() {
        for (int hidden : new int[] {2056, 37}) {
            Case c = new Case(3, 6, 4, hidden, 0, Pattern.SOME_NONE);
            try (Arena arena = Arena.ofConfined()) {
                Routing routing = Cases.routing(arena, c);
                ConstantExperts experts = experts(arena, hidden);
                for (DType from : Cases.FLOATING) {
                    Tensor x = Cases.normal(arena, from, 3, c.tokens(), hidden);
                    for (DType to : Cases.FLOATING) {
                        Tensor bias = Cases.normal(arena, from, 4, 1, hidden);
                        check("H=" + hidden, x, routing, experts, 1, bias, to);
                    }
                }
            }
        }
    }

    /** Logits far apart or infinite choose; NaN of a token stays with it, if it is read at all. */
    @Test
    default void constantExperts_atExtremes() {
        double inf = Double.POSITIVE_INFINITY;
        try (Arena arena = Arena.ofConfined()) {
            ConstantExperts experts =
                    new ConstantExperts(
                            row(arena, 1, -1).reshape(1, 2, 1), row(arena, 7).reshape(1, 1));
            double[] inputs = {1000, -1000, 3e38, -3e38, 0, inf, -inf, Double.NaN, Double.NaN};
            int tokens = inputs.length;
            Tensor x = row(arena, inputs).reshape(tokens, 1);
            Routing routing = Routing.allocate(arena, tokens, 1, 4);
            for (int token = 0; token < tokens; token++) {
                routing.topkIds().setInt(token, token == tokens - 1 ? 3 : 4);
                routing.topkWeights().setDouble(token, 2);
            }
            Tensor y = Tensor.allocate(arena, DType.F32, tokens, 1);
            backend().constantExperts(x, routing, experts, 4, Residual.NONE, y);
            // Of minus infinity no share is left, and 0 times it is no number.
            double[] want = {2000, 14, inf, 14, 7, inf, Double.NaN, Double.NaN, 0};
            for (int token = 0; token < tokens; token++) {
                Double got = y.getDouble(token);
                assertThat(got).as("x = %s", inputs[token]).isEqualTo((Double) want[token]);
            }
        }
    }

    private static Tensor row(Arena arena, double... values) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setDouble(i, values[i]);
        }
        return tensor;
    }

    @Test
    default void constantExperts_mayWriteOverTheAddend() {
        Case c = new Case(9, 6, 3, 40, 0, Pattern.UNIFORM);
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                Routing routing = Cases.routing(arena, c);
                ConstantExperts experts = experts(arena, c.hidden());
                Tensor x = Cases.normal(arena, type, 3, c.tokens(), c.hidden());
                Tensor addend = Cases.normal(arena, type, 4, c.tokens(), c.hidden());
                Residual residual = new Residual(addend, null, Integer.MAX_VALUE, 1.5);
                Tensor y = Tensor.allocate(arena, type, x.shape());
                backend().constantExperts(x, routing, experts, 2, residual, y);
                backend().constantExperts(x, routing, experts, 2, residual, addend);
                assertThat(addend.data().mismatch(y.data())).as("%s", type).isEqualTo(-1);
            }
        }
    }

    @Test
    default void constantExperts_doNotDependOnBatch() {
        Case c = new Case(7, 8, 3, 45, 0, Pattern.SOME_NONE);
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            ConstantExperts experts = experts(arena, c.hidden());
            Tensor x = Cases.normal(arena, DType.BF16, 3, c.tokens(), c.hidden());
            Tensor y = Tensor.allocate(arena, DType.F32, x.shape());
            backend().constantExperts(x, routing, experts, 3, Residual.NONE, y);
            for (int t = 0; t < c.tokens(); t++) {
                Routing alone = Routing.allocate(arena, 1, c.topK(), c.numExperts());
                alone.topkIds().data().copyFrom(routing.topkIds().row(t).data());
                alone.topkWeights().data().copyFrom(routing.topkWeights().row(t).data());
                Tensor own = Tensor.allocate(arena, DType.F32, 1, c.hidden());
                backend().constantExperts(x.slice(t, 1), alone, experts, 3, Residual.NONE, own);
                assertThat(own.data().toArray(JAVA_BYTE))
                        .as("token %d", t)
                        .isEqualTo(y.slice(t, 1).data().toArray(JAVA_BYTE));
            }
        }
    }

    @Test
    default void constantExperts_refuseIdsThatAreNone() {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Routing.allocate(arena, 2, 1, 4);
            Tensor x = Tensor.allocate(arena, DType.F32, 2, 3);
            Tensor y = Tensor.allocate(arena, DType.F32, 2, 3);
            ConstantExperts experts = experts(arena, 3);
            for (int first : List.of(-1, Integer.MAX_VALUE - CONSTANTS + 1)) {
                assertThatThrownBy(() ->
                                backend()
                                        .constantExperts(
                                                x, routing, experts, first, Residual.NONE, y))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage("firstId: expected 0 to 2147483642, got " + first);
            }
        }
    }

    private static ConstantExperts experts(Arena arena, int hidden) {
        return new ConstantExperts(
                Cases.normal(arena, DType.F32, 5, CONSTANTS, 2, hidden),
                Cases.normal(arena, DType.F32, 6, CONSTANTS, hidden));
    }

    private void check(
            String name,
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int first,
            @Nullable Tensor addend,
            DType out) {
        String full = "%s, x %s addend %s to %s".formatted(name, x, addend, out);
        try (Arena arena = Arena.ofConfined()) {
            Residual residual = new Residual(addend, null, Integer.MAX_VALUE, 0.75);
            ConstantOracle oracle = new ConstantOracle(arena, x, routing, experts, first, residual);
            Poisoned y = Poisoned.allocate(arena, out, x.shape());
            backend().constantExperts(x, routing, experts, first, residual, y.tensor());
            Tolerance.assertRounded(
                    "constantExperts",
                    full,
                    y.tensor(),
                    oracle.y,
                    routing.topK() + 3,
                    DType.F32,
                    oracle.squares);
            y.assertUntouchedFrom("constantExperts", full, x.dim(0));
        }
    }
}
