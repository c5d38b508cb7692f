package jmoe.cuda;

import java.util.ArrayList;
import java.util.List;

/**
 * Memory of the operations that consist of several kernels, for what lies between these. Since
 * operations follow each other in one stream, they share it. It is kept, so that an operation
 * allocates nothing once it has run; pieces that have become too small are kept as well, because
 * captured graphs go on using them. Not for use outside a turn of the context.
 */
final class Scratch implements AutoCloseable {
    private static final long MIN_BYTES = 1 << 16;

    private final CudaMemory memory;
    private final List<CudaMemory.Block> blocks = new ArrayList<>();

    Scratch(CudaMemory memory) {
        this.memory = memory;
    }

    /** Memory of undefined content, until the next operation. */
    long address(long bytes) {
        if (blocks.isEmpty() || blocks.getLast().bytes() < bytes) {
            // Twice as much as before, so that all pieces together stay below twice the last.
            long before = blocks.isEmpty() ? MIN_BYTES / 2 : blocks.getLast().bytes();
            blocks.add(memory.allocate(Math.max(bytes, 2 * before)));
        }
        return blocks.getLast().address();
    }

    @Override
    public void close() {
        for (CudaMemory.Block block : blocks) {
            memory.free(block);
        }
        blocks.clear();
    }
}
