package jmoe.tensor;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_DOUBLE_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import java.lang.foreign.MemorySegment;

/**
 * Exact conversions between floating-point types: round to nearest, ties to even, one rounding
 * only; overflow gives infinity, NaN stays NaN (quiet), subnormals are kept.
 */
public final class Floats {
    private Floats() {}

    /**
     * Widens bfloat16.
     *
     * @param bits a BF16 code
     * @return its value, exactly
     */
    public static float bf16ToFloat(short bits) {
        return Float.intBitsToFloat(bits << 16);
    }

    /**
     * Rounds to bfloat16.
     *
     * @param value any float
     * @return the nearest BF16 code
     */
    public static short floatToBf16(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short)
                    (bits >>> 16
                            | 0x0040); // quiet bit: truncating a NaN payload could leave infinity
        }
        // Half of the last kept place, minus one, plus that place's own bit: ties go to even.
        return (short) ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
    }

    /**
     * Rounds to bfloat16 in one step.
     *
     * @param value any double
     * @return the nearest BF16 code
     */
    public static short doubleToBf16(double value) {
        return floatToBf16(roundToOdd(value));
    }

    /**
     * Widens binary16.
     *
     * @param bits an F16 code
     * @return its value, exactly
     */
    public static float f16ToFloat(short bits) {
        return Float.float16ToFloat(bits);
    }

    /**
     * Rounds to binary16.
     *
     * @param value any float
     * @return the nearest F16 code
     */
    public static short floatToF16(float value) {
        return Float.floatToFloat16(value);
    }

    /**
     * Rounds to binary16 in one step.
     *
     * @param value any double
     * @return the nearest F16 code
     */
    public static short doubleToF16(double value) {
        return Float.floatToFloat16(roundToOdd(value));
    }

    /**
     * Narrows so that a second rounding to 16 bits equals a direct one: an inexact result gets an
     * odd last bit, which can never be mistaken for a tie (Boldo and Melquiond, "Emulation of FMA
     * and correctly rounded sums").
     */
    private static float roundToOdd(double value) {
        float nearest = (float) value;
        if (nearest == value || Double.isNaN(value)) {
            return nearest;
        }
        int bits = Float.floatToRawIntBits(nearest);
        if ((bits & 1) != 0) {
            return nearest;
        }
        // nearest is even and inexact: its odd neighbour on the side of value. Codes grow with the
        // magnitude.
        return Float.intBitsToFloat(Math.abs(nearest) < Math.abs(value) ? bits + 1 : bits - 1);
    }

    /**
     * Converts a run of elements.
     *
     * @param from source memory
     * @param fromType F64, F32, F16 or BF16
     * @param fromElement first element to read
     * @param to destination memory, not overlapping the source
     * @param toType F64, F32, F16 or BF16
     * @param toElement first element to write
     * @param count elements
     * @throws IndexOutOfBoundsException if a run does not lie in its segment
     */
    public static void convert(
            MemorySegment from,
            DType fromType,
            long fromElement,
            MemorySegment to,
            DType toType,
            long toElement,
            long count) {
        long fromBytes = fromType.blockBytes();
        long toBytes = toType.blockBytes();
        MemorySegment source = from.asSlice(fromElement * fromBytes, count * fromBytes);
        MemorySegment target = to.asSlice(toElement * toBytes, count * toBytes);
        if (fromType == toType) {
            target.copyFrom(source);
            return;
        }
        if (fromType == DType.F32 && toType == DType.BF16) {
            floatsToBf16(source, target, count);
        } else if (fromType == DType.F32 && toType == DType.F16) {
            floatsToF16(source, target, count);
        } else {
            for (long i = 0; i < count; i++) {
                store(target, toType, i, get(source, fromType, i));
            }
        }
    }

    // By way of double this takes five times as long, and weights come in billions.
    private static void floatsToBf16(MemorySegment source, MemorySegment target, long count) {
        for (long i = 0; i < count; i++) {
            short bits = floatToBf16(source.get(JAVA_FLOAT_UNALIGNED, i * 4));
            target.set(JAVA_SHORT_UNALIGNED, i * 2, bits);
        }
    }

    private static void floatsToF16(MemorySegment source, MemorySegment target, long count) {
        for (long i = 0; i < count; i++) {
            short bits = floatToF16(source.get(JAVA_FLOAT_UNALIGNED, i * 4));
            target.set(JAVA_SHORT_UNALIGNED, i * 2, bits);
        }
    }

    /** Element i as a double, exactly. */
    static double get(MemorySegment data, DType dtype, long i) {
        return switch (dtype) {
            case F64 -> data.get(JAVA_DOUBLE_UNALIGNED, i * 8);
            case F32 -> data.get(JAVA_FLOAT_UNALIGNED, i * 4);
            case F16 -> f16ToFloat(data.get(JAVA_SHORT_UNALIGNED, i * 2));
            case BF16 -> bf16ToFloat(data.get(JAVA_SHORT_UNALIGNED, i * 2));
            default -> throw notFloating(dtype);
        };
    }

    /**
     * Rounds to the type and stores. Every NaN becomes the canonical one: which of two NaN a sum
     * takes over depends on the order in which compiled code adds.
     */
    static void set(MemorySegment data, DType dtype, long i, double value) {
        store(data, dtype, i, Double.isNaN(value) ? Double.NaN : value);
    }

    private static void store(MemorySegment data, DType dtype, long i, double value) {
        switch (dtype) {
            case F64 -> data.set(JAVA_DOUBLE_UNALIGNED, i * 8, value);
            case F32 -> data.set(JAVA_FLOAT_UNALIGNED, i * 4, (float) value);
            case F16 -> data.set(JAVA_SHORT_UNALIGNED, i * 2, doubleToF16(value));
            case BF16 -> data.set(JAVA_SHORT_UNALIGNED, i * 2, doubleToBf16(value));
            default -> throw notFloating(dtype);
        }
    }

    /** Element i of an integer type, zero-extended where it is unsigned. */
    static long getInteger(MemorySegment data, DType dtype, long i) {
        return switch (dtype) {
            case I64, U64 -> data.get(JAVA_LONG_UNALIGNED, i * 8);
            case I32 -> data.get(JAVA_INT_UNALIGNED, i * 4);
            case U32 -> data.get(JAVA_INT_UNALIGNED, i * 4) & 0xffff_ffffL;
            case I16 -> data.get(JAVA_SHORT_UNALIGNED, i * 2);
            case U16 -> data.get(JAVA_SHORT_UNALIGNED, i * 2) & 0xffff;
            case I8 -> data.get(JAVA_BYTE, i);
            case U8, BOOL -> data.get(JAVA_BYTE, i) & 0xff;
            default ->
                    throw new UnsupportedOperationException(dtype + " elements are not integers");
        };
    }

    private static UnsupportedOperationException notFloating(DType dtype) {
        return new UnsupportedOperationException(
                dtype + " elements are not numbers by themselves; supported: F64, F32, F16, BF16");
    }
}
