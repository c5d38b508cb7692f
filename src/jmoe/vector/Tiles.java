package jmoe.vector;

import jmoe.vector.Panels.Format;

import java.lang.foreign.MemorySegment;

/**
 * Multiplies any number of rows by a block of panels, in tiles of the sizes that the machine
 * computes well. The panels' elements are read from memory by the first tile only; the others find
 * them in the cache.
 */
final class Tiles {
    /** Rows of the largest tile. */
    static final int ROWS = Lanes.MANY_REGISTERS ? 12 : 5;

    private Tiles() {}

    /**
     * Adds the products of some inputs to the sums.
     *
     * @param x rows, {@link Rows#STRIDE} apart
     * @param rows how many
     * @param format of the panels
     * @param weight the panels
     * @param offset of the first one
     * @param panelBytes from panel to panel
     * @param inputs how many
     * @param sums rows of {@link Panels#BLOCK_COLUMNS}
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
        int row = rows / ROWS * ROWS;
        int fours = (rows - row) / 4;
        if (row > 0 || fours > 0) {
            for (int p = 0; p < Panels.BLOCK_PANELS; p++) {
                long at = offset + p * panelBytes;
                int column = sum + p * Panels.COLUMNS;
                for (int r = 0; r < row; r += ROWS) {
                    large(x, r, format, weight, at, inputs, sums, column);
                }
                for (int r = row; r < row + 4 * fours; r += 4) {
                    four(x, r, format, weight, at, inputs, sums, column);
                }
            }
        }
        row += 4 * fours;
        if (rows - row >= 2) {
            long half = 2 * panelBytes;
            two(x, row, format, weight, offset, panelBytes, inputs, sums, sum);
            int column = sum + 2 * Panels.COLUMNS;
            two(x, row, format, weight, offset + half, panelBytes, inputs, sums, column);
            row += 2;
        }
        if (row < rows) {
            one(x, row, format, weight, offset, panelBytes, inputs, sums, sum);
        }
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

    private static void two(
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
            case F32 -> F32Tile.twoByTwo(x, first, weight, offset, panelBytes, inputs, sums, to);
            case BF16 -> Bf16Tile.twoByTwo(x, first, weight, offset, panelBytes, inputs, sums, to);
            case RAISED_F16 ->
                    F16Tile.twoByTwo(x, first, weight, offset, panelBytes, inputs, sums, to);
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
