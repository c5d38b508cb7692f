package jmoe.checkpoint;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import jmoe.checkpoint.MoeBlock.Piece;
import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Copies a piece of a stored tensor to consecutive elements of another, transposing and converting
 * on the way; codes with a scale are computed, so that nothing wider is stored in between.
 */
final class PieceCopy {
    /** Rows gathered together: a column of them is one or two cache lines of the source. */
    private static final long TILE = 64;

    private PieceCopy() {}

    /**
     * Copies.
     *
     * @param source the stored tensor, of a floating-point type
     * @param target of a floating-point type, or scaled I8; then with rows as long as the piece's,
     *     or as those of a piece that is stored without gaps
     * @param to first element to write
     * @return the index within the piece of a finite number that the target's type cannot hold, of
     *     a number of any kind that has no code, or -1
     */
    static long copy(Tensor source, Piece piece, Tensor target, long to) {
        long elements = piece.rows() * piece.columns();
        boolean dense = piece.columnStride() == 1 && piece.rowStride() == piece.columns();
        long wrong =
                dense
                        ? convert(source, source.data(), piece.offset(), target, to, elements)
                        : gather(source, piece, target, to);
        if (wrong >= 0 || range(source.dtype()) <= range(target.dtype())) {
            return wrong;
        }
        return overflow(source, piece, target, to, elements);
    }

    /** Converts a run; the index within it of what has no code, or -1. */
    private static long convert(
            Tensor source,
            MemorySegment from,
            long fromElement,
            Tensor target,
            long to,
            long elements) {
        DType dtype = source.dtype();
        if (target.scale() != null) {
            long inputs = target.dim(target.rank() - 1);
            long rows = elements / inputs;
            return Quantisation.quantise(from, dtype, fromElement, target, to / inputs, rows);
        }
        Floats.convert(from, dtype, fromElement, target.data(), target.dtype(), to, elements);
        return -1;
    }

    /** Exponent bits. */
    private static int range(DType dtype) {
        return switch (dtype) {
            case F16 -> 5;
            // The same exponents, but what exceeds the largest BF16 is a finite F32.
            case BF16 -> 8;
            case F32 -> 9;
            default -> 11;
        };
    }

    private static long gather(Tensor source, Piece piece, Tensor target, long to) {
        long columns = piece.columns();
        long rowsTogether = Math.min(TILE, piece.rows());
        DType dtype = source.dtype();
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment band = arena.allocate(dtype.numBytes(rowsTogether * columns), 64);
            for (long row = 0; row < piece.rows(); row += rowsTogether) {
                long rows = Math.min(rowsTogether, piece.rows() - row);
                long offset = piece.offset() + row * piece.rowStride();
                switch (dtype.blockBytes()) {
                    case 2 -> gather16(source.data(), offset, piece, rows, band);
                    case 4 -> gather32(source.data(), offset, piece, rows, band);
                    default -> gather64(source.data(), offset, piece, rows, band);
                }
                long wrong = convert(source, band, 0, target, to + row * columns, rows * columns);
                if (wrong >= 0) {
                    return row * columns + wrong;
                }
            }
        }
        return -1;
    }

    // The three loops read down the stored columns, whose neighbours share cache lines, and write
    // into a tile that stays in the first-level cache.
    private static void gather16(
            MemorySegment from, long offset, Piece piece, long rows, MemorySegment band) {
        long columns = piece.columns();
        for (long tile = 0; tile < columns; tile += TILE) {
            long end = Math.min(tile + TILE, columns);
            for (long c = tile; c < end; c++) {
                long at = offset + c * piece.columnStride();
                for (long r = 0; r < rows; r++) {
                    short bits = from.get(JAVA_SHORT_UNALIGNED, (at + r * piece.rowStride()) * 2);
                    band.set(JAVA_SHORT_UNALIGNED, (r * columns + c) * 2, bits);
                }
            }
        }
    }

    private static void gather32(
            MemorySegment from, long offset, Piece piece, long rows, MemorySegment band) {
        long columns = piece.columns();
        for (long tile = 0; tile < columns; tile += TILE) {
            long end = Math.min(tile + TILE, columns);
            for (long c = tile; c < end; c++) {
                long at = offset + c * piece.columnStride();
                for (long r = 0; r < rows; r++) {
                    int bits = from.get(JAVA_INT_UNALIGNED, (at + r * piece.rowStride()) * 4);
                    band.set(JAVA_INT_UNALIGNED, (r * columns + c) * 4, bits);
                }
            }
        }
    }

    private static void gather64(
            MemorySegment from, long offset, Piece piece, long rows, MemorySegment band) {
        long columns = piece.columns();
        for (long tile = 0; tile < columns; tile += TILE) {
            long end = Math.min(tile + TILE, columns);
            for (long c = tile; c < end; c++) {
                long at = offset + c * piece.columnStride();
                for (long r = 0; r < rows; r++) {
                    long bits = from.get(JAVA_LONG_UNALIGNED, (at + r * piece.rowStride()) * 8);
                    band.set(JAVA_LONG_UNALIGNED, (r * columns + c) * 8, bits);
                }
            }
        }
    }

    private static long overflow(
            Tensor source, Piece piece, Tensor target, long to, long elements) {
        MemorySegment data = target.data();
        boolean wide = target.dtype() == DType.F32;
        int infinity = wide ? 0x7f80_0000 : target.dtype() == DType.F16 ? 0x7c00 : 0x7f80;
        for (long i = 0; i < elements; i++) {
            int bits =
                    wide
                            ? data.get(JAVA_INT_UNALIGNED, (to + i) * 4) & 0x7fff_ffff
                            : data.get(JAVA_SHORT_UNALIGNED, (to + i) * 2) & 0x7fff;
            if (bits == infinity && Double.isFinite(source.getDouble(at(piece, i)))) {
                return i;
            }
        }
        return -1;
    }

    /** Position in the stored tensor of an element of the piece. */
    static long at(Piece piece, long index) {
        return piece.offset()
                + index / piece.columns() * piece.rowStride()
                + index % piece.columns() * piece.columnStride();
    }
}
