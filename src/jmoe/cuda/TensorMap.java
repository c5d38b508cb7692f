package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.tensor.DType;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * The CUtensorMap of a tensor on the device: how the tensor memory accelerator of compute
 * capability 9.0 finds a box of it. Passed to a kernel by value. It is written anew for every
 * launch, into the same memory: that is arithmetic of the host, for which no table of maps would
 * save enough.
 */
final class TensorMap {
    static final long BYTES = 128;

    /** What the driver asks for. */
    static final long ALIGNMENT = 64;

    /** Columns of a box: 128 bytes of 16-bit elements, as wide as the swizzle. */
    static final int BOX_COLUMNS = 64;

    /** Rows of gates, and then of ups, that {@link #encodePairs} lays side by side. */
    static final int PAIRED = 8;

    private static final int MAX_RANK = 5;
    private static final int INTERLEAVE_NONE = 0;
    private static final int SWIZZLE_128_BYTES = 3;
    private static final int PROMOTE_TO_256_BYTES = 3;
    private static final int FILL_WITH_ZEROS = 0;

    private final CudaContext context;
    private final MemorySegment map;
    private final MemorySegment dims;
    private final MemorySegment strideBytes;
    private final MemorySegment box;
    private final MemorySegment elementStrides;

    /** Not for use outside a turn of its context. */
    TensorMap(CudaContext context, Arena arena) {
        this.context = context;
        map = arena.allocate(BYTES, ALIGNMENT);
        dims = arena.allocate(JAVA_LONG, MAX_RANK);
        strideBytes = arena.allocate(JAVA_LONG, MAX_RANK - 1);
        box = arena.allocate(JAVA_INT, MAX_RANK);
        elementStrides = arena.allocateFrom(JAVA_INT, 1, 1, 1, 1, 1);
    }

    /**
     * Describes a row-major matrix, in boxes whose 16-byte pieces are exchanged row by row, so that
     * a column of a box lies in different banks.
     *
     * @param dtype F16 or BF16
     * @param address of the matrix, a multiple of 16
     * @param rows 1 to 2^32
     * @param columns 1 to 2^32, a multiple of 8
     * @param boxRows rows of a box, at most 256; it has {@link #BOX_COLUMNS} columns
     * @return the descriptor; valid until the next one
     */
    MemorySegment encode(DType dtype, long address, long rows, long columns, int boxRows) {
        dimension(0, columns, BOX_COLUMNS);
        dimension(1, rows, dtype.numBytes(columns), boxRows);
        return encode(dtype, address, 2);
    }

    /**
     * Describes matrices one behind the other, in boxes of one of them.
     *
     * @param dtype F16 or BF16
     * @param address of the first, a multiple of 16
     * @param groups matrices
     * @param rows of a matrix
     * @param columns 1 to 2^32, a multiple of 8
     * @param boxRows rows of a box, at most 256; it has {@link #BOX_COLUMNS} columns
     * @return the descriptor; valid until the next one
     */
    MemorySegment encodeGroups(
            DType dtype, long address, long groups, long rows, long columns, int boxRows) {
        dimension(0, columns, BOX_COLUMNS);
        dimension(1, rows, dtype.numBytes(columns), boxRows);
        dimension(2, groups, dtype.numBytes(rows * columns), 1);
        return encode(dtype, address, 3);
    }

    /**
     * Describes matrices whose rows are first gates and then ups, in boxes of one of them in which
     * {@link #PAIRED} gates and their ups follow each other.
     *
     * @param dtype F16 or BF16
     * @param address of the first, a multiple of 16
     * @param groups matrices
     * @param outputs gates of a matrix, a multiple of {@link #PAIRED}; as many ups
     * @param columns 1 to 2^32, a multiple of 8
     * @param boxRows gates and ups of a box, at most 256; it has {@link #BOX_COLUMNS} columns
     * @return the descriptor; valid until the next one
     */
    MemorySegment encodePairs(
            DType dtype, long address, long groups, long outputs, long columns, int boxRows) {
        dimension(0, columns, BOX_COLUMNS);
        dimension(1, PAIRED, dtype.numBytes(columns), PAIRED);
        dimension(2, 2, dtype.numBytes(outputs * columns), 2);
        dimension(3, outputs / PAIRED, dtype.numBytes(PAIRED * columns), boxRows / (2 * PAIRED));
        dimension(4, groups, dtype.numBytes(2 * outputs * columns), 1);
        return encode(dtype, address, 5);
    }

    /** The innermost dimension, whose elements lie side by side. */
    private void dimension(int index, long length, int boxLength) {
        dims.setAtIndex(JAVA_LONG, index, length);
        box.setAtIndex(JAVA_INT, index, boxLength);
    }

    private void dimension(int index, long length, long stride, int boxLength) {
        dimension(index, length, boxLength);
        strideBytes.setAtIndex(JAVA_LONG, index - 1, stride);
    }

    private MemorySegment encode(DType dtype, long address, int rank) {
        int code =
                CudaDriver.encodeTiled(
                        map,
                        dataType(dtype),
                        rank,
                        address,
                        dims,
                        strideBytes,
                        box,
                        elementStrides,
                        INTERLEAVE_NONE,
                        SWIZZLE_128_BYTES,
                        PROMOTE_TO_256_BYTES,
                        FILL_WITH_ZEROS);
        if (code != CudaDriver.SUCCESS) {
            long[] shape = new long[rank];
            for (int i = 0; i < rank; i++) {
                shape[i] = dims.getAtIndex(JAVA_LONG, rank - 1 - i);
            }
            String tensor = dtype + " " + Arrays.toString(shape);
            context.check(code, "cuTensorMapEncodeTiled of " + tensor);
        }
        return map;
    }

    /** A CUtensorMapDataType. */
    private static int dataType(DType dtype) {
        return switch (dtype) {
            case F16 -> 6;
            case BF16 -> 9;
            default ->
                    throw new UnsupportedOperationException(dtype + " is unknown to tensor maps");
        };
    }
}
