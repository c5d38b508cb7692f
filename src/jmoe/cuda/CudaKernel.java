package jmoe.cuda;

import org.jspecify.annotations.Nullable;

/**
 * A kernel on the device and the constants that stand beside it in its source.
 *
 * @param name symbol
 * @param function the driver's handle
 * @param threads threads of a block
 * @param itemsPerBlock tokens, rows or slots that a block handles
 * @param sharedBytes dynamic shared memory of a block
 * @param cluster blocks of a cluster, 1 for none; a grid is a multiple of it
 * @param residentBlocks blocks that the device runs at once
 * @param parameterBytes bytes of each parameter, or null if the driver cannot tell
 */
@SuppressWarnings("ArrayRecordComponent")
record CudaKernel(
        String name,
        long function,
        int threads,
        int itemsPerBlock,
        int sharedBytes,
        int cluster,
        int residentBlocks,
        int @Nullable [] parameterBytes) {
    /** Blocks that handle all items. */
    long blocks(long items) {
        return (items + itemsPerBlock - 1) / itemsPerBlock;
    }

    /**
     * Blocks that take tiles in turn: as many as run at once, or fewer if there are fewer tiles.
     *
     * @return a multiple of the cluster
     */
    long blocksInTurn(long tiles) {
        return Math.ceilDiv(Math.min(tiles, Math.max(1, residentBlocks)), (long) cluster) * cluster;
    }

    CudaKernel withResidentBlocks(int blocks) {
        return new CudaKernel(
                name,
                function,
                threads,
                itemsPerBlock,
                sharedBytes,
                cluster,
                blocks,
                parameterBytes);
    }
}
