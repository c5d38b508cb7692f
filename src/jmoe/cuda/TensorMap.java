package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The CUtensorMap of a matrix on the device: how the tensor memory accelerator of compute
 * capability 9.0 finds a box of it. Passed to a kernel by value.
 */
final class TensorMap {
    static final long BYTES = 128;

    /** What the driver asks for. */
    static final long ALIGNMENT = 64;

    private static final int RANK = 2;
    private static final int INTERLEAVE_NONE = 0;
    private static final int SWIZZLE_NONE = 0;
    private static final int SWIZZLE_128_BYTES = 3;
    private static final int PROMOTE_TO_128_BYTES = 2;
    private static final int FILL_WITH_ZEROS = 0;

    private TensorMap() {}

    /**
     * Describes a matrix.
     *
     * @param context where
     * @param arena owner of the descriptor
     * @param matrix device tensor [rows, columns] of F32, F16 or BF16, 16-byte aligned, rows of a
     *     multiple of 16 bytes
     * @param boxRows rows of a box, at most 256
     * @param boxColumns columns of a box, at most 256; 128 bytes at most with a swizzle
     * @param swizzled whether the 16-byte pieces of 128 bytes are exchanged row by row, so that a
     *     column of the box lies in different banks
     * @return the descriptor
     */
    static MemorySegment of(
            CudaContext context,
            Arena arena,
            Tensor matrix,
            int boxRows,
            int boxColumns,
            boolean swizzled) {
        MemorySegment map = arena.allocate(BYTES, ALIGNMENT);
        int code =
                CudaDriver.encodeTiled(
                        map,
                        dataType(matrix),
                        RANK,
                        matrix.data().address(),
                        arena.allocateFrom(JAVA_LONG, matrix.dim(1), matrix.dim(0)),
                        arena.allocateFrom(JAVA_LONG, matrix.dtype().numBytes(matrix.dim(1))),
                        arena.allocateFrom(JAVA_INT, boxColumns, boxRows),
                        arena.allocateFrom(JAVA_INT, 1, 1),
                        INTERLEAVE_NONE,
                        swizzled ? SWIZZLE_128_BYTES : SWIZZLE_NONE,
                        PROMOTE_TO_128_BYTES,
                        FILL_WITH_ZEROS);
        context.check(code, "cuTensorMapEncodeTiled of " + matrix.describe());
        return map;
    }

    /** A CUtensorMapDataType. */
    private static int dataType(Tensor matrix) {
        return switch (matrix.dtype()) {
            case F16 -> 6;
            case F32 -> 7;
            case BF16 -> 9;
            default ->
                    throw new UnsupportedOperationException(
                            matrix.dtype() + " is unknown to tensor maps");
        };
    }
}
