package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.LSHL;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;

import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;

/**
 * Products of a few rows of x with panels of BF16 elements. Every product of one row with one
 * column has one accumulator and takes its terms in rising order, in whichever tile it is computed,
 * so that neither tiles nor batches change a bit.
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
final class Bf16Tile {
    private static final ByteOrder NATIVE = ByteOrder.nativeOrder();

    /** Bytes of a panel for one input. */
    private static final int STEP = Lanes.COUNT * Integer.BYTES;

    /** A BF16 is the high half of an F32. */
    private static final int HIGH = 0xffff_0000;

    private Bf16Tile() {}

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
            FloatVector a0 = a.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector a1 = a.and(HIGH).reinterpretAsFloats();
            s00 = factor.fma(a0, s00);
            s01 = factor.fma(a1, s01);
            IntVector b =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, second + k * STEP, NATIVE);
            FloatVector b0 = b.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector b1 = b.and(HIGH).reinterpretAsFloats();
            s10 = factor.fma(b0, s10);
            s11 = factor.fma(b1, s11);
            IntVector c = IntVector.fromMemorySegment(Lanes.INTS, weight, third + k * STEP, NATIVE);
            FloatVector c0 = c.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector c1 = c.and(HIGH).reinterpretAsFloats();
            s20 = factor.fma(c0, s20);
            s21 = factor.fma(c1, s21);
            IntVector d =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, fourth + k * STEP, NATIVE);
            FloatVector d0 = d.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector d1 = d.and(HIGH).reinterpretAsFloats();
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

    /** Two rows by two neighbouring panels. */
    static void twoByTwo(
            float[] x,
            int row,
            MemorySegment weight,
            long offset,
            long panelBytes,
            int inputs,
            float[] sums,
            int sum) {
        long second = offset + panelBytes;
        FloatVector s000 = FloatVector.fromArray(Lanes.FLOATS, sums, sum);
        FloatVector s001 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Lanes.COUNT);
        FloatVector s010 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 2 * Lanes.COUNT);
        FloatVector s011 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 3 * Lanes.COUNT);
        FloatVector s100 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS);
        FloatVector s101 =
                FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector s110 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS + 2 * Lanes.COUNT);
        FloatVector s111 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS + 3 * Lanes.COUNT);
        for (int k = 0; k < inputs; k++) {
            FloatVector factor0 = FloatVector.broadcast(Lanes.FLOATS, x[row + k]);
            FloatVector factor1 = FloatVector.broadcast(Lanes.FLOATS, x[row + k + Rows.STRIDE]);
            IntVector a =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, offset + k * STEP, NATIVE);
            FloatVector a0 = a.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector a1 = a.and(HIGH).reinterpretAsFloats();
            s000 = factor0.fma(a0, s000);
            s100 = factor1.fma(a0, s100);
            s001 = factor0.fma(a1, s001);
            s101 = factor1.fma(a1, s101);
            IntVector b =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, second + k * STEP, NATIVE);
            FloatVector b0 = b.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector b1 = b.and(HIGH).reinterpretAsFloats();
            s010 = factor0.fma(b0, s010);
            s110 = factor1.fma(b0, s110);
            s011 = factor0.fma(b1, s011);
            s111 = factor1.fma(b1, s111);
        }
        s000.intoArray(sums, sum);
        s001.intoArray(sums, sum + Lanes.COUNT);
        s010.intoArray(sums, sum + 2 * Lanes.COUNT);
        s011.intoArray(sums, sum + 3 * Lanes.COUNT);
        s100.intoArray(sums, sum + Panels.BLOCK_COLUMNS);
        s101.intoArray(sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        s110.intoArray(sums, sum + Panels.BLOCK_COLUMNS + 2 * Lanes.COUNT);
        s111.intoArray(sums, sum + Panels.BLOCK_COLUMNS + 3 * Lanes.COUNT);
    }

    /** Four rows by one panel. */
    static void fourByOne(
            float[] x,
            int row,
            MemorySegment weight,
            long offset,
            int inputs,
            float[] sums,
            int sum) {
        FloatVector s00 = FloatVector.fromArray(Lanes.FLOATS, sums, sum);
        FloatVector s01 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Lanes.COUNT);
        FloatVector s10 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS);
        FloatVector s11 =
                FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector s20 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 2 * Panels.BLOCK_COLUMNS);
        FloatVector s21 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 2 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector s30 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 3 * Panels.BLOCK_COLUMNS);
        FloatVector s31 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 3 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        for (int k = 0; k < inputs; k++) {
            IntVector w =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, offset + k * STEP, NATIVE);
            FloatVector w0 = w.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector w1 = w.and(HIGH).reinterpretAsFloats();
            FloatVector factor;
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k]);
            s00 = factor.fma(w0, s00);
            s01 = factor.fma(w1, s01);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + Rows.STRIDE]);
            s10 = factor.fma(w0, s10);
            s11 = factor.fma(w1, s11);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 2 * Rows.STRIDE]);
            s20 = factor.fma(w0, s20);
            s21 = factor.fma(w1, s21);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 3 * Rows.STRIDE]);
            s30 = factor.fma(w0, s30);
            s31 = factor.fma(w1, s31);
        }
        s00.intoArray(sums, sum);
        s01.intoArray(sums, sum + Lanes.COUNT);
        s10.intoArray(sums, sum + Panels.BLOCK_COLUMNS);
        s11.intoArray(sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        s20.intoArray(sums, sum + 2 * Panels.BLOCK_COLUMNS);
        s21.intoArray(sums, sum + 2 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        s30.intoArray(sums, sum + 3 * Panels.BLOCK_COLUMNS);
        s31.intoArray(sums, sum + 3 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
    }

    /** Five rows by one panel. */
    static void fiveByOne(
            float[] x,
            int row,
            MemorySegment weight,
            long offset,
            int inputs,
            float[] sums,
            int sum) {
        FloatVector s00 = FloatVector.fromArray(Lanes.FLOATS, sums, sum);
        FloatVector s01 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Lanes.COUNT);
        FloatVector s10 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS);
        FloatVector s11 =
                FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector s20 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 2 * Panels.BLOCK_COLUMNS);
        FloatVector s21 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 2 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector s30 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 3 * Panels.BLOCK_COLUMNS);
        FloatVector s31 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 3 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector s40 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 4 * Panels.BLOCK_COLUMNS);
        FloatVector s41 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 4 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        for (int k = 0; k < inputs; k++) {
            IntVector w =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, offset + k * STEP, NATIVE);
            FloatVector w0 = w.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector w1 = w.and(HIGH).reinterpretAsFloats();
            FloatVector factor;
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k]);
            s00 = factor.fma(w0, s00);
            s01 = factor.fma(w1, s01);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + Rows.STRIDE]);
            s10 = factor.fma(w0, s10);
            s11 = factor.fma(w1, s11);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 2 * Rows.STRIDE]);
            s20 = factor.fma(w0, s20);
            s21 = factor.fma(w1, s21);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 3 * Rows.STRIDE]);
            s30 = factor.fma(w0, s30);
            s31 = factor.fma(w1, s31);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 4 * Rows.STRIDE]);
            s40 = factor.fma(w0, s40);
            s41 = factor.fma(w1, s41);
        }
        s00.intoArray(sums, sum);
        s01.intoArray(sums, sum + Lanes.COUNT);
        s10.intoArray(sums, sum + Panels.BLOCK_COLUMNS);
        s11.intoArray(sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        s20.intoArray(sums, sum + 2 * Panels.BLOCK_COLUMNS);
        s21.intoArray(sums, sum + 2 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        s30.intoArray(sums, sum + 3 * Panels.BLOCK_COLUMNS);
        s31.intoArray(sums, sum + 3 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        s40.intoArray(sums, sum + 4 * Panels.BLOCK_COLUMNS);
        s41.intoArray(sums, sum + 4 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
    }

    /** Twelve rows by one panel. */
    static void twelveByOne(
            float[] x,
            int row,
            MemorySegment weight,
            long offset,
            int inputs,
            float[] sums,
            int sum) {
        FloatVector sa0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum);
        FloatVector sa1 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Lanes.COUNT);
        FloatVector sb0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS);
        FloatVector sb1 =
                FloatVector.fromArray(Lanes.FLOATS, sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sc0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 2 * Panels.BLOCK_COLUMNS);
        FloatVector sc1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 2 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sd0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 3 * Panels.BLOCK_COLUMNS);
        FloatVector sd1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 3 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector se0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 4 * Panels.BLOCK_COLUMNS);
        FloatVector se1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 4 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sf0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 5 * Panels.BLOCK_COLUMNS);
        FloatVector sf1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 5 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sg0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 6 * Panels.BLOCK_COLUMNS);
        FloatVector sg1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 6 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sh0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 7 * Panels.BLOCK_COLUMNS);
        FloatVector sh1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 7 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector si0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 8 * Panels.BLOCK_COLUMNS);
        FloatVector si1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 8 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sj0 = FloatVector.fromArray(Lanes.FLOATS, sums, sum + 9 * Panels.BLOCK_COLUMNS);
        FloatVector sj1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 9 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sk0 =
                FloatVector.fromArray(Lanes.FLOATS, sums, sum + 10 * Panels.BLOCK_COLUMNS);
        FloatVector sk1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 10 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        FloatVector sl0 =
                FloatVector.fromArray(Lanes.FLOATS, sums, sum + 11 * Panels.BLOCK_COLUMNS);
        FloatVector sl1 =
                FloatVector.fromArray(
                        Lanes.FLOATS, sums, sum + 11 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        for (int k = 0; k < inputs; k++) {
            IntVector w =
                    IntVector.fromMemorySegment(Lanes.INTS, weight, offset + k * STEP, NATIVE);
            FloatVector w0 = w.lanewise(LSHL, 16).reinterpretAsFloats();
            FloatVector w1 = w.and(HIGH).reinterpretAsFloats();
            FloatVector factor;
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k]);
            sa0 = factor.fma(w0, sa0);
            sa1 = factor.fma(w1, sa1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + Rows.STRIDE]);
            sb0 = factor.fma(w0, sb0);
            sb1 = factor.fma(w1, sb1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 2 * Rows.STRIDE]);
            sc0 = factor.fma(w0, sc0);
            sc1 = factor.fma(w1, sc1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 3 * Rows.STRIDE]);
            sd0 = factor.fma(w0, sd0);
            sd1 = factor.fma(w1, sd1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 4 * Rows.STRIDE]);
            se0 = factor.fma(w0, se0);
            se1 = factor.fma(w1, se1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 5 * Rows.STRIDE]);
            sf0 = factor.fma(w0, sf0);
            sf1 = factor.fma(w1, sf1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 6 * Rows.STRIDE]);
            sg0 = factor.fma(w0, sg0);
            sg1 = factor.fma(w1, sg1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 7 * Rows.STRIDE]);
            sh0 = factor.fma(w0, sh0);
            sh1 = factor.fma(w1, sh1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 8 * Rows.STRIDE]);
            si0 = factor.fma(w0, si0);
            si1 = factor.fma(w1, si1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 9 * Rows.STRIDE]);
            sj0 = factor.fma(w0, sj0);
            sj1 = factor.fma(w1, sj1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 10 * Rows.STRIDE]);
            sk0 = factor.fma(w0, sk0);
            sk1 = factor.fma(w1, sk1);
            factor = FloatVector.broadcast(Lanes.FLOATS, x[row + k + 11 * Rows.STRIDE]);
            sl0 = factor.fma(w0, sl0);
            sl1 = factor.fma(w1, sl1);
        }
        sa0.intoArray(sums, sum);
        sa1.intoArray(sums, sum + Lanes.COUNT);
        sb0.intoArray(sums, sum + Panels.BLOCK_COLUMNS);
        sb1.intoArray(sums, sum + Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sc0.intoArray(sums, sum + 2 * Panels.BLOCK_COLUMNS);
        sc1.intoArray(sums, sum + 2 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sd0.intoArray(sums, sum + 3 * Panels.BLOCK_COLUMNS);
        sd1.intoArray(sums, sum + 3 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        se0.intoArray(sums, sum + 4 * Panels.BLOCK_COLUMNS);
        se1.intoArray(sums, sum + 4 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sf0.intoArray(sums, sum + 5 * Panels.BLOCK_COLUMNS);
        sf1.intoArray(sums, sum + 5 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sg0.intoArray(sums, sum + 6 * Panels.BLOCK_COLUMNS);
        sg1.intoArray(sums, sum + 6 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sh0.intoArray(sums, sum + 7 * Panels.BLOCK_COLUMNS);
        sh1.intoArray(sums, sum + 7 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        si0.intoArray(sums, sum + 8 * Panels.BLOCK_COLUMNS);
        si1.intoArray(sums, sum + 8 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sj0.intoArray(sums, sum + 9 * Panels.BLOCK_COLUMNS);
        sj1.intoArray(sums, sum + 9 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sk0.intoArray(sums, sum + 10 * Panels.BLOCK_COLUMNS);
        sk1.intoArray(sums, sum + 10 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
        sl0.intoArray(sums, sum + 11 * Panels.BLOCK_COLUMNS);
        sl1.intoArray(sums, sum + 11 * Panels.BLOCK_COLUMNS + Lanes.COUNT);
    }
}
