package jmoe.nativecpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;

/**
 * Memory of packed weights, which nobody has written yet: an arena's own memory is zeroed, and so
 * bound to small pages and to the calling thread's part of the machine, before anything can be said
 * about it.
 */
@SuppressWarnings("restricted")
final class PanelMemory {
    /** A large page of x86-64. */
    private static final long LARGE_PAGE_BYTES = 2L << 20;

    private static final MethodHandle ALIGNED_ALLOC =
            Linker.nativeLinker()
                    .downcallHandle(
                            Linker.nativeLinker().defaultLookup().findOrThrow("aligned_alloc"),
                            FunctionDescriptor.of(ADDRESS, JAVA_LONG, JAVA_LONG));
    private static final MethodHandle FREE =
            Linker.nativeLinker()
                    .downcallHandle(
                            Linker.nativeLinker().defaultLookup().findOrThrow("free"),
                            FunctionDescriptor.ofVoid(ADDRESS));

    private PanelMemory() {}

    /**
     * Allocates memory with undefined content.
     *
     * @param bytes how much
     * @param library says which pages are wanted
     * @param arena frees it
     */
    static MemorySegment allocate(long bytes, NativeLibrary library, Arena arena) {
        if (bytes < LARGE_PAGE_BYTES) {
            return arena.allocate(bytes, Tensor.ALIGNMENT_BYTES);
        }
        long pages = Math.ceilDiv(bytes, LARGE_PAGE_BYTES);
        MemorySegment memory;
        try {
            memory =
                    (MemorySegment)
                            ALIGNED_ALLOC.invokeExact(LARGE_PAGE_BYTES, pages * LARGE_PAGE_BYTES);
        } catch (Throwable e) {
            throw new IllegalStateException("aligned_alloc", e);
        }
        if (memory.address() == 0) {
            throw new OutOfMemoryError(
                    "cannot allocate " + bytes + " bytes for a packed weight outside the heap");
        }
        MemorySegment owned;
        try {
            owned = memory.reinterpret(bytes, arena, PanelMemory::free);
        } catch (Throwable e) {
            free(memory);
            throw e;
        }
        library.preferLargePages(owned);
        return owned;
    }

    private static void free(MemorySegment memory) {
        try {
            FREE.invokeExact(memory);
        } catch (Throwable e) {
            throw new IllegalStateException("free", e);
        }
    }
}
