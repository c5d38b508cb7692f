package jmoe.vector;

import jdk.incubator.vector.FloatVector;

/**
 * Dot products of a few rows of x with a few rows of the weight, all in F32 with zeros up to whole
 * vectors. Every product of one row with one column has one accumulator and takes its terms in
 * rising order, in whichever tile it is computed, so that blocking never changes a bit.
 *
 * <p>The bodies are small and the accumulators are named: larger bodies can fail to compile (the
 * JVM then interprets them), and arrays of vectors do not stay in registers.
 */
final class GemmTile {
    /** Rows of the large tile. */
    static final int ROWS = 4;

    /** Columns of a weight panel; the large tile covers it in two steps. */
    static final int COLUMNS = 4;

    /** Elements that a tile leaves for {@link #sum}. */
    static final int SUMS = 8 * Lanes.COUNT;

    private GemmTile() {}

    /**
     * Four rows by two columns: eight accumulators hide the latency of the FMA, six loads feed them
     * and everything fits in 16 registers.
     *
     * @param x rows, {@code stride} apart
     * @param row first element of the first row
     * @param weight columns, {@code stride} apart
     * @param column first element of the first column
     * @param stride elements of a row, whole vectors
     * @param sums receives the accumulators, row by row
     */
    static void fourByTwo(
            float[] x, int row, float[] weight, int column, int stride, float[] sums) {
        FloatVector s00 = FloatVector.zero(Lanes.FLOATS);
        FloatVector s01 = s00;
        FloatVector s10 = s00;
        FloatVector s11 = s00;
        FloatVector s20 = s00;
        FloatVector s21 = s00;
        FloatVector s30 = s00;
        FloatVector s31 = s00;
        for (int k = 0; k < stride; k += Lanes.COUNT) {
            FloatVector w0 = FloatVector.fromArray(Lanes.FLOATS, weight, column + k);
            FloatVector w1 = FloatVector.fromArray(Lanes.FLOATS, weight, column + stride + k);
            FloatVector x0 = FloatVector.fromArray(Lanes.FLOATS, x, row + k);
            s00 = x0.fma(w0, s00);
            s01 = x0.fma(w1, s01);
            FloatVector x1 = FloatVector.fromArray(Lanes.FLOATS, x, row + stride + k);
            s10 = x1.fma(w0, s10);
            s11 = x1.fma(w1, s11);
            FloatVector x2 = FloatVector.fromArray(Lanes.FLOATS, x, row + 2 * stride + k);
            s20 = x2.fma(w0, s20);
            s21 = x2.fma(w1, s21);
            FloatVector x3 = FloatVector.fromArray(Lanes.FLOATS, x, row + 3 * stride + k);
            s30 = x3.fma(w0, s30);
            s31 = x3.fma(w1, s31);
        }
        s00.intoArray(sums, 0);
        s01.intoArray(sums, Lanes.COUNT);
        s10.intoArray(sums, 2 * Lanes.COUNT);
        s11.intoArray(sums, 3 * Lanes.COUNT);
        s20.intoArray(sums, 4 * Lanes.COUNT);
        s21.intoArray(sums, 5 * Lanes.COUNT);
        s30.intoArray(sums, 6 * Lanes.COUNT);
        s31.intoArray(sums, 7 * Lanes.COUNT);
    }

    /** One row by four columns; parameters as in {@link #fourByTwo}. */
    static void oneByFour(
            float[] x, int row, float[] weight, int column, int stride, float[] sums) {
        FloatVector s0 = FloatVector.zero(Lanes.FLOATS);
        FloatVector s1 = s0;
        FloatVector s2 = s0;
        FloatVector s3 = s0;
        for (int k = 0; k < stride; k += Lanes.COUNT) {
            FloatVector x0 = FloatVector.fromArray(Lanes.FLOATS, x, row + k);
            s0 = x0.fma(FloatVector.fromArray(Lanes.FLOATS, weight, column + k), s0);
            s1 = x0.fma(FloatVector.fromArray(Lanes.FLOATS, weight, column + stride + k), s1);
            s2 = x0.fma(FloatVector.fromArray(Lanes.FLOATS, weight, column + 2 * stride + k), s2);
            s3 = x0.fma(FloatVector.fromArray(Lanes.FLOATS, weight, column + 3 * stride + k), s3);
        }
        s0.intoArray(sums, 0);
        s1.intoArray(sums, Lanes.COUNT);
        s2.intoArray(sums, 2 * Lanes.COUNT);
        s3.intoArray(sums, 3 * Lanes.COUNT);
    }

    /**
     * Adds the lanes of one accumulator, halves first. A lanewise reduction would be free to choose
     * another order each time.
     *
     * @param sums accumulators of a tile; changed by the call
     * @param index which accumulator
     * @return their sum
     */
    static float sum(float[] sums, int index) {
        int at = index * Lanes.COUNT;
        for (int half = Lanes.COUNT / 2; half > 0; half /= 2) {
            for (int lane = 0; lane < half; lane++) {
                sums[at + lane] += sums[at + half + lane];
            }
        }
        return sums[at];
    }
}
