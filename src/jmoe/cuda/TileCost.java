package jmoe.cuda;

import jmoe.cuda.Tile.Family;

import java.util.List;

/**
 * What a grouped product should take on a device with each tile: a model, so that the tile can be
 * chosen before anything runs. Bits do not depend on it.
 *
 * <p>With r rows per group that has any, a group takes r / tile rows and a half row tiles, one at
 * least, times its column tiles; a group alone takes exactly what it needs. The multiprocessors
 * take the tiles in turn, and half of the last turn idles, or what is left over where that can be
 * counted. Three pipes then work side by side:
 *
 * <ul>
 *   <li>matrix units: 2 x rows x columns x inputs operations per tile, of rows that exist, counted
 *       in the steps that a tile can leave out; and the epilogue, where nothing hides it;
 *   <li>L2: these rows of x and the columns of the weight for every tile, 46.6 bytes per cycle and
 *       multiprocessor. Clusters fetch a weight once for two row tiles of a group;
 *   <li>memory: weights of the groups, x and y once, at 85 % of what the pins can move, or at what
 *       the blocks ask for: each has its stages on the way, 1.1 us long.
 * </ul>
 *
 * <p>The sum is the fourth root of the sum of their fourth powers: the slowest, and up to a third
 * more where others are as slow, because they wait for each other. A larger tile must win 2 %.
 */
final class TileCost {
    /**
     * A product.
     *
     * @param rows in all groups
     * @param groups matrices
     * @param columns rows of a matrix: outputs, or gates and ups
     * @param inputs of a row
     * @param gated whether two columns make one output
     */
    record Work(long rows, long groups, long columns, long inputs, boolean gated) {}

    /** Of 16 bits, whatever y is. */
    private static final int ELEMENT_BYTES = 2;

    private static final int STAGE_INPUTS = 64;

    private static final double L2_BYTES_PER_CYCLE = 46.6;
    private static final double REACHED_BANDWIDTH = 0.85;
    private static final double MEMORY_SECONDS = 1.1e-6;
    private static final double GAIN_OF_LARGER = 0.98;

    /** Exponentials and reciprocals per cycle and multiprocessor. */
    private static final double SPECIAL_FUNCTIONS = 16;

    /** Operations per cycle and multiprocessor by wgmma. */
    private static final double WGMMA_OPERATIONS = 4096;

    /** What to assume of a device whose driver does not say. */
    private static final double TYPICAL_HERTZ = 1.5e9;

    private static final double TYPICAL_BYTES_PER_CYCLE = 16;

    private final double multiprocessors;
    private final double hertz;
    private final double memoryBytesPerSecond;
    private final double mmaOperations;

    TileCost(CudaDevice device) {
        multiprocessors = device.multiprocessors();
        hertz = device.clockHertz() > 0 ? device.clockHertz() : TYPICAL_HERTZ;
        memoryBytesPerSecond =
                device.memoryBytesPerSecond() > 0
                        ? device.memoryBytesPerSecond()
                        : TYPICAL_BYTES_PER_CYCLE * hertz * multiprocessors;
        mmaOperations = mmaOperations(device.capability());
    }

    /**
     * Operations per cycle and multiprocessor by mma.sync with 16-bit operands and sums of F32: the
     * large chips of each generation have twice those of the small ones; on sm_90 it reaches 62 %
     * of wgmma.
     */
    private static double mmaOperations(int capability) {
        return switch (capability) {
            case 80, 100, 103 -> 2048;
            case 90 -> 0.62 * WGMMA_OPERATIONS;
            default -> 1024;
        };
    }

    /** Of a multiprocessor; typical if the driver does not say. */
    double hertz() {
        return hertz;
    }

    /** Of the pins; typical if the driver does not say. */
    double memoryBytesPerSecond() {
        return memoryBytesPerSecond;
    }

