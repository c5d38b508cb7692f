package jmoe.vector;

import jmoe.vector.Panels.Format;

import java.lang.foreign.MemorySegment;

/**
 * Multiplies any number of rows by a block of panels, in tiles of the sizes that the machine
 * computes well. The first tile reads the panels from memory, the others find them in the cache.
 * One row reads all panels at once, because four streams load faster than one.
 */
final class Tiles {
    /** Rows of the largest tile. */
    static final int ROWS = Lanes.MANY_REGISTERS ? 12 : 5;

    private static final int FOUR = 4;

    private Tiles() {}

    /**
     * Adds the products of some inputs to the sums.
     *
     * @param x rows, {@link Rows#STRIDE} apart, {@link #padded}
     * @param rows how many
     * @param format of the panels
     * @param weight the panels
     * @param offset of the first one
     * @param panelBytes from panel to panel
     * @param inputs how many
     * @param sums rows of {@link Panels#BLOCK_COLUMNS}, {@link #padded}
     * @param sum where the first one begins
     */
    static void add(
            float[] x,
            int rows,
            Format format,
            MemorySegment weight,
            long offset,
            long panelBytes,
            int inputs,
            float[] sums,
            int sum) {
        int large = rows / ROWS * ROWS;
        // Three rows cost no more in a tile of four, whose accumulators just hide the latency.
        int four = large + (rows - large + 1) / FOUR * FOUR;
        for (int p = 0; p < Panels.BLOCK_PANELS && four > 0; p++) {
            long at = offset + p * panelBytes;
            int column = sum + p * Panels.COLUMNS;
            for (int row = 0; row < large; row += ROWS) {
                large(x, row, format, weight, at, inputs, sums, column);
            }
            for (int row = large; row < four; row += FOUR) {
                four(x, row, format, weight, at, inputs, sums, column);
            }
        }
        for (int row = four; row < rows; row++) {
            one(x, row, format, weight, offset, panelBytes, inputs, sums, sum);
        }
    }

    /** Rows of x and of the sums that {@link #add} may use: as many as there are, or one more. */
    static int padded(int rows) {
        int rest = rows % ROWS;
        return rest % FOUR == FOUR - 1 ? rows + 1 : rows;
    }

    private static int at(int sum, int row) {
        return sum + row * Panels.BLOCK_COLUMNS;
    }

    private static void large(
            float[] x,
            int row,
            Format format,
            MemorySegment weight,
            long offset,
            int inputs,
            float[] sums,
            int sum) {
        int first = row * Rows.STRIDE;
        int to = at(sum, row);
        if (format == Format.F32 && Lanes.MANY_REGISTERS) {
            F32Tile.twelveByOne(x, first, weight, offset, inputs, sums, to);
        } else if (format == Format.F32) {
            F32Tile.fiveByOne(x, first, weight, offset, inputs, sums, to);
        } else if (Lanes.MANY_REGISTERS) {
            Bf16Tile.twelveByOne(x, first, weight, offset, inputs, sums, to);
        } else {
            Bf16Tile.fiveByOne(x, first, weight, offset, inputs, sums, to);
        }
    }

    private static void four(
            float[] x,
            int row,
            Format format,
            MemorySegment weight,
            long offset,
            int inputs,
            float[] sums,
            int sum) {
        int first = row * Rows.STRIDE;
        if (format == Format.F32) {
            F32Tile.fourByOne(x, first, weight, offset, inputs, sums, at(sum, row));
        } else {
            Bf16Tile.fourByOne(x, first, weight, offset, inputs, sums, at(sum, row));
        }
    }

    private static void one(
            float[] x,
            int row,
            Format format,
            MemorySegment weight,
            long offset,
            long panelBytes,
            int inputs,
            float[] sums,
            int sum) {
        int first = row * Rows.STRIDE;
        int to = at(sum, row);
        switch (format) {
            case F32 -> F32Tile.oneByFour(x, first, weight, offset, panelBytes, inputs, sums, to);
            case BF16 -> Bf16Tile.oneByFour(x, first, weight, offset, panelBytes, inputs, sums, to);
            case RAISED_F16 ->
                    F16Tile.oneByFour(x, first, weight, offset, panelBytes, inputs, sums, to);
        }
    }
}
