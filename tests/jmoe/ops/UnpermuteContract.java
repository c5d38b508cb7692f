package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.Kernels.Residual;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;

/** {@link Kernels#unpermute}. */
interface UnpermuteContract extends Contract {
    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void unpermute_agreesWithReference(Case c) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            Tensor weights = routing.topkWeights();
            Tensor f32 = Cases.normal(arena, DType.F32, c.seed(), c.slots(), c.hidden());
            Tensor mixed = Cases.normal(arena, c.dtype(0), c.seed(), c.slots(), c.hidden());
            Tensor addend = Cases.normal(arena, c.dtype(1), 3, c.tokens(), c.hidden());
            Tensor everyToken = Cases.normal(arena, DType.F32, 4, 1, c.hidden());
            Tensor identity = Cases.normal(arena, c.dtype(2), 5, c.tokens(), c.hidden());
            int first = c.numExperts() / 2;
            unpermute(c.toString(), f32, routing, null, Residual.NONE, DType.F32);
            unpermute(c.toString(), f32, routing, weights, Residual.of(addend), DType.BF16);
            unpermute(c.toString(), mixed, routing, weights, Residual.of(everyToken), c.dtype(2));
            Residual all = new Residual(addend, identity, first, 0.25);
            unpermute(c.toString(), mixed, routing, weights, all, c.dtype(1));
            Residual noAddend = new Residual(null, identity, first, 3);
            unpermute(c.toString(), f32, routing, null, noAddend, DType.F32);
        }
    }

    @Test
    default void unpermute_mixesAllTypes() {
        Case c = new Case(9, 5, 3, 37, 1, Pattern.SOME_NONE);
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            for (DType from : Cases.FLOATING) {
                for (DType add : Cases.FLOATING) {
                    for (DType to : Cases.FLOATING) {
                        Tensor rows = Cases.normal(arena, from, 1, c.slots(), c.hidden());
                        Tensor addend = Cases.normal(arena, add, 2, c.tokens(), c.hidden());
                        Residual residual = new Residual(addend, addend, 3, 0.5);
                        unpermute("mix", rows, routing, routing.topkWeights(), residual, to);
                    }
                }
            }
        }
    }

    /** Slots whose weight is 0 or that have no row: what lies in rows does not matter. */
    @Test
    default void unpermute_ignoresNanOfSlotsThatAddNothing() {
        Case c = new Case(33, 8, 2, 21, 1, Pattern.SOME_NONE);
        for (DType dtype : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                Routing routing = Cases.routing(arena, c);
                Tensor weights = routing.topkWeights();
                Tensor rows = Cases.normal(arena, dtype, 1, c.slots(), c.hidden());
                int numRows = Cases.rows(routing.expertOffsets());
                for (int row = 0; row < c.slots(); row++) {
                    if (row >= numRows || row % 3 == 0) {
                        for (int h = 0; h < c.hidden(); h++) {
                            rows.setDouble((long) row * c.hidden() + h, Double.NaN);
                        }
                        if (row < numRows) {
                            weights.setDouble(
                                    routing.rowToSlot().getInt(row), row % 2 == 0 ? 0 : -0.0);
                        }
                    }
                }
                Tensor y = unpermute("NaN", rows, routing, weights, Residual.NONE, dtype);
                assertThat(isNan(y)).as("%s", dtype).isFalse();
            }
        }
    }

    private static boolean isNan(Tensor y) {
        for (long i = 0; i < y.numElements(); i++) {
            if (Double.isNaN(y.getDouble(i))) {
                return true;
            }
        }
        return false;
    }

    @Test
    default void unpermute_addsIdentityAndAddend() {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Routing.allocate(arena, 2, 2, 4);
            int[] ids = {0, 3, 2, 1};
            for (int slot = 0; slot < 4; slot++) {
                routing.topkIds().setInt(slot, ids[slot]);
                routing.topkWeights().setDouble(slot, slot + 1);
            }
            Cases.sort(routing);
            Tensor rows = fill(Tensor.allocate(arena, DType.F32, 4, 3), 10);
            Tensor identity = fill(Tensor.allocate(arena, DType.F32, 2, 3), 100);
            Tensor each = fill(Tensor.allocate(arena, DType.F32, 2, 3), 1000);
            Tensor y = Tensor.allocate(arena, DType.F32, 2, 3);
            for (Tensor addend : new Tensor[] {each, each.slice(1, 1)}) {
                Residual residual = new Residual(addend, identity, 2, 2);
                backend().unpermute(rows, routing, routing.topkWeights(), residual, y);
                for (int h = 0; h < 3; h++) {
                    // Experts 2 and 3 return their input; experts 0 and 1 have rows 0 and 1.
                    double first = 2 * (1 * (10 + h) + 2 * (100 + h));
                    double second = 2 * (3 * (103 + h) + 4 * (13 + h));
                    double added = addend.dim(0) == 1 ? 1003 + h : 1000 + h;
                    assertThat(y.getDouble(h)).isEqualTo(added + first);
                    assertThat(y.getDouble(3 + h)).isEqualTo(1003 + h + second);
                }
            }
        }
    }

    private static Tensor fill(Tensor tensor, double first) {
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, first + i);
        }
        return tensor;
    }

    @Test
    default void unpermute_mayWriteOverAddend() {
        for (int tokens : new int[] {1, 33}) {
            Case c = new Case(tokens, 8, 2, 37, 1, Pattern.UNIFORM);
            for (DType dtype : Cases.FLOATING) {
                try (Arena arena = Arena.ofConfined()) {
                    Routing routing = Cases.routing(arena, c);
                    Tensor rows = Cases.normal(arena, dtype, 1, c.slots(), c.hidden());
                    Tensor addend = Cases.normal(arena, dtype, 2, tokens, c.hidden());
                    Tensor y = Tensor.allocate(arena, dtype, tokens, c.hidden());
                    Tensor weights = routing.topkWeights();
                    backend().unpermute(rows, routing, weights, Residual.of(addend), y);
                    backend().unpermute(rows, routing, weights, Residual.of(addend), addend);
                    assertThat(addend.data().toArray(JAVA_BYTE))
                            .as("%s, %s", c, dtype)
                            .isEqualTo(y.data().toArray(JAVA_BYTE));
                }
            }
        }
    }

    private Tensor unpermute(
            String name,
            Tensor rows,
            Routing routing,
            @Nullable Tensor weights,
            Residual residual,
            DType out) {
        String full = "%s, rows %s residual %s to %s".formatted(name, rows, residual, out);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor want = Tensor.allocate(arena, DType.F64, routing.tokens(), rows.dim(1));
            reference.unpermute(rows, routing, weights, residual, want);
            Poisoned y = Poisoned.allocate(Arena.ofAuto(), out, routing.tokens(), rows.dim(1));
            backend().unpermute(rows, routing, weights, residual, y.tensor());
            Tolerance.assertClose("unpermute", full, y.tensor(), want, routing.topK() + 2);
            y.assertUntouchedFrom("unpermute", full, routing.tokens());
            return y.tensor();
        }
    }
}
