package jmoe.vector;

import jdk.incubator.vector.FloatVector;

import org.jspecify.annotations.Nullable;

/**
 * The left factor of a grouped product, as the workers read it: rows of x, or tokens in expert
 * order without being copied there first.
 *
 * @param x rows or tokens
 * @param inputs elements of a row
 * @param rowToSlot slot of each row, or null if x has the rows themselves
 * @param topK slots of a token
 * @param slotWeights factor by slot, or null
 */
record Rows(
        Elements x,
        int inputs,
        @Nullable Elements rowToSlot,
        int topK,
        @Nullable Elements slotWeights) {
    /** Inputs that a tile works through before its accumulators are stored. */
    static final int MAX_INPUTS = 512;

    /** From one gathered row to the next; more than a power of two, for the cache's sake. */
    static final int STRIDE = MAX_INPUTS + 16;

    /**
     * Widens some inputs of consecutive rows.
     *
     * @param row first row
     * @param count rows
     * @param input first input
     * @param inputs at most {@link #MAX_INPUTS}, unless there is one row
     * @param to receives the rows, {@link #STRIDE} apart
     */
    void gather(long row, int count, int input, int inputs, float[] to) {
        for (int r = 0; r < count; r++) {
            if (rowToSlot == null) {
                x.read((row + r) * this.inputs + input, inputs, to, r * STRIDE);
                continue;
            }
            int slot = rowToSlot.getInt(row + r);
            x.read((long) (slot / topK) * this.inputs + input, inputs, to, r * STRIDE);
            if (slotWeights != null) {
                multiply(to, r * STRIDE, inputs, slotWeights.getFloat(slot));
            }
        }
    }

    private static void multiply(float[] values, int at, int count, float factor) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector.fromArray(Lanes.FLOATS, values, at + i)
                    .mul(factor)
                    .intoArray(values, at + i);
        }
    }
}
