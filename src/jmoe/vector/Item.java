package jmoe.vector;

import jdk.incubator.vector.FloatVector;

import jmoe.ops.Activation;
import jmoe.tensor.Tensor;
import jmoe.threads.RaggedItems;
import jmoe.vector.GroupedGemm.Product;
import jmoe.vector.Panels.Format;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/** Multiplies some rows of one expert by some blocks of panels; owned by one worker. */
final class Item {
    /** Most rows of an item; whole tiles on every machine. */
    static final int MAX_ROWS = 60;

    /** Most blocks of an item; with {@link #MAX_ROWS} the sums fill half a cache of 256 KiB. */
    static final int MAX_BLOCKS = 8;

    static final RaggedItems.Largest LARGEST =
            new RaggedItems.Largest(MAX_ROWS, Tiles.ROWS, MAX_BLOCKS);

    final Packing packing = new Packing();
    private final float[] x = new float[MAX_ROWS * Rows.STRIDE];
    private final float[] sums = new float[MAX_BLOCKS * MAX_ROWS * Panels.BLOCK_COLUMNS];
    private final float[] bias = new float[Panels.BLOCK_COLUMNS];
    private final float[] gate = new float[Panels.BLOCK_COLUMNS];

    /** F32 panels made on the way; freed with this object. */
    private final MemorySegment wide =
            Arena.ofAuto()
                    .allocate(
                            (long) Panels.BLOCK_PANELS * Rows.MAX_INPUTS * Format.F32.stepBytes(),
                            Tensor.ALIGNMENT_BYTES);

    /**
     * Computes a rectangle of the result.
     *
     * @param product what to multiply
     * @param expert which expert
     * @param row its first row of the rectangle, among all rows
     * @param rows at most {@link #MAX_ROWS}
     * @param block first block
     * @param blocks at most {@link #MAX_BLOCKS}
     */
    void multiply(Product product, int expert, long row, int rows, long block, int blocks) {
        int padded = Tiles.padded(rows);
        int blockSums = padded * Panels.BLOCK_COLUMNS;
        Arrays.fill(sums, 0, blocks * blockSums, 0);
        int inputs = product.rows().inputs();
        Panels panels = product.panels();
        // One row of prepared weights streams: the longer, the better. Others stay in the cache.
        int step = rows == 1 && panels != null ? x.length : Rows.MAX_INPUTS;
        for (int input = 0; input < inputs; input += step) {
            int count = Math.min(step, inputs - input);
            product.rows().gather(row, rows, input, count, x);
            if (padded > rows) {
                Arrays.fill(x, rows * Rows.STRIDE, rows * Rows.STRIDE + count, 0);
            }
            for (int b = 0; b < blocks; b++) {
                if (panels == null) {
                    packing.widen(product.source(), expert, block + b, input, count, wide);
                    addWide(rows, count, b * blockSums);
                } else {
                    long offset = panels.offsetBytes(expert, block + b);
                    add(panels, offset, rows, input, count, b * blockSums);
                }
            }
        }
        for (int b = 0; b < blocks; b++) {
            finish(product, expert, row, rows, block + b, b * blockSums);
        }
    }

    private void add(Panels panels, long offset, int rows, int input, int count, int sum) {
        Format format = panels.format();
        long panelBytes = panels.panelBytes();
        long at = offset + (long) input * format.stepBytes();
        if (format == Format.RAISED_F16 && rows > 2) {
            for (int p = 0; p < Panels.BLOCK_PANELS; p++) {
                long wideAt = (long) p * count * Format.F32.stepBytes();
                int pairs = count * Lanes.COUNT;
                F16Tile.widen(panels.memory(), at + p * panelBytes, pairs, wide, wideAt);
            }
            addWide(rows, count, sum);
        } else {
            Tiles.add(x, rows, format, panels.memory(), at, panelBytes, count, sums, sum);
        }
    }

    private void addWide(int rows, int count, int sum) {
        long panelBytes = (long) count * Format.F32.stepBytes();
        Tiles.add(x, rows, Format.F32, wide, 0, panelBytes, count, sums, sum);
    }

    /** Bias, activation, and the columns that exist into the result. */
    private void finish(Product product, int expert, long row, int rows, long block, int sum) {
        int parts = product.parts();
        int partColumns = Panels.BLOCK_COLUMNS / parts;
        long column = block * partColumns;
        int columns = (int) Math.min(partColumns, product.columns() - column);
        readBias(product, expert, column, columns);
        Activation activation = product.activation();
        for (int r = 0; r < rows; r++) {
            int at = sum + r * Panels.BLOCK_COLUMNS;
            if (product.bias() != null) {
                addBias(at);
            }
            if (activation == null) {
                for (int part = 0; part < parts; part++) {
                    long element = ((row + r) * parts + part) * product.columns() + column;
                    product.y().write(sums, at + part * partColumns, columns, element);
                }
                continue;
            }
            int last = at + (parts - 1) * partColumns;
            float[] gates = parts == 2 ? sums : gate;
            int padded = Lanes.padded(columns);
            Swiglu.activate(activation, gates, parts == 2 ? at : 0, sums, last, padded);
            product.y().write(sums, last, columns, (row + r) * product.columns() + column);
        }
    }

    private void readBias(Product product, int expert, long column, int columns) {
        Elements biases = product.bias();
        if (biases == null) {
            return;
        }
        int parts = product.parts();
        for (int part = 0; part < parts; part++) {
            long element = ((long) expert * parts + part) * product.columns() + column;
            biases.read(element, columns, bias, part * (Panels.BLOCK_COLUMNS / parts));
        }
    }

    private void addBias(int at) {
        for (int c = 0; c < Panels.BLOCK_COLUMNS; c += Lanes.COUNT) {
            FloatVector.fromArray(Lanes.FLOATS, sums, at + c)
                    .add(FloatVector.fromArray(Lanes.FLOATS, bias, c))
                    .intoArray(sums, at + c);
        }
    }
}
