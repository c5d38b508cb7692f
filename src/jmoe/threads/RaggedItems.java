package jmoe.threads;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * A product of ragged groups of rows, cut into items of some rows of one group by some blocks of
 * columns. The items of all groups are one loop, so that the load of a group does not matter.
 */
public final class RaggedItems {
    private final Workers workers;
    private final Workers.Task task = this::compute;

    /** Where each group's rows begin, as they were when the loop began; the last is their end. */
    private int[] firstRow = new int[1];

    /** For each group the number of items before it; the last entry is their sum. */
    private long[] firstItem = new long[1];

    private int groups;
    private long blocks;
    private int maxRows;
    private int tileRows;
    private int itemBlocks;
    private @Nullable Work work;

    /** What to do with an item. */
    public interface Work {
        /**
         * Computes one item.
         *
         * @param worker as in {@link Workers.Task}
         * @param group which group
         * @param row first row, among the rows of all groups
         * @param rows how many, at least 1
         * @param block first block of columns
         * @param blocks how many, at least 1
         */
        void run(int worker, int group, long row, int rows, long block, int blocks);
    }

    /**
     * The largest item.
     *
     * @param rows rows, in whole tiles
     * @param tileRows rows of a tile; every item but the last of a group is made of whole ones
     * @param blocks blocks of columns
     */
    public record Largest(int rows, int tileRows, int blocks) {
        /** Checks that there are whole tiles. */
        public Largest {
            if (tileRows < 1 || rows < tileRows || rows % tileRows != 0 || blocks < 1) {
                throw new IllegalArgumentException(
                        "item: expected rows in whole tiles and at least one block, got "
                                + rows
                                + " rows, tiles of "
                                + tileRows
                                + ", "
                                + blocks
                                + " blocks");
            }
        }
    }

    /**
     * Items for some workers.
     *
     * @param workers who computes them
     */
    public RaggedItems(Workers workers) {
        this.workers = workers;
    }

    /**
     * Computes all items, inside {@link Workers#exclusively}. The offsets are read once, so that
     * whoever changes them meanwhile cannot make an item leave the rows.
     *
     * @param expertOffsets I32 [at least numGroups + 1]
     * @param numGroups groups of rows
     * @param numRows rows that there are
     * @param numBlocks blocks of columns of each group
     * @param largest bounds of an item
     * @param each what to do with an item
     * @throws IllegalArgumentException if the offsets fall or leave the rows
     */
    public void run(
            Tensor expertOffsets,
            int numGroups,
            long numRows,
            long numBlocks,
            Largest largest,
            Work each) {
        readOffsets(expertOffsets, numGroups, numRows);
        groups = numGroups;
        blocks = numBlocks;
        maxRows = largest.rows();
        tileRows = largest.tileRows();
        long share = 0;
        for (int g = 0; g < groups; g++) {
            share += rowBlocks(rows(g)) * blocks;
        }
        // Enough items that the last ones cost little waiting, few enough that gathering rows does.
        itemBlocks = Math.clamp(share / (32L * workers.count()), 1, largest.blocks());
        long stripes = Math.ceilDiv(blocks, (long) itemBlocks);
        for (int g = 0; g < groups; g++) {
            firstItem[g + 1] = firstItem[g] + rowBlocks(rows(g)) * stripes;
        }
        work = each;
        try {
            workers.run(firstItem[groups], 1, task);
        } finally {
            work = null;
        }
    }

    private void readOffsets(Tensor expertOffsets, int numGroups, long numRows) {
        if (firstRow.length < numGroups + 1) {
            firstRow = new int[numGroups + 1];
            firstItem = new long[numGroups + 1];
        }
        int previous = 0;
        for (int g = 0; g <= numGroups; g++) {
            int offset = expertOffsets.getInt(g);
            if (offset < previous || offset > numRows) {
                throw new IllegalArgumentException(
                        "expertOffsets: expected to rise to at most rows="
                                + numRows
                                + ", got "
                                + offset
                                + " at "
                                + g
                                + "; another thread must not change them meanwhile");
            }
            firstRow[g] = offset;
            previous = offset;
        }
    }

    private void compute(int worker, long from, long to) {
        Work each = work;
        if (each == null) {
            throw new IllegalStateException("items are computed outside their loop");
        }
        for (long item = from; item < to; item++) {
            int group = groupOf(item);
            int count = rows(group);
            long within = item - firstItem[group];
            // Row blocks follow each other, so that a weight's blocks stay in the cache.
            int rowBlocks = rowBlocks(count);
            int height = blockRows(count, rowBlocks);
            int first = (int) (within % rowBlocks) * height;
            long block = within / rowBlocks * itemBlocks;
            each.run(
                    worker,
                    group,
                    firstRow[group] + (long) first,
                    Math.min(height, count - first),
                    block,
                    (int) Math.min(itemBlocks, blocks - block));
        }
    }

    private int rows(int group) {
        return firstRow[group + 1] - firstRow[group];
    }

    private int rowBlocks(int rows) {
        int parts = Math.ceilDiv(rows, maxRows);
        // Blocks in whole tiles may be fewer than that.
        return rows == 0 ? 0 : Math.ceilDiv(rows, blockRows(rows, parts));
    }

    /** Rows of each block but the last: equal, in whole tiles. */
    private int blockRows(int rows, int parts) {
        return Math.ceilDiv(Math.ceilDiv(rows, parts), tileRows) * tileRows;
    }

    /** The group that an item belongs to; groups without rows have none. */
    private int groupOf(long item) {
        int low = 0;
        int high = groups;
        while (high - low > 1) {
            int middle = (low + high) >>> 1;
            if (firstItem[middle] <= item) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return low;
    }
}
