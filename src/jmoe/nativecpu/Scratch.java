package jmoe.nativecpu;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * What a product needs besides its arguments: the structure that describes it, a copy of rowToSlot,
 * and a piece for each worker. Pieces grow when they must and stay until {@link #close}. They are
 * handed out without their arena, which would count every call in and out, on one counter for all
 * workers; so whoever closes this must know that none is in use.
 */
final class Scratch implements AutoCloseable {
    private final Piece product = new Piece();
    private final Piece slots = new Piece();
    private final Piece[] workers;

    Scratch(int workers) {
        product.atLeast(Product.LAYOUT.byteSize());
        this.workers = new Piece[workers];
        Arrays.setAll(this.workers, worker -> new Piece());
    }

    /** Where the product is described. */
    MemorySegment product() {
        return product.memory;
    }

    /**
     * Copies rowToSlot, so that what is checked is what is used, whatever other threads do to it.
     *
     * @param rowToSlot I32 of any alignment
     * @return the copy
     */
    MemorySegment slots(MemorySegment rowToSlot) {
        slots.atLeast(rowToSlot.byteSize());
        MemorySegment.copy(
                rowToSlot, JAVA_BYTE, 0, slots.memory, JAVA_BYTE, 0, rowToSlot.byteSize());
        return slots.memory;
    }

    /** Makes every worker's piece so large. */
    void grow(long bytes) {
        for (Piece piece : workers) {
            piece.atLeast(bytes);
        }
    }

    MemorySegment of(int worker) {
        return workers[worker].memory;
    }

    /** Frees everything; may be called again, by any thread. */
    @Override
    public synchronized void close() {
        product.free();
        slots.free();
        for (Piece piece : workers) {
            piece.free();
        }
    }

    /** Memory that can be replaced by more. */
    private static final class Piece {
        private @Nullable Arena arena;
        private MemorySegment memory = MemorySegment.NULL;

        @SuppressWarnings("restricted")
        void atLeast(long bytes) {
            if (memory.byteSize() >= bytes) {
                return;
            }
            free();
            Arena larger = Arena.ofShared();
            arena = larger;
            MemorySegment owned = larger.allocate(bytes, Tensor.ALIGNMENT_BYTES);
            memory = MemorySegment.ofAddress(owned.address()).reinterpret(bytes);
        }

        void free() {
            memory = MemorySegment.NULL;
            if (arena != null) {
                arena.close();
                arena = null;
            }
        }
    }
}
