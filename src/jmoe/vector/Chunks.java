package jmoe.vector;

import jmoe.threads.Workers;

/**
 * The loop of the operations that work on one row at a time: rows are cut into chunks of columns
 * that fit in the first-level cache, and each worker has two buffers of that size.
 */
final class Chunks {
    /** Columns of a chunk; whole vectors on every machine. */
    static final int COLUMNS = 2048;

    /** Elements that are worth handing to another thread. */
    private static final int GRAIN_ELEMENTS = 16 * 1024;

    private final Workers workers;
    private final float[][] first;
    private final float[][] second;

    Chunks(Workers workers) {
        this.workers = workers;
        first = new float[workers.count()][COLUMNS];
        second = new float[workers.count()][COLUMNS];
    }

    /** What to do with a chunk. */
    interface Work {
        /**
         * Does one chunk.
         *
         * @param row the row
         * @param column first column
         * @param count columns, at most {@link #COLUMNS}
         * @param first a buffer with any content
         * @param second another one
         */
        void run(long row, long column, int count, float[] first, float[] second);
    }

    void run(long rows, long columns, Work work) {
        long perRow = Math.ceilDiv(columns, (long) COLUMNS);
        long grain = Math.max(1, GRAIN_ELEMENTS / Math.clamp(columns, 1, COLUMNS));
        workers.run(
                rows * perRow,
                grain,
                (worker, from, to) -> {
                    for (long chunk = from; chunk < to; chunk++) {
                        long column = chunk % perRow * COLUMNS;
                        int count = (int) Math.min(COLUMNS, columns - column);
                        work.run(chunk / perRow, column, count, first[worker], second[worker]);
                    }
                });
    }
}
