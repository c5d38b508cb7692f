package jmoe.tensor;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * Weights as I8 codes with one scale per row of the last dimension, symmetric about zero:
 *
 * <pre>
 * scale = max|w| / 127        rounded to F32
 * code  = rint(w / scale)     -127 to 127, ties to even
 * </pre>
 *
 * <p>A row of zeros has scale 0. Where the scale is so small that F32 has no number near it, it is
 * the next larger one, so that no code lies outside. Numbers that were quantised before give the
 * same codes and scale again, unless the scale is subnormal.
 */
public final class Quantisation {
    /** The largest code. */
    private static final int MAX_CODE = 127;

    private Quantisation() {}

    /**
     * Quantises a weight.
     *
     * @param weight F32, F16, BF16 or F64 [.., inputs] in host memory
     * @param arena owner of codes and scale
     * @return {@link Tensor#scaled} codes of the same shape
     * @throws IllegalArgumentException if a number is NaN, infinite or beyond F32
     */
    public static Tensor of(Tensor weight, Arena arena) {
        if (!weight.dtype().isFloating() || weight.rank() == 0) {
            throw Check.mismatch("weight", "F32, F16, BF16 or F64 [.., inputs]", weight);
        }
        Check.accessible("weight", weight);
        Check.rowMajor("weight", weight);
        Check.host("weight", weight);
        Tensor quantised =
                allocate((dtype, shape) -> Tensor.allocate(arena, dtype, shape), weight.shape());
        long inputs = weight.dim(weight.rank() - 1);
        long rows = inputs == 0 ? 0 : weight.numElements() / inputs;
        long wrong = quantise(weight.data(), weight.dtype(), 0, quantised, 0, rows);
        if (wrong >= 0) {
            throw new IllegalArgumentException(
                    "weight: expected finite F32 numbers, got "
                            + weight.getDouble(wrong)
                            + " in row "
                            + wrong / inputs
                            + " of "
                            + weight.describe());
        }
        return quantised;
    }

    /**
     * Allocates codes and their scale.
     *
     * @param allocator where
     * @param shape of the codes
     * @return {@link Tensor#scaled} codes
     */
    public static Tensor allocate(Allocator allocator, long... shape) {
        long[] rows = Arrays.copyOf(shape, shape.length - 1);
        return Tensor.scaled(
                allocator.allocate(DType.I8, shape), allocator.allocate(DType.F32, rows));
    }

    /**
     * Quantises a run of rows.
     *
     * @param from source memory
     * @param fromType F64, F32, F16 or BF16
     * @param fromElement first element to read
     * @param to {@link Tensor#scaled} codes in host memory
     * @param toRow first row to write
     * @param rows number of rows, as long as those of the codes
     * @return -1, or how many elements of the run come before the first that is NaN, infinite or
     *     beyond F32; its row and those behind it are not written
     * @throws IndexOutOfBoundsException if a run does not lie in its memory
     */
    public static long quantise(
            MemorySegment from,
            DType fromType,
            long fromElement,
            Tensor to,
            long toRow,
            long rows) {
        Tensor scale = to.scale();
        if (scale == null) {
            throw Check.mismatch("to", "scaled I8", to);
        }
        long inputs = to.dim(to.rank() - 1);
        for (long row = 0; row < rows; row++) {
            long first = fromElement + row * inputs;
            double max = largest(from, fromType, first, inputs);
            if (!(max <= Float.MAX_VALUE)) {
                return row * inputs + firstNotFinite(from, fromType, first);
            }
            float rowScale = scale(max);
            scale.setDouble(toRow + row, rowScale);
            long code = (toRow + row) * inputs;
            for (long i = 0; i < inputs; i++) {
                double value = Floats.get(from, fromType, first + i) / rowScale;
                // In a row of zeros this is NaN, which as an integer is 0.
                to.data().set(JAVA_BYTE, code + i, (byte) Math.rint(value));
            }
        }
        return -1;
    }

    /** NaN if there is one. */
    private static double largest(MemorySegment from, DType fromType, long first, long count) {
        double max = 0;
        for (long i = 0; i < count; i++) {
            max = Math.max(max, Math.abs(Floats.get(from, fromType, first + i)));
        }
        return max;
    }

    private static long firstNotFinite(MemorySegment from, DType fromType, long first) {
        long i = 0;
        while (Math.abs(Floats.get(from, fromType, first + i)) <= Float.MAX_VALUE) {
            i++;
        }
        return i;
    }

    /** Only a subnormal scale is rounded down so far that the largest number has no code. */
    private static float scale(double max) {
        float scale = (float) (max / MAX_CODE);
        return Math.rint(max / scale) > MAX_CODE ? Math.nextUp(scale) : scale;
    }
}
