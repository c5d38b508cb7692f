package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import jmoe.ops.Cases.Case;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;

/** {@link Kernels#prepare} and {@link Kernels#groupedGemm} with what it returns. */
interface PrepareContract extends Contract {
    /** What was prepared needs its source no more, and gives the same bits as the source. */
    @Tag("broad")
    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void groupedGemm_withPreparedWeight_givesTheSameBits(Case c) {
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                Routing routing = Cases.routing(arena, c);
                int e = c.numExperts();
                Tensor x = Cases.normal(arena, c.dtype(0), c.seed(), c.slots(), c.hidden());
                Tensor bias = Cases.normal(arena, DType.F32, 3, e, c.intermediate());
                Tensor want = Tensor.allocate(arena, DType.F32, c.slots(), c.intermediate());
                Poisoned got = Poisoned.allocate(arena, DType.F32, c.slots(), c.intermediate());
                Arena source = Arena.ofConfined();
                Tensor weight =
                        Cases.normal(source, type, c.seed() + 1, e, c.intermediate(), c.hidden());
                backend().groupedGemm(x, weight, bias, routing.expertOffsets(), want);
                Tensor prepared = backend().prepare(weight, arena);
                assertThat(prepared.dtype()).isEqualTo(type);
                assertThat(prepared.shape()).isEqualTo(weight.shape());
                boolean same = prepared.equals(weight);
                if (!same) {
                    source.close();
                }
                backend().groupedGemm(x, prepared, bias, routing.expertOffsets(), got.tensor());
                int rows = Cases.rows(routing.expertOffsets());
                assertThat(got.tensor().slice(0, rows).data())
                        .as("%s %s", c, type)
                        .satisfies(d ->
                                assertThat(d.mismatch(want.slice(0, rows).data())).isEqualTo(-1));
                got.assertUntouchedFrom("groupedGemm", c.toString(), rows);
                if (same) {
                    source.close();
                }
            }
        }
    }

    /** Every number of rows takes other paths; all must give a row the same bits. */
    @Tag("broad")
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 59, 60, 61, 64, 65})
    default void groupedGemm_withPreparedWeight_doesNotDependOnBatch(int count) {
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                int in = 1100;
                int out = 75;
                Tensor x = Cases.normal(arena, DType.F32, 1, 130, in);
                Tensor weight = backend().prepare(Cases.normal(arena, type, 2, 1, out, in), arena);
                Tensor all = Tensor.allocate(arena, DType.F32, 130, out);
                backend().groupedGemm(x, weight, null, Cases.offsets(arena, 130), all);
                for (int first : new int[] {0, 7, 130 - count}) {
                    Tensor some = Tensor.allocate(arena, DType.F32, count, out);
                    Tensor part = x.slice(first, count);
                    backend().groupedGemm(part, weight, null, Cases.offsets(arena, count), some);
                    assertThat(some.data().mismatch(all.slice(first, count).data()))
                            .as("%s rows %d+%d", type, first, count)
                            .isEqualTo(-1);
                }
            }
        }
    }

    /** All F16 codes; then without those that are not finite, and without those above 128. */
    @Tag("broad")
    @ParameterizedTest
    @ValueSource(doubles = {Double.NaN, Double.POSITIVE_INFINITY, 127.9375})
    default void groupedGemm_withPreparedF16_isExact(double largest) {
        assertCodesAreExact(DType.F16, largest);
    }

    /** All BF16 codes; then without those that are not finite. */
    @Tag("broad")
    @ParameterizedTest
    @ValueSource(doubles = {Double.NaN, 3e38})
    default void groupedGemm_withPreparedBf16_isExact(double largest) {
        assertCodesAreExact(DType.BF16, largest);
    }

    private void assertCodesAreExact(DType type, double largest) {
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            // One weight per output: the product with 1 is the weight itself.
            int outputs = 1 << 16;
            Tensor weight = Tensor.allocate(arena, type, 1, outputs, 1);
            for (int code = 0; code < outputs; code++) {
                weight.data().set(JAVA_SHORT, 2L * code, (short) code);
                if (Math.abs(weight.getDouble(code)) > largest
                        || Double.isNaN(weight.getDouble(code)) && !Double.isNaN(largest)) {
                    weight.setDouble(code, 1);
                }
            }
            for (int rows : new int[] {1, 2, 7}) {
                Tensor x = Tensor.allocate(arena, DType.F32, rows, 1);
                for (int r = 0; r < rows; r++) {
                    x.setDouble(r, 1);
                }
                Tensor offsets = Cases.offsets(arena, rows);
                Tensor want = Tensor.allocate(arena, DType.F32, rows, outputs);
                Tensor got = Tensor.allocate(arena, DType.F32, rows, outputs);
                reference.groupedGemm(x, weight, null, offsets, want);
                Tensor prepared = backend().prepare(weight, arena);
                backend().groupedGemm(x, prepared, null, offsets, got);
                for (long i = 0; i < got.numElements(); i++) {
                    if (Float.compare(got.getFloat(i) + 0f, want.getFloat(i) + 0f) != 0) {
                        throw new AssertionError(
                                "%s, %d rows, code %x: got %s, want %s"
                                        .formatted(
                                                type,
                                                rows,
                                                i % outputs,
                                                got.getFloat(i),
                                                want.getFloat(i)));
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "BF16"})
    default void preparedWeight_isReadByItsBackendOnly(DType type) {
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor weight = Cases.normal(arena, type, 1, 2, 3, 4);
            Tensor prepared = backend().prepare(weight, arena);
            assertThat(backend().prepare(prepared, arena)).isSameAs(prepared);
            Assumptions.assumeTrue(prepared.layout() != null);
            Tensor x = Cases.normal(arena, DType.F32, 1, 2, 4);
            Tensor y = Tensor.allocate(arena, DType.F32, 2, 3);
            Tensor offsets = Cases.offsets(arena, 1, 1);
            assertThatThrownBy(() -> reference.groupedGemm(x, prepared, null, offsets, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("weight: expected row-major elements, got " + type);
            assertThatThrownBy(() -> prepared.slice(0, 1))
                    .isInstanceOf(UnsupportedOperationException.class)
                    .hasMessageStartingWith("slice: expected row-major elements");
            assertThatThrownBy(() -> prepared.getDouble(0))
                    .isInstanceOf(IndexOutOfBoundsException.class);
        }
    }

    @Test
    default void preparedWeight_isGoneWithItsArena() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = Cases.normal(arena, DType.F32, 1, 2, 3, 4);
            Arena closed = Arena.ofConfined();
            Tensor prepared = backend().prepare(weight, closed);
            Assumptions.assumeFalse(prepared.equals(weight));
            closed.close();
            Tensor x = Cases.normal(arena, DType.F32, 1, 2, 4);
            Tensor y = Tensor.allocate(arena, DType.F32, 2, 3);
            Tensor offsets = Cases.offsets(arena, 1, 1);
            assertThatThrownBy(() -> backend().groupedGemm(x, prepared, null, offsets, y))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("weight: its arena is closed");
        }
    }
}
