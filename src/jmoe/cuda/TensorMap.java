package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.tensor.DType;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The CUtensorMap of a matrix on the device: how the tensor memory accelerator of compute
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

    private static final int RANK = 2;
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
        dims = arena.allocate(JAVA_LONG, RANK);
        strideBytes = arena.allocate(JAVA_LONG, RANK - 1);
        box = arena.allocate(JAVA_INT, RANK);
        elementStrides = arena.allocateFrom(JAVA_INT, 1, 1);
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
        dims.setAtIndex(JAVA_LONG, 0, columns);
        dims.setAtIndex(JAVA_LONG, 1, rows);
        strideBytes.set(JAVA_LONG, 0, dtype.numBytes(columns));
        box.setAtIndex(JAVA_INT, 0, BOX_COLUMNS);
        box.setAtIndex(JAVA_INT, 1, boxRows);
        int code =
                CudaDriver.encodeTiled(
                        map,
                        dataType(dtype),
                        RANK,
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
            String matrix = dtype + " [" + rows + ", " + columns + "]";
            context.check(code, "cuTensorMapEncodeTiled of " + matrix);
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
