package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.EQ;
import static jdk.incubator.vector.VectorOperators.GE;
import static jdk.incubator.vector.VectorOperators.GT;
import static jdk.incubator.vector.VectorOperators.I2S;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.LT;
import static jdk.incubator.vector.VectorOperators.NE;
import static jdk.incubator.vector.VectorOperators.OR;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_S2I;

import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;
import static java.nio.ByteOrder.nativeOrder;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;

import jmoe.tensor.Floats;

import java.lang.foreign.MemorySegment;

/**
 * Runs of BF16 and F16 codes, widened exactly and rounded to nearest, ties to even, by integer
 * operations: the JVM has no dependable vector conversion for F16. Subnormals are kept.
 */
final class HalfFloats {
    /** Moves the exponent of an F16 to that of an F32, in F32 bits. */
    private static final int REBIAS = (127 - 15) << 23;

    /** 2^-14, the least normal F16, in F32 bits. */
    private static final int LEAST_NORMAL = REBIAS + (1 << 23);

    /** 2^16, the least power of two that is no F16, in F32 bits. */
    private static final int BEYOND_F16 = (127 + 16) << 23;

    /** 1/2: F32 numbers there are spaced like subnormal F16, so adding it rounds to those. */
    private static final float SUBNORMAL_ROUNDER = 0.5f;

    private static final int F32_INFINITY = 0x7f80_0000;
    private static final int F16_INFINITY = 0x7c00;
    private static final int F16_NAN = 0x7e00;

    private HalfFloats() {}

    static void widenBf16(MemorySegment from, long offsetBytes, int count, float[] to, int at) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            IntVector code =
                    (IntVector)
                            ShortVector.fromMemorySegment(
                                            Lanes.SHORTS, from, offsetBytes + 2L * i, nativeOrder())
                                    .convertShape(ZERO_EXTEND_S2I, Lanes.INTS, 0);
            code.lanewise(LSHL, 16).reinterpretAsFloats().intoArray(to, at + i);
        }
        for (int i = whole; i < count; i++) {
            to[at + i] = Floats.bf16ToFloat(from.get(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i));
        }
    }

    /** A NaN keeps its payload. */
    static void widenF16(MemorySegment from, long offsetBytes, int count, float[] to, int at) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            IntVector code =
                    (IntVector)
                            ShortVector.fromMemorySegment(
                                            Lanes.SHORTS, from, offsetBytes + 2L * i, nativeOrder())
                                    .convertShape(ZERO_EXTEND_S2I, Lanes.INTS, 0);
            IntVector magnitude = code.and(0x7fff).lanewise(LSHL, 13);
            IntVector normal = magnitude.add(REBIAS);
            // As if the exponent were that of 2^-14 there is an implicit one too many: exact.
            IntVector subnormal =
                    magnitude
                            .add(LEAST_NORMAL)
                            .reinterpretAsFloats()
                            .sub(Float.intBitsToFloat(LEAST_NORMAL))
                            .reinterpretAsInts();
            IntVector exponent = code.and(F16_INFINITY);
            normal.blend(subnormal, exponent.compare(EQ, 0))
                    .blend(magnitude.or(F32_INFINITY), exponent.compare(EQ, F16_INFINITY))
                    .lanewise(OR, code.and(0x8000).lanewise(LSHL, 16))
                    .reinterpretAsFloats()
                    .intoArray(to, at + i);
        }
        for (int i = whole; i < count; i++) {
            to[at + i] = widenF16(from.get(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i));
        }
    }

    /** One code as a vector of them, also where it is NaN. */
    private static float widenF16(short code) {
        return (code & F16_INFINITY) == F16_INFINITY
                ? Float.intBitsToFloat(
                        ((code & 0x8000) << 16) | F32_INFINITY | ((code & 0x03ff) << 13))
                : Floats.f16ToFloat(code);
    }

    /** NaN must be canonical. */
    static void narrowBf16(float[] from, int at, int count, MemorySegment to, long offsetBytes) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            IntVector bits = FloatVector.fromArray(Lanes.FLOATS, from, at + i).reinterpretAsInts();
            // Half of the last kept place, minus one, plus that place's own bit. The canonical NaN
            // is too small to be carried over into the sign.
            IntVector rounded = bits.add(0x7fff).add(bits.lanewise(LSHR, 16).and(1));
            ((ShortVector) rounded.lanewise(LSHR, 16).convertShape(I2S, Lanes.SHORTS, 0))
                    .intoMemorySegment(to, offsetBytes + 2L * i, nativeOrder());
        }
        for (int i = whole; i < count; i++) {
            short code = Floats.floatToBf16(from[at + i]);
            to.set(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i, code);
        }
    }

    /** NaN must be canonical. */
    static void narrowF16(float[] from, int at, int count, MemorySegment to, long offsetBytes) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            IntVector bits = FloatVector.fromArray(Lanes.FLOATS, from, at + i).reinterpretAsInts();
            IntVector magnitude = bits.and(0x7fff_ffff);
            IntVector normal =
                    magnitude
                            .sub(REBIAS)
                            .add(0x0fff)
                            .add(magnitude.lanewise(LSHR, 13).and(1))
                            .lanewise(LSHR, 13);
            IntVector subnormal =
                    magnitude
                            .reinterpretAsFloats()
                            .add(SUBNORMAL_ROUNDER)
                            .reinterpretAsInts()
                            .sub(Float.floatToRawIntBits(SUBNORMAL_ROUNDER));
            IntVector code =
                    normal.blend(subnormal, magnitude.compare(LT, LEAST_NORMAL))
                            .blend(F16_INFINITY, magnitude.compare(GE, BEYOND_F16))
                            .blend(F16_NAN, magnitude.compare(GT, F32_INFINITY))
                            .or(bits.lanewise(LSHR, 16).and(0x8000));
            ((ShortVector) code.convertShape(I2S, Lanes.SHORTS, 0))
                    .intoMemorySegment(to, offsetBytes + 2L * i, nativeOrder());
        }
        for (int i = whole; i < count; i++) {
            short code = Floats.floatToF16(from[at + i]);
            to.set(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i, code);
        }
    }

    /** Replaces every NaN by the canonical one, whose payload no execution mode changes. */
    static void canonicaliseNaN(float[] values, int at, int paddedCount) {
        for (int i = 0; i < paddedCount; i += Lanes.COUNT) {
            FloatVector value = FloatVector.fromArray(Lanes.FLOATS, values, at + i);
            value.blend(Float.NaN, value.compare(NE, value)).intoArray(values, at + i);
        }
    }
}
