package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.Kernels.Residual;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;

/** {@link Kernels#permute}, and what it and unpermute are to each other. */
interface PermuteContract extends Contract {
    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void permute_copiesExactly(Case c) {
        for (DType from : Cases.FLOATING) {
            for (DType to : Cases.FLOATING) {
                permuteExactly(c, from, to);
            }
        }
    }

    private void permuteExactly(Case c, DType from, DType to) {
        String name = c + " " + from + " to " + to;
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, from, c.seed(), c.tokens(), c.hidden());
            sprinkleSpecials(x);
            Routing routing = Cases.routing(arena, c);
            int numRows = Cases.rows(routing.expertOffsets());
            Poisoned rows = Poisoned.allocate(arena, to, c.slots(), c.hidden());
            backend().permute(x, routing, null, rows.tensor());
            Tensor want = Tensor.allocate(arena, to, numRows, c.hidden());
            for (int row = 0; row < numRows; row++) {
                Floats.convert(
                        x.data(),
                        from,
                        (long) routing.rowToSlot().getInt(row) / c.topK() * c.hidden(),
                        want.data(),
                        to,
                        (long) row * c.hidden(),
                        c.hidden());
            }
            for (long i = 0; i < want.numElements(); i++) {
                double w = want.getDouble(i);
                double g = rows.tensor().getDouble(i);
                assertThat(Double.doubleToLongBits(g))
                        .as("element %d of rows, %s: got %s, want %s", i, name, g, w)
                        .isEqualTo(Double.doubleToLongBits(w));
            }
            rows.assertUntouchedFrom("permute", name, numRows);
        }
    }

    private static void sprinkleSpecials(Tensor x) {
        double[] specials = {Double.NaN, 1 / 0.0, -1 / 0.0, -0.0, 1e-7, -1e-40, 65519, 3e38};
        for (long i = 0; i < x.numElements(); i += 7) {
            x.setDouble(i, specials[(int) (i / 7 % specials.length)]);
        }
    }

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void permute_weighted_agreesWithReference(Case c) {
        DType[][] mixes = {
            {DType.F32, DType.F32}, {DType.BF16, DType.BF16}, {c.dtype(0), c.dtype(1)}
        };
        for (DType[] mix : mixes) {
            String name = c + " " + mix[0] + " to " + mix[1];
            try (Arena arena = Arena.ofConfined();
                    Kernels reference = new ReferenceKernels()) {
                Tensor x = Cases.normal(arena, mix[0], c.seed(), c.tokens(), c.hidden());
                Routing routing = Cases.routing(arena, c);
                int numRows = Cases.rows(routing.expertOffsets());
                Tensor want = Tensor.allocate(arena, DType.F64, c.slots(), c.hidden());
                reference.permute(x, routing, routing.topkWeights(), want);
                Poisoned rows = Poisoned.allocate(arena, mix[1], c.slots(), c.hidden());
                backend().permute(x, routing, routing.topkWeights(), rows.tensor());
                Tolerance.assertClose("permute", name, rows.tensor(), want.slice(0, numRows), 1);
                rows.assertUntouchedFrom("permute", name, numRows);
            }
        }
    }

    @Test
    default void permute_thenUnpermuteWithOneSlotPerToken_givesEveryBitBack() {
        Case c = new Case(129, 7, 1, 33, 1, Pattern.SKEWED);
        for (DType dtype : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                Tensor x = Cases.normal(arena, dtype, 5, c.tokens(), c.hidden());
                for (long i = 0; i < x.numElements(); i += 5) {
                    x.setDouble(i, 1e-39 * i); // subnormal in F32 and BF16, 0 in F16
                }
                Routing routing = Cases.routing(arena, c);
                for (int slot = 0; slot < c.slots(); slot++) {
                    routing.topkWeights().setDouble(slot, 1);
                }
                Tensor rows = Tensor.allocate(arena, dtype, c.slots(), c.hidden());
                Tensor back = Tensor.allocate(arena, dtype, c.tokens(), c.hidden());
                backend().permute(x, routing, null, rows);
                backend().unpermute(rows, routing, routing.topkWeights(), Residual.NONE, back);
                assertThat(back.data().toArray(JAVA_BYTE))
                        .as("%s", dtype)
                        .isEqualTo(x.data().toArray(JAVA_BYTE));
            }
        }
    }

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void permute_isAdjointOfUnpermute(Case c) {
        for (boolean weighted : new boolean[] {false, true}) {
            try (Arena arena = Arena.ofConfined()) {
                Routing routing = Cases.routing(arena, c);
                Tensor weights = weighted ? routing.topkWeights() : null;
                int numRows = Cases.rows(routing.expertOffsets());
                Tensor x = Cases.normal(arena, DType.F32, c.seed(), c.tokens(), c.hidden());
                Tensor r = Cases.normal(arena, DType.F32, c.seed() + 1, c.slots(), c.hidden());
                Tensor px = Tensor.allocate(arena, DType.F32, c.slots(), c.hidden());
                Tensor ur = Tensor.allocate(arena, DType.F32, c.tokens(), c.hidden());
                backend().permute(x, routing, weights, px);
                backend().unpermute(r, routing, weights, Residual.NONE, ur);
                double left = 0;
                for (long i = 0; i < (long) numRows * c.hidden(); i++) {
                    left += px.getDouble(i) * r.getDouble(i);
                }
                double[] terms = new double[(int) x.numElements()];
                for (int i = 0; i < terms.length; i++) {
                    terms[i] = x.getDouble(i) * ur.getDouble(i);
                }
                Tolerance.assertSum("permute", c + " adjoint, weights " + weighted, left, terms);
            }
        }
    }
}
