package jmoe.vector;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * {@code y[r] = x[r] weight[e]^T + bias[e]}. The product of an expert is cut into blocks of rows
 * and columns; the blocks of all experts are one loop, so that the load of an expert does not
 * matter. A block widens its rows once, then a few columns at a time.
 */
final class GroupedGemm {
    /** Elements of x that a block keeps, a quarter of a second-level cache of 1 MiB. */
    private static final int BLOCK_ELEMENTS = 1 << 16;

    private static final int MAX_BLOCK_ROWS = 64;

    private static final int BLOCK_COLUMNS = 64;

    private final Workers workers;
    private final Buffers[] buffers;

    /** For each expert the number of blocks before it; the last entry is their sum. */
    private long[] firstBlock = new long[0];

    GroupedGemm(Workers workers) {
        this.workers = workers;
        buffers = new Buffers[workers.count()];
        Arrays.setAll(buffers, worker -> new Buffers());
    }

    /** What one worker keeps between calls. */
    private static final class Buffers {
        private float[] x = new float[0];
        private float[] weight = new float[0];
        private final float[] bias = new float[BLOCK_COLUMNS];
        private final float[] sums = new float[GemmTile.SUMS];
        private final float[] y = new float[MAX_BLOCK_ROWS * BLOCK_COLUMNS];

        void grow(int xElements, int weightElements) {
            x = x.length < xElements ? new float[xElements] : x;
            weight = weight.length < weightElements ? new float[weightElements] : weight;
        }
    }

    /** The arguments of one call, as the workers see them. */
    private record Product(
            Elements x,
            Elements weight,
            @Nullable Elements bias,
            Elements expertOffsets,
            Elements y,
            long columns,
            int inputs,
            int stride,
            int blockRows) {
        long columnBlocks() {
            return Math.ceilDiv(columns, (long) BLOCK_COLUMNS);
        }

        long rowBlocks(long rows) {
            return Math.ceilDiv(rows, (long) blockRows);
        }
    }

    void multiply(Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
        long inputs = weight.dim(2);
        if (inputs > Integer.MAX_VALUE / (2 * GemmTile.ROWS)) {
            throw new UnsupportedOperationException(
                    "groupedGemm: rows of "
                            + inputs
                            + " elements; the vector backend takes at most "
                            + Integer.MAX_VALUE / (2 * GemmTile.ROWS));
        }
        int stride = Lanes.padded((int) inputs);
        int fitting = BLOCK_ELEMENTS / Math.max(1, stride) / GemmTile.ROWS * GemmTile.ROWS;
        Product product =
                new Product(
                        Elements.of(x, workers),
                        Elements.of(weight, workers),
                        bias == null ? null : Elements.of(bias, workers),
                        Elements.of(expertOffsets, workers),
                        Elements.of(y, workers),
                        weight.dim(1),
                        (int) inputs,
                        stride,
                        Math.clamp(fitting, GemmTile.ROWS, MAX_BLOCK_ROWS));
        int groups = Math.toIntExact(weight.dim(0));
        long blocks = countBlocks(product, groups);
        workers.run(
                blocks,
                1,
                (worker, from, to) -> {
                    for (long block = from; block < to; block++) {
                        int expert = expertOf(block, groups);
                        multiplyBlock(product, expert, block - firstBlock[expert], buffers[worker]);
                    }
                });
    }

    private long countBlocks(Product product, int groups) {
        if (firstBlock.length < groups + 1) {
            firstBlock = new long[groups + 1];
        }
        firstBlock[0] = 0;
        int from = product.expertOffsets.getInt(0);
        for (int expert = 0; expert < groups; expert++) {
            int to = product.expertOffsets.getInt(expert + 1);
            firstBlock[expert + 1] =
                    firstBlock[expert] + product.rowBlocks(to - from) * product.columnBlocks();
            from = to;
        }
        return firstBlock[groups];
    }

    /** The expert that a block belongs to; experts without rows have no block. */
    private int expertOf(long block, int groups) {
        int low = 0;
        int high = groups;
        while (high - low > 1) {
            int middle = (low + high) >>> 1;
            if (firstBlock[middle] <= block) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return low;
    }

    /** Row blocks follow each other, so that the weight of a column block stays in the cache. */
    private static void multiplyBlock(Product product, int expert, long block, Buffers b) {
        long expertFrom = product.expertOffsets.getInt(expert);
        long expertTo = product.expertOffsets.getInt(expert + 1);
        long rowBlocks = product.rowBlocks(expertTo - expertFrom);
        long row = expertFrom + block % rowBlocks * product.blockRows;
        int rows = (int) Math.min(product.blockRows, expertTo - row);
        long column = block / rowBlocks * BLOCK_COLUMNS;
        int columns = (int) Math.min(BLOCK_COLUMNS, product.columns - column);
        int stride = product.stride;
        b.grow(Math.max(rows, GemmTile.ROWS) * stride, GemmTile.COLUMNS * stride);
        for (int r = 0; r < rows; r++) {
            product.x.read((row + r) * product.inputs, product.inputs, b.x, r * stride);
        }
        long weightRow = expert * product.columns + column;
        for (int c = 0; c < columns; c += GemmTile.COLUMNS) {
            int width = Math.min(GemmTile.COLUMNS, columns - c);
            for (int w = 0; w < width; w++) {
                long element = (weightRow + c + w) * product.inputs;
                product.weight.read(element, product.inputs, b.weight, w * stride);
            }
            multiplyPanel(b, rows, stride, c);
        }
        addBias(product.bias, weightRow, rows, columns, b);
        for (int r = 0; r < rows; r++) {
            long element = (row + r) * product.columns + column;
            product.y.write(b.y, r * BLOCK_COLUMNS, columns, element);
        }
    }

    /** All rows by one panel; columns past the last give numbers that nobody reads. */
    private static void multiplyPanel(Buffers b, int rows, int stride, int column) {
        int whole = rows / GemmTile.ROWS * GemmTile.ROWS;
        for (int row = 0; row < whole; row += GemmTile.ROWS) {
            for (int c = 0; c < GemmTile.COLUMNS; c += 2) {
                GemmTile.fourByTwo(b.x, row * stride, b.weight, c * stride, stride, b.sums);
                for (int r = 0; r < GemmTile.ROWS; r++) {
                    int at = (row + r) * BLOCK_COLUMNS + column + c;
                    b.y[at] = GemmTile.sum(b.sums, 2 * r);
                    b.y[at + 1] = GemmTile.sum(b.sums, 2 * r + 1);
                }
            }
        }
        for (int row = whole; row < rows; row++) {
            GemmTile.oneByFour(b.x, row * stride, b.weight, 0, stride, b.sums);
            for (int c = 0; c < GemmTile.COLUMNS; c++) {
                b.y[row * BLOCK_COLUMNS + column + c] = GemmTile.sum(b.sums, c);
            }
        }
    }

    private static void addBias(
            @Nullable Elements bias, long weightRow, int rows, int columns, Buffers b) {
        if (bias == null) {
            return;
        }
        bias.read(weightRow, columns, b.bias, 0);
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < columns; c++) {
                b.y[r * BLOCK_COLUMNS + c] += b.bias[c];
            }
        }
    }
}
