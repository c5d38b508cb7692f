package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Kernels.Residual;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;

/**
 * Tensors of more than 2^31 elements, of which only some pages near the end exist: a row offset in
 * 32 bits would read zeros or fail.
 */
interface LargeContract extends Contract {
    /** Elements of a row. */
    int WIDTH = 1 << 16;

    /** Rows; those from 2^15 on start beyond 2^31 elements. */
    int ROWS = (1 << 15) + 40;

    @Test
    @Tag("large")
    default void permute_readsBeyond2To31Elements() {
        int[] tokens = {0, (1 << 15) - 1, 1 << 15, (1 << 15) + 17, ROWS - 1};
        Assumptions.assumeTrue(GuardedMemory.available());
        try (Arena arena = Arena.ofConfined();
                GuardedMemory memory = new GuardedMemory()) {
            Tensor x = memory.sparse(DType.BF16, ROWS, WIDTH);
            Routing routing = Routing.allocate(arena, ROWS, 1, 2);
            routing.topkIds().data().fill((byte) 0xff);
            for (int token : tokens) {
                Cases.normal(x.row(token), token);
                routing.topkIds().setInt(token, 0);
            }
            Cases.sort(routing);
            Tensor rows = memory.sparse(DType.BF16, ROWS, WIDTH);
            backend().permute(x, routing, null, rows);
            for (int row = 0; row < tokens.length; row++) {
                assertThat(rows.row(row).data().mismatch(x.row(tokens[row]).data()))
                        .as("first differing byte of token %d", tokens[row])
                        .isEqualTo(-1);
            }
        }
    }

    /** So many slots per token that the reference would take minutes. */
    @Test
    @Tag("large")
    default void unpermute_readsBeyond2To31Elements() {
        int topK = ROWS / 2;
        int[] slots = {3, topK - 1, topK, 2 * topK - 1};
        int[] rows = {ROWS - 1, (1 << 15) - 1, 1 << 15, (1 << 15) + 17};
        Assumptions.assumeTrue(GuardedMemory.available() && worksThroughGigabytes());
        try (Arena arena = Arena.ofConfined();
                GuardedMemory memory = new GuardedMemory()) {
            Tensor all = memory.sparse(DType.BF16, ROWS, WIDTH);
            Routing routing = Routing.allocate(arena, 2, topK, 1);
            routing.slotToRow().data().fill((byte) 0xff);
            Tensor want = Tensor.allocate(arena, DType.F32, 2, WIDTH);
            for (int i = 0; i < slots.length; i++) {
                Tensor row = Cases.normal(all.row(rows[i]), i);
                routing.slotToRow().setInt(slots[i], rows[i]);
                Tensor sum = want.row(slots[i] / topK);
                for (int h = 0; h < WIDTH; h++) {
                    sum.setDouble(h, sum.getDouble(h) + row.getDouble(h));
                }
            }
            Tensor y = Tensor.allocate(arena, DType.F32, 2, WIDTH);
            backend().unpermute(all, routing, null, Residual.NONE, y);
            // Two BF16 numbers of like size: their sum is exact in F32.
            assertThat(y.data().toArray(JAVA_BYTE)).isEqualTo(want.data().toArray(JAVA_BYTE));
        }
    }

    /** Every row of the output exists, 4.3 GB. */
    @Test
    @Tag("large")
    default void permute_writesBeyond2To31Elements() {
        Assumptions.assumeTrue(GuardedMemory.available() && worksThroughGigabytes());
        try (Arena arena = Arena.ofConfined();
                GuardedMemory memory = new GuardedMemory()) {
            Tensor x = Cases.normal(arena, DType.BF16, 1, 1, WIDTH);
            Routing routing = Routing.allocate(arena, 1, ROWS, 1);
            Cases.sort(routing);
            Tensor rows = memory.sparse(DType.BF16, ROWS, WIDTH);
            backend().permute(x, routing, null, rows);
            for (int row : new int[] {0, (1 << 15) - 1, 1 << 15, ROWS - 1}) {
                assertThat(rows.row(row).data().mismatch(x.data()))
                        .as("first differing byte of row %d", row)
                        .isEqualTo(-1);
            }
        }
    }