    /** The tile of a family that takes least. */
    Tile cheapest(Family family, Work work) {
        List<Tile> tiles = Tile.of(family);
        Tile best = tiles.getFirst();
        double bestNanos = nanos(best, work);
        for (int i = 1; i < tiles.size(); i++) {
            double nanos = nanos(tiles.get(i), work);
            if (nanos < GAIN_OF_LARGER * bestNanos) {
                best = tiles.get(i);
                bestNanos = nanos;
            }
        }
        return best;
    }

    /** What the kernel should take, without its launch. */
    double nanos(Tile tile, Work work) {
        if (work.rows == 0 || work.groups == 0 || work.columns == 0) {
            return 0;
        }
        double active = Math.min(work.rows, work.groups);
        int step = tile.family().rowStep();
        double rowTiles = perGroup(work, active, tile.rows());
        double stepRows = perGroup(work, active, step) * step / rowTiles;
        double columnTiles = Math.ceil((double) work.columns / tile.columns());
        double tiles = active * rowTiles * columnTiles;
        double share = tiles / multiprocessors;
        boolean counted = work.groups == 1 || rowTiles == 1;
        double turns = counted ? Math.ceil(share) : Math.max(1, share + 0.5);
        double operations =
                (tile.family() == Family.SM90 ? WGMMA_OPERATIONS : mmaOperations)
                        / (2.0 * tile.columns() * work.inputs);
        double exposed = tile.hidesEpilogue() ? 1 : turns;
        double matrixUnits = turns * stepRows / operations + exposed * epilogueCycles(tile, work);
        double weightColumns = work.columns / columnTiles * fetchedShare(tile, rowTiles);
        double fetched = Math.min(stepRows, (double) work.rows) + weightColumns;
        double l2 = turns * fetched * work.inputs * ELEMENT_BYTES / L2_BYTES_PER_CYCLE;
        double memory = memorySeconds(tile, work, tiles, fetched) * hertz;
        return 1e9 / hertz * fourthRoot(power4(matrixUnits) + power4(l2) + power4(memory));
    }

    /** A gated activation halves what is stored, and takes two special functions for each. */
    private static double epilogueCycles(Tile tile, Work work) {
        if (!work.gated) {
            return tile.epilogueCycles();
        }
        return tile.epilogueCycles() / 2.0 + tile.rows() * tile.columns() / SPECIAL_FUNCTIONS;
    }

    /** Pieces of so many rows that a group needs, on average. */
    private static double perGroup(Work work, double active, int rows) {
        double pieces = work.rows / active / rows;
        return work.groups == 1 ? Math.ceil(pieces) : Math.max(1, pieces + 0.5);
    }

    /** Of the weight, what a block of a cluster fetches by itself. */
    private static double fetchedShare(Tile tile, double rowTiles) {
        if (tile.cluster() == 1) {
            return 1;
        }
        // One row tile has no partner; of more, every other group has an odd one.
        double alone = Math.min(1, Math.max(0.5, 2 - rowTiles));
        return (1 + alone / rowTiles) / 2;
    }

    private double memorySeconds(Tile tile, Work work, double tiles, double fetched) {
        double active = Math.min(work.rows, work.groups);
        double outputs = work.gated ? work.columns / 2.0 : work.columns;
        double bytes =
                ELEMENT_BYTES
                        * (active * work.columns * work.inputs
                                + work.rows * (work.inputs + outputs));
        double blocks = Math.min(tiles, multiprocessors * tile.blocks());
        double stageBytes = fetched * STAGE_INPUTS * ELEMENT_BYTES;
        double asked = blocks * tile.stages() * stageBytes / MEMORY_SECONDS;
        return bytes / Math.min(asked, REACHED_BANDWIDTH * memoryBytesPerSecond);
    }

    private static double power4(double value) {
        return value * value * value * value;
    }

    private static double fourthRoot(double value) {
        return Math.sqrt(Math.sqrt(value));
    }
}
