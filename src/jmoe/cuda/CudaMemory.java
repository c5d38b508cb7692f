package jmoe.cuda;

import jcuda.driver.JCudaDriver;

import org.jspecify.annotations.Nullable;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Cleaner;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Device memory from the driver's stream-ordered pool: what is freed goes back to the pool in the
 * order of the stream and stays there for the next allocation, so that neither waits for the
 * device. Blocks count as live from allocation to {@link #free}, in all contexts together.
 */
final class CudaMemory implements AutoCloseable {
    /** System property: remember where memory was allocated and say so if it is not freed. */
    static final String LEAKS_PROPERTY = "jmoe.cuda.leaks";

    private static final Logger LOG = System.getLogger("jmoe");
    private static final int MEMORY_POOLS_SUPPORTED = 115;
    private static final AtomicLong LIVE_BLOCKS = new AtomicLong();
    private static final AtomicLong LIVE_BYTES = new AtomicLong();
    private static final Cleaner CLEANER = Cleaner.create();

    /** Arenas whose memory is meant to be freed by the garbage collector. */
    private static final Class<?> AUTOMATIC = Arena.ofAuto().scope().getClass();

    /**
     * A piece of device memory.
     *
     * @param address where
     * @param bytes how much
     * @param allocated the stack at that time, if leaks are looked for
     */
    record Block(long address, long bytes, @Nullable Throwable allocated) {}

    private final CudaContext context;
    private final CudaStream stream;
    private final boolean pooled;
    private final boolean findsLeaks = Boolean.getBoolean(LEAKS_PROPERTY);
    private final Set<Block> live = Collections.newSetFromMap(new IdentityHashMap<>());

    CudaMemory(CudaContext context, CudaStream stream) {
        this.context = context;
        this.stream = stream;
        int ordinal = context.device().ordinal();
        pooled = CudaDriver.deviceAttribute(MEMORY_POOLS_SUPPORTED, ordinal) != 0;
        if (pooled) {
            CudaDriver.keepFreedMemory(ordinal);
        }
    }

    static long liveBlocks() {
        return LIVE_BLOCKS.get();
    }

    static long liveBytes() {
        return LIVE_BYTES.get();
    }

    /** At least one byte, for work that is queued from now on; its content is undefined. */
    Block allocate(long bytes) {
        context.refuseInCapture("an allocation of " + bytes + " bytes");
        AllocationEvent event = new AllocationEvent();
        event.begin();
        JCudaPointers.Device pointer = new JCudaPointers.Device();
        String call = pooled ? "cuMemAllocAsync" : "cuMemAlloc";
        int code =
                pooled
                        ? JCudaDriver.cuMemAllocAsync(pointer, bytes, stream.handle())
                        : JCudaDriver.cuMemAlloc(pointer, bytes);
        if (code != CudaDriver.SUCCESS) {
            context.check(code, call + " of " + bytes + " bytes");
        }
        Throwable allocated = findsLeaks ? new Throwable("allocated here") : null;
        Block block = new Block(pointer.address(), bytes, allocated);
        live.add(block);
        LIVE_BLOCKS.incrementAndGet();
        LIVE_BYTES.addAndGet(bytes);
        event.bytes = bytes;
        event.commit();
        return block;
    }

    /** After what is queued; nothing if the block is free already. */
    void free(Block block) {
        if (!live.remove(block)) {
            return;
        }
        forget(block);
        JCudaPointers.Device pointer = new JCudaPointers.Device(block.address);
        if (pooled) {
            context.checkRelease(
                    JCudaDriver.cuMemFreeAsync(pointer, stream.handle()), "cuMemFreeAsync");
        } else {
            context.checkRelease(JCudaDriver.cuMemFree(pointer), "cuMemFree");
        }
    }

    private static void forget(Block block) {
        LIVE_BLOCKS.decrementAndGet();
        LIVE_BYTES.addAndGet(-block.bytes);
    }

    /** Memory that is freed when the arena is closed. */
    @SuppressWarnings("restricted")
    MemorySegment allocate(Arena arena, long bytes) {
        if (bytes == 0) {
            return MemorySegment.NULL.reinterpret(0, arena, null);
        }
        Block block = allocate(bytes);
        MemorySegment segment;
        try {
            segment =
                    MemorySegment.ofAddress(block.address)
                            .reinterpret(bytes, arena, memory -> release(block));
        } catch (RuntimeException | Error e) {
            free(block);
            throw e;
        }
        if (findsLeaks && arena.scope().getClass() != AUTOMATIC) {
            CLEANER.register(arena.scope(), () -> reportUnreachable(block));
        }
        return segment;
    }

    /** Called by whoever closes an arena, at any time. */
    private void release(Block block) {
        if (context.enterIfOpen()) {
            try {
                free(block);
            } finally {
                context.exit();
            }
        }
    }

    private void reportUnreachable(Block block) {
        if (context.enterIfOpen()) {
            try {
                if (live.contains(block)) {
                    report("whose arena became unreachable without being closed", block);
                }
            } finally {
                context.exit();
            }
        }
    }

    private static void report(String what, Block block) {
        LOG.log(
                Level.WARNING,
                "jmoe: " + block.bytes + " bytes of device memory " + what,
                block.allocated);
    }

    /** Frees what is left, and says so. */
    @Override
    public void close() {
        if (live.isEmpty()) {
            return;
        }
        long bytes = 0;
        for (Block block : live) {
            bytes += block.bytes;
        }
        LOG.log(
                Level.WARNING,
                "jmoe: {0} device allocations of {1} bytes together were not freed before the"
                        + " backend was closed; start java with -D{2}=true to see where they come"
                        + " from",
                live.size(),
                bytes,
                LEAKS_PROPERTY);
        CudaException failure = null;
        for (Block block : List.copyOf(live)) {
            if (findsLeaks) {
                report("were not freed before the backend was closed", block);
            }
            try {
                free(block);
            } catch (CudaException e) {
                failure = failure == null ? e : failure;
            }
        }
        if (failure != null) {
            throw failure;
        }
    }
}
