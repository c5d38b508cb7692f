package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.LSHL;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;

import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;

/**
 * Products of a few rows of x with panels of F16 elements with raised exponents. Every product of
 * one row with one column has one accumulator and takes its terms in rising order, in whichever
 * tile it is computed, so that neither tiles nor batches change a bit.
 *
 * <p>The accumulators are named, because arrays of vectors do not stay in registers, and the loops
 * are as plain as they are because C2 then removes every check from them. Five rows, not six, where
 * there are 16 registers: C2 moves loads up and would spill the twelfth accumulator in the loop.
 *
 * <p>Parameters: rows of {@code x} begin at {@code row}, {@link Rows#STRIDE} apart; panels at
 * {@code offset}, {@code panelBytes} apart; the accumulators are added to {@code sums} from {@code
 * sum} on, {@link Panels#BLOCK_COLUMNS} from row to row.
 */
// k * STEP stays small, and C2 keeps a check per load if it is computed in long: half the speed.
@SuppressWarnings("NarrowCalculation")
final class F16Tile {
    private static final ByteOrder NATIVE = ByteOrder.nativeOrder();

    /** Bytes of a panel for one input. */
    private static final int STEP = Lanes.COUNT * Integer.BYTES;

    /** Sign, exponent and fraction once they are three places lower: those of an F32. */
    private static final int BITS = 0x8fff_e000;

    /** An F32 of that exponent field is this much too small: 127 - 15 - 10. */
    private static final float SCALE = 0x1p102f;

    private F16Tile() {}

    /** One row by the four panels of a block. */
    static void oneByFour(
            float[] x,
            int row,
            MemorySegment weight,
            long offset,
            long panelBytes,
            int inputs,
            float[] sums,
            int sum) {
        long second = offset + panelBytes;
        long third = second + panelBytes;
        long fourth = third + panelBytes;
        FloatVector s00 = FloatVector.fromArray(Lanes.FLOATS, sums, sum);
        FloatVector s01 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Lanes.COUNT);
        FloatVector s10 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 2 * Lanes.COUNT);
        FloatVector s11 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 3 * Lanes.COUNT);
        FloatVector s20 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 4 * Lanes.COUNT);
        FloatVector s21 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 5 * Lanes.COUNT);
        FloatVector s30 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 6 * Lanes.COUNT);
        FloatVector s31 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 7 * Lanes.COUNT);
        for (int k = 0; k < inputs; k++) {
            FloatVector factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k]);
            IntVector a =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, offset + k * STEP, NATIVE);
            FloatVector a0 =
                    a.lanewise(LSHL, 16)
                            .lanewise(ASHR, 3)
                            .and(BITS)
                            .reinterpretAsFloats()
                            .mul(SCALE);
            FloatVector a1 = a.lanewise(ASHR, 3).and(BITS).reinterpretAsFloats().mul(SCALE);
            s00 = factor.fma(a0, s00);
            s01 = factor.fma(a1, s01);
            IntVector b =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, second + k * STEP, NATIVE);
            FloatVector b0 =
                    b.lanewise(LSHL, 16)
                            .lanewise(ASHR, 3)
                            .and(BITS)
                            .reinterpretAsFloats()
                            .mul(SCALE);
            FloatVector b1 = b.lanewise(ASHR, 3).and(BITS).reinterpretAsFloats().mul(SCALE);
            s10 = factor.fma(b0, s10);
            s11 = factor.fma(b1, s11);
            IntVector c = IntVector.fromMemorySegment(Lanes.INTS, weight, third + k * STEP, NATIVE);
            FloatVector c0 =
                    c.lanewise(LSHL, 16)
                            .lanewise(ASHR, 3)
                            .and(BITS)
                            .reinterpretAsFloats()
                            .mul(SCALE);
            FloatVector c1 = c.lanewise(ASHR, 3).and(BITS).reinterpretAsFloats().mul(SCALE);
            s20 = factor.fma(c0, s20);
            s21 = factor.fma(c1, s21);
            IntVector d =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, fourth + k * STEP, NATIVE);
            FloatVector d0 =
                    d.lanewise(LSHL, 16)
                            .lanewise(ASHR, 3)
                            .and(BITS)
                            .reinterpretAsFloats()
                            .mul(SCALE);
            FloatVector d1 = d.lanewise(ASHR, 3).and(BITS).reinterpretAsFloats().mul(SCALE);
            s30 = factor.fma(d0, s30);
            s31 = factor.fma(d1, s31);
        }
        s00.intoArray(sums, sum);
        s01.intoArray(sums, sum + Lanes.COUNT);
        s10.intoArray(sums, sum + 2 * Lanes.COUNT);
        s11.intoArray(sums, sum + 3 * Lanes.COUNT);
        s20.intoArray(sums, sum + 4 * Lanes.COUNT);
        s21.intoArray(sums, sum + 5 * Lanes.COUNT);
        s30.intoArray(sums, sum + 6 * Lanes.COUNT);
        s31.intoArray(sums, sum + 7 * Lanes.COUNT);
    }

    /**
     * Widens a run of panels for more rows than the tiles here take.
     *
     * @param weight elements
     * @param offset first byte
     * @param count integers, whole vectors
     * @param wide receives F32 panels
     * @param at first byte of them
     */
    static void widen(MemorySegment weight, long offset, int count, MemorySegment wide, long at) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            IntVector pair =
                    IntVector.fromMemorySegment(
                            Lanes.INTS, weight, offset + i * Integer.BYTES, NATIVE);
            pair.lanewise(LSHL, 16)
                    .lanewise(ASHR, 3)
                    .and(BITS)
                    .reinterpretAsFloats()
                    .mul(SCALE)
                    .intoMemorySegment(wide, at + i * 2 * Float.BYTES, NATIVE);
            pair.lanewise(ASHR, 3)
                    .and(BITS)
                    .reinterpretAsFloats()
                    .mul(SCALE)
                    .intoMemorySegment(wide, at + i * 2 * Float.BYTES + STEP, NATIVE);
        }
    }
}