    /** Every token of the output exists, 4.3 GB; most of them are zero. */
    @Test
    @Tag("large")
    default void unpermute_writesBeyond2To31Elements() {
        int[] tokens = {0, (1 << 15) - 1, 1 << 15, ROWS - 1};
        Assumptions.assumeTrue(GuardedMemory.available() && worksThroughGigabytes());
        try (Arena arena = Arena.ofConfined();
                GuardedMemory memory = new GuardedMemory()) {
            Tensor rows = memory.sparse(DType.BF16, ROWS, WIDTH);
            Routing routing = Routing.allocate(arena, ROWS, 1, 1);
            routing.slotToRow().data().fill((byte) 0xff);
            for (int i = 0; i < tokens.length; i++) {
                Cases.normal(rows.row(i), i);
                routing.slotToRow().setInt(tokens[i], i);
            }
            Tensor y = memory.sparse(DType.BF16, ROWS, WIDTH);
            backend().unpermute(rows, routing, null, Residual.NONE, y);
            for (int i = 0; i < tokens.length; i++) {
                assertThat(y.row(tokens[i]).data().mismatch(rows.row(i).data()))
                        .as("first differing byte of token %d", tokens[i])
                        .isEqualTo(-1);
            }
        }
    }

    @Test
    @Tag("large")
    default void groupedGemm_readsWeightsBeyond2To31Elements() {
        int side = 1 << 8;
        int experts = (1 << 15) + 3;
        int last = 2;
        Assumptions.assumeTrue(GuardedMemory.available());
        try (Arena arena = Arena.ofConfined();
                GuardedMemory memory = new GuardedMemory();
                Kernels reference = new ReferenceKernels()) {
            Tensor weight = memory.sparse(DType.BF16, experts, side, side);
            Cases.normal(weight.slice(experts - last, last), 1);
            int[] counts = new int[experts];
            counts[0] = 1;
            counts[experts - 2] = 2;
            counts[experts - 1] = 3;
            Tensor x = Cases.normal(arena, DType.F32, 2, 6, side);
            Tensor y = Tensor.allocate(arena, DType.F32, 6, side);
            backend().groupedGemm(x, weight, null, Cases.offsets(arena, counts), y);
            Tensor want = Tensor.allocate(arena, DType.F64, 5, side);
            reference.groupedGemm(
                    x.slice(1, 5),
                    weight.slice(experts - last, last),
                    null,
                    Cases.offsets(arena, 2, 3),
                    want);
            Tolerance.assertClose("groupedGemm", "last experts", y.slice(1, 5), want, side);
        }
    }

    /** All rows have to be worked through, so only where that takes seconds. */
    @Test
    @Tag("large")
    default void groupedGemm_readsRowsBeyond2To31Elements() {
        Assumptions.assumeTrue(GuardedMemory.available() && worksThroughGigabytes());
        try (Arena arena = Arena.ofConfined();
                GuardedMemory memory = new GuardedMemory();
                Kernels reference = new ReferenceKernels()) {
            Tensor x = memory.sparse(DType.BF16, ROWS, WIDTH);
            Cases.normal(x.row(ROWS - 1), 1);
            Tensor weight = Cases.normal(arena, DType.BF16, 2, 1, 1, WIDTH);
            Tensor y = Tensor.allocate(arena, DType.F32, ROWS, 1);
            backend().groupedGemm(x, weight, null, Cases.offsets(arena, ROWS), y);
            Tensor want = Tensor.allocate(arena, DType.F64, 2, 1);
            reference.groupedGemm(
                    x.slice(ROWS - 2, 2), weight, null, Cases.offsets(arena, 2), want);
            Tensor end = y.slice(ROWS - 2, 2);
            Tolerance.assertClose("groupedGemm", "last rows", end, want, WIDTH);
        }
    }
}
