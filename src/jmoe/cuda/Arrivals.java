package jmoe.cuda;

import java.util.ArrayList;
import java.util.List;

/**
 * The counters by which the blocks of a kernel find the one of them that comes last. They are 0
 * before a kernel and after it, so that all kernels share them, as they follow each other in one
 * stream: one that starts early counts only when those before it have ended. Pieces that have
 * become too small are kept, because captured graphs go on using them. Not for use outside a turn
 * of the context.
 */
final class Arrivals implements AutoCloseable {
    private static final long MIN_COUNTERS = 1 << 14;

    private final CudaMemory memory;
    private final CudaStream stream;
    private final List<CudaMemory.Block> blocks = new ArrayList<>();
    private long counters;

    Arrivals(CudaMemory memory, CudaStream stream) {
        this.memory = memory;
        this.stream = stream;
    }

    /** So many counters, all 0. */
    long address(long count) {
        if (blocks.isEmpty() || counters < count) {
            long more = Math.max(count, Math.max(MIN_COUNTERS, 2 * counters));
            CudaMemory.Block block = memory.allocate(Integer.BYTES * more);
            blocks.add(block);
            stream.fill(block.address(), 0, more);
            counters = more;
        }
        return blocks.getLast().address();
    }

    @Override
    public void close() {
        for (CudaMemory.Block block : blocks) {
            memory.free(block);
        }
        blocks.clear();
        counters = 0;
    }
}
