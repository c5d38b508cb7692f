package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * A kernel's arguments on their way to the driver, which copies them when the kernel is launched:
 * {@code launch.of(kernel).pointer(x).int32(rows).run(blocks)}. One block of memory serves all
 * launches of a stream, so that a launch allocates nothing. Not for use outside a turn of its
 * context.
 */
final class Launch {
    /** More than any kernel of ours has. */
    static final int MAX_PARAMETERS = 64;

    /** What a kernel's parameters may take together. */
    private static final int VALUE_BYTES = 4096;

    private static final long MAX_ALIGNMENT = 128;

    private final CudaContext context;
    private final CudaStream stream;

    /** The addresses of the values, then the values. */
    private final MemorySegment addresses;

    private final MemorySegment values;
    private final LaunchConfig config;

    private @Nullable CudaKernel kernel;
    private int parameters;
    private long used;

    Launch(CudaContext context, CudaStream stream, Arena arena) {
        this.context = context;
        this.stream = stream;
        addresses = arena.allocate(8L * MAX_PARAMETERS, 8);
        values = arena.allocate(VALUE_BYTES, MAX_ALIGNMENT);
        config = new LaunchConfig(arena);
    }

    /** Begins anew. */
    Launch of(CudaKernel next) {
        kernel = next;
        parameters = 0;
        used = 0;
        return this;
    }

    /** A device address, 0 for none. */
    Launch pointer(long address) {
        values.set(JAVA_LONG, place(8, 8), address);
        return this;
    }

    Launch int32(int value) {
        values.set(JAVA_INT, place(4, 4), value);
        return this;
    }

    Launch int64(long value) {
        values.set(JAVA_LONG, place(8, 8), value);
        return this;
    }

    Launch float32(float value) {
        values.set(JAVA_FLOAT, place(4, 4), value);
        return this;
    }

    Launch float64(double value) {
        values.set(JAVA_DOUBLE, place(8, 8), value);
        return this;
    }

    /** A structure, by value. */
    Launch struct(MemorySegment bytes, long alignment) {
        long at = place(bytes.byteSize(), alignment);
        MemorySegment.copy(bytes, 0, values, at, bytes.byteSize());
        return this;
    }

    /** Offset of the next value; remembers its address. */
    private long place(long bytes, long alignment) {
        int[] expected = current().parameterBytes();
        if (expected != null && (parameters >= expected.length || expected[parameters] != bytes)) {
            throw mismatch(bytes + " bytes for parameter " + parameters, expected);
        }
        long at = (used + alignment - 1) & -alignment;
        used = at + bytes;
        addresses.setAtIndex(JAVA_LONG, parameters++, values.address() + at);
        return at;
    }

    /** What the driver is handed: the addresses of the arguments so far. */
    MemorySegment parameters(int count) {
        return addresses.asSlice(0, 8L * count);
    }

    private CudaKernel current() {
        if (kernel == null) {
            throw new IllegalStateException("a launch begins with its kernel");
        }
        return kernel;
    }

    /** The image is not of the source that this class was written for. */
    private IllegalStateException mismatch(String got, int[] expected) {
        String name = current().name();
        kernel = null;
        return new IllegalStateException(
                name
                        + ": expected "
                        + expected.length
                        + " parameters of "
                        + Arrays.toString(expected)
                        + " bytes, got "
                        + got
                        + "; build jmoe anew");
    }

    /** Queues the kernel; no blocks, no launch. */
    void run(long gridX) {
        run(gridX, 1);
    }

    /** Queues the kernel on a grid of two dimensions, in its clusters; no blocks, no launch. */
    void run(long gridX, long gridY) {
        int cluster = current().cluster();
        if (cluster > 1) {
            runCluster(gridX, gridY, cluster, false);
            return;
        }
        CudaKernel launched = complete();
        if (gridX == 0 || gridY == 0) {
            return;
        }
        LaunchEvent event = new LaunchEvent();
        event.begin();
        int code =
                CudaDriver.launchKernel(
                        launched.function(),
                        Math.toIntExact(gridX),
                        Math.toIntExact(gridY),
                        1,
                        launched.threads(),
                        launched.sharedBytes(),
                        stream.address(),
                        addresses.address());
        finish(event, launched, code, gridX, gridY, "cuLaunchKernel");
    }

    /**
     * Queues the kernel in clusters of blocks.
     *
     * @param gridX blocks, a multiple of the cluster's
     * @param gridY blocks in the second dimension
     * @param clusterX blocks of a cluster; 1 for none
     * @param early whether the kernel may start before the one in front of it has ended, and waits
     *     by itself for what it needs
     */
    void runCluster(long gridX, long gridY, int clusterX, boolean early) {
        CudaKernel launched = complete();
        if (gridX == 0 || gridY == 0) {
            return;
        }
        if (clusterX > 1 && gridX % clusterX != 0) {
            throw new IllegalArgumentException(
                    launched.name()
                            + ": expected a multiple of "
                            + clusterX
                            + " blocks, got "
                            + gridX
                            + "; round up");
        }
        LaunchEvent event = new LaunchEvent();
        event.begin();
        MemorySegment filled =
                config.fill(
                        launched,
                        Math.toIntExact(gridX),
                        Math.toIntExact(gridY),
                        clusterX,
                        early,
                        stream.address());
        int code = CudaDriver.launchKernelEx(filled, launched.function(), addresses.address());
        finish(event, launched, code, gridX, gridY, "cuLaunchKernelEx");
    }

    private CudaKernel complete() {
        CudaKernel complete = current();
        int[] expected = complete.parameterBytes();
        if (expected != null && parameters != expected.length) {
            throw mismatch(parameters + " parameters", expected);
        }
        kernel = null;
        return complete;
    }

    private void finish(
            LaunchEvent event, CudaKernel launched, int code, long gridX, long gridY, String call) {
        context.launched(launched.name(), code, call);
        event.end();
        if (event.shouldCommit()) {
            event.kernel = launched.name();
            event.gridX = (int) gridX;
            event.gridY = (int) gridY;
            event.threads = launched.threads();
            event.sharedBytes = launched.sharedBytes();
            event.commit();
        }
    }

    /** A size that kernels count in 32 bits. */
    static int int32(String name, long value) {
        if (value > Integer.MAX_VALUE) {
            throw new UnsupportedOperationException(
                    name
                            + ": expected less than 2^31 for the CUDA backend, got "
                            + value
                            + "; use the reference backend");
        }
        return (int) value;
    }
}
