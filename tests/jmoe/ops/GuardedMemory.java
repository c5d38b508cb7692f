package jmoe.ops;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;

/**
 * Memory where an access one byte outside ends the process, and memory larger than the machine's.
 * Linux only. {@link #close} unmaps everything that was handed out.
 */
@SuppressWarnings("restricted")
public final class GuardedMemory implements AutoCloseable {
    private static final int PROT_NONE = 0;
    private static final int PROT_READ_WRITE = 3;
    private static final int MAP_PRIVATE_ANONYMOUS_NORESERVE = 0x02 | 0x20 | 0x4000;
    private static final long PAGE_BYTES = 4096;

    private static final MethodHandle MMAP =
            handle("mmap", ADDRESS, ADDRESS, JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG);
    private static final MethodHandle MPROTECT =
            handle("mprotect", JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT);
    private static final MethodHandle MUNMAP = handle("munmap", JAVA_INT, ADDRESS, JAVA_LONG);

    private final Arena arena = Arena.ofShared();
    private final List<MemorySegment> mappings = new ArrayList<>();

    private static MethodHandle handle(
            String name, MemoryLayout result, MemoryLayout... parameters) {
        Linker linker = Linker.nativeLinker();
        return linker.downcallHandle(
                linker.defaultLookup().find(name).orElseThrow(),
                FunctionDescriptor.of(result, parameters));
    }

    /** Whether this machine has what the class needs. */
    public static boolean available() {
        return System.getProperty("os.name").equals("Linux");
    }

    /**
     * Zeroed memory whose last byte is followed by an inaccessible page.
     *
     * @param bytes length
     * @return the memory, at whatever alignment that gives
     */
    public MemorySegment before(long bytes) {
        MemorySegment pages = guarded(bytes);
        return pages.asSlice(pages.byteSize() - bytes, bytes);
    }

    /**
     * Zeroed memory whose first byte follows an inaccessible page.
     *
     * @param bytes length
     * @return the memory
     */
    public MemorySegment behind(long bytes) {
        return guarded(bytes).asSlice(0, bytes);
    }

    /**
     * Zeroed memory that costs nothing until a page is written.
     *
     * @param bytes length, may exceed the machine's memory
     * @return the memory
     */
    public MemorySegment sparse(long bytes) {
        return map(bytes, PROT_READ_WRITE);
    }

    /**
     * A tensor in sparse memory.
     *
     * @param dtype type
     * @param shape dimensions
     * @return zeros
     */
    public Tensor sparse(DType dtype, long... shape) {
        long elements = 1;
        for (long dim : shape) {
            elements = Math.multiplyExact(elements, dim);
        }
        return Tensor.of(sparse(dtype.numBytes(elements)), dtype, shape);
    }

    private MemorySegment guarded(long bytes) {
        long pageBytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        MemorySegment pages =
                map(pageBytes + 2 * PAGE_BYTES, PROT_NONE).asSlice(PAGE_BYTES, pageBytes);
        if (pageBytes > 0) {
            int code = call(MPROTECT, pages, pageBytes, PROT_READ_WRITE);
            if (code != 0) {
                throw new IllegalStateException("mprotect failed");
            }
        }
        return pages;
    }

    private MemorySegment map(long bytes, int protection) {
        MemorySegment mapping;
        try {
            mapping =
                    (MemorySegment)
                            MMAP.invokeExact(
                                    MemorySegment.NULL,
                                    bytes,
                                    protection,
                                    MAP_PRIVATE_ANONYMOUS_NORESERVE,
                                    -1,
                                    0L);
        } catch (Throwable e) {
            throw new IllegalStateException("mmap", e);
        }
        if (mapping.address() == -1) {
            throw new IllegalStateException("mmap of " + bytes + " bytes failed");
        }
        mappings.add(mapping.reinterpret(bytes));
        return mapping.reinterpret(bytes, arena, null);
    }

    private static int call(MethodHandle handle, MemorySegment start, long bytes, int protection) {
        try {
            return (int) handle.invokeExact(start, bytes, protection);
        } catch (Throwable e) {
            throw new IllegalStateException(e);
        }
    }

    @Override
    public void close() {
        arena.close();
        for (MemorySegment mapping : mappings) {
            try {
                int code = (int) MUNMAP.invokeExact(mapping, mapping.byteSize());
                if (code != 0) {
                    throw new IllegalStateException("munmap failed");
                }
            } catch (RuntimeException e) {
                throw e;
            } catch (Throwable e) {
                throw new IllegalStateException("munmap", e);
            }
        }
        mappings.clear();
    }
}
