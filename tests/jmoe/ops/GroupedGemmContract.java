package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;

/** {@link Kernels#groupedGemm}. */
interface GroupedGemmContract extends Contract {
    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void groupedGemm_agreesWithReference(Case c) {
        gemm(c, DType.F32, DType.F32, DType.F32, false);
        gemm(c, DType.BF16, DType.BF16, DType.BF16, true);
        gemm(c, c.dtype(0), c.dtype(1), c.dtype(2), true);
    }

    @Test
    default void groupedGemm_mixesAllTypes() {
        Case c = new Case(7, 3, 2, 37, 11, Cases.Pattern.UNIFORM);
        for (DType x : Cases.FLOATING) {
            for (DType weight : Cases.FLOATING) {
                for (DType y : Cases.FLOATING) {
                    gemm(c, x, weight, y, true);
                }
            }
        }
    }

    @Tag("broad")
    @Test
    default void groupedGemm_ofWholeVectors() {
        WholeVectors.groupedGemm(backend(), DType.BF16);
        WholeVectors.groupedGemm(backend(), DType.F16);
    }

    /** The formula once more, in the test. */
    @Test
    default void groupedGemm_equalsFormula() {
        int[] counts = {2, 0, 3};
        int out = 5;
        int in = 9;
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.F32, 1, 5, in);
            Tensor weight = Cases.normal(arena, DType.F32, 2, 3, out, in);
            Tensor bias = Cases.normal(arena, DType.F32, 3, 3, out);
            Tensor got = Tensor.allocate(arena, DType.F32, 5, out);
            backend().groupedGemm(x, weight, bias, Cases.offsets(arena, counts), got);
            Tensor want = Tensor.allocate(arena, DType.F64, 5, out);
            for (int row = 0; row < 5; row++) {
                int e = row < 2 ? 0 : 2;
                for (int n = 0; n < out; n++) {
                    double sum = bias.row(e).getDouble(n);
                    for (int k = 0; k < in; k++) {
                        sum += x.row(row).getDouble(k) * weight.row(e).row(n).getDouble(k);
                    }
                    want.row(row).setDouble(n, sum);
                }
            }
            Tolerance.assertClose("groupedGemm", "formula", got, want, in + 1);
        }
    }

    /** The router: one group, all rows, F32; the widths of real models. */
    @Test
    default void groupedGemm_withOneGroup_isDense() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.BF16, 1, 5, 2048);
            Tensor weight = Cases.normal(arena, DType.F32, 2, 1, 60, 2048);
            gemm("dense", x, weight, null, Cases.offsets(arena, 5), DType.F32);
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65})
    default void groupedGemm_withAnyNumberOfRowsPerGroup(int rows) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor offsets = Cases.offsets(arena, 0, rows, 0, 0, 1, rows + 1, 0);
            Tensor x = Cases.normal(arena, DType.F32, rows, 2L * rows + 5, 19);
            Tensor weight = Cases.normal(arena, DType.F32, rows + 1, 7, 23, 19);
            Tensor bias = Cases.normal(arena, DType.F32, rows + 2, 7, 23);
            gemm("groups of " + rows, x, weight, bias, offsets, DType.F32);
        }
    }

    /** The last experts have no weights (identity experts): their rows are left alone. */
    @Test
    default void groupedGemm_withSliceOfOffsets_leavesOtherRowsAlone() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor offsets = Cases.offsets(arena, 3, 0, 4, 5, 2).slice(0, 4);
            Tensor x = Cases.normal(arena, DType.F32, 1, 14, 9);
            Tensor weight = Cases.normal(arena, DType.F32, 2, 3, 6, 9);
            gemm("3 of 5 groups", x, weight, null, offsets, DType.F32);
        }
    }

    @Test
    default void groupedGemm_withoutInputs_givesBias() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor bias = Cases.normal(arena, DType.F32, 2, 2, 6);
            gemm(
                    "K = 0",
                    Tensor.allocate(arena, DType.F32, 5, 0),
                    Tensor.allocate(arena, DType.F32, 2, 6, 0),
                    bias,
                    Cases.offsets(arena, 2, 2),
                    DType.F32);
        }
    }

    /** NaN and infinities in one row or one expert stay there. */
    @Test
    default void groupedGemm_keepsNanAndInfinityInTheirRow() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.F32, 1, 9, 17);
            x.setDouble(2 * 17 + 3, Double.NaN);
            x.setDouble(5 * 17 + 16, Double.POSITIVE_INFINITY);
            Tensor weight = Cases.normal(arena, DType.F32, 2, 3, 6, 17);
            weight.setDouble(2 * 6 * 17 + 7, Double.NEGATIVE_INFINITY);
            gemm("specials", x, weight, null, Cases.offsets(arena, 4, 3, 2), DType.F32);
        }
    }

    private void gemm(Case c, DType xType, DType weightType, DType yType, boolean biased) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            int e = c.numExperts();
            Tensor x = Cases.normal(arena, xType, c.seed(), c.slots(), c.hidden());
            Tensor weight =
                    Cases.normal(arena, weightType, c.seed() + 1, e, c.intermediate(), c.hidden());
            Tensor bias =
                    biased
                            ? Cases.normal(arena, DType.F32, c.seed() + 2, e, c.intermediate())
                            : null;
            gemm(c.toString(), x, weight, bias, routing.expertOffsets(), yType);
        }
    }

    private void gemm(
            String name,
            Tensor x,
            Tensor weight,
            @Nullable Tensor bias,
            Tensor offsets,
            DType yType) {
        String full = "%s, x %s weight %s y %s".formatted(name, x, weight, yType);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            int rows = Cases.rows(offsets);
            Tensor want = Tensor.allocate(arena, DType.F64, x.dim(0), weight.dim(1));
            reference.groupedGemm(x, weight, bias, offsets, want);
            Poisoned y = Poisoned.allocate(arena, yType, x.dim(0), weight.dim(1));
            backend().groupedGemm(x, weight, bias, offsets, y.tensor());
            Tolerance.assertClose(
                    "groupedGemm", full, y.tensor(), want.slice(0, rows), x.dim(1) + 1);
            y.assertUntouchedFrom("groupedGemm", full, rows);
        }
    }
}
