package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Assumptions;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.function.Consumer;

/**
 * Runs the kernels of native/conformance, each of which shows what one instruction does. Bytes go
 * in and come out; what lies between is only the instruction and its surroundings.
 */
final class Probes implements AutoCloseable {
    /** What device memory holds where no probe wrote. */
    static final byte UNWRITTEN = (byte) 0xee;

    /** The generation whose instructions most probes show. */
    static final int HOPPER = 90;

    private final CudaContext context;
    private final Arena arena = Arena.ofConfined();
    private final Map<String, CudaModule> modules = new HashMap<>();

    Probes() {
        CudaDevice device = CudaProbe.probe().device();
        if (device == null) {
            throw new IllegalStateException("there is no device");
        }
        context = new CudaContext(device);
    }

    /** Skips the test on a device of another generation than the instruction needs. */
    static void require(int capability) {
        CudaDevice device = CudaProbe.probe().device();
        int found = device == null ? 0 : device.capability();
        Assumptions.assumeTrue(
                capability == HOPPER ? found == HOPPER : found >= capability,
                "needs compute capability " + capability / 10.0 + ", has " + found / 10.0);
    }

    CudaContext context() {
        return context;
    }

    /** Where tensor maps and arguments live. */
    Arena arena() {
        return arena;
    }

    /** Device memory with some content. */
    long upload(byte[] content) {
        long address = allocate(content.length);
        write(address, content);
        return address;
    }

    /** Device memory in which every byte is {@link #UNWRITTEN}. */
    long output(int bytes) {
        byte[] content = new byte[bytes];
        Arrays.fill(content, UNWRITTEN);
        return upload(content);
    }

    private long allocate(int bytes) {
        context.enter();
        try {
            return context.memory().allocate(arena, bytes).address();
        } finally {
            context.exit();
        }
    }

    private void write(long address, byte[] content) {
        context.enter();
        try (Arena host = Arena.ofConfined()) {
            MemorySegment bytes = host.allocateFrom(JAVA_BYTE, content);
            context.staging().toDevice(bytes, address);
            context.stream().synchronise();
        } finally {
            context.exit();
        }
    }

    byte[] download(long address, int bytes) {
        context.enter();
        try (Arena host = Arena.ofConfined()) {
            MemorySegment content = host.allocate(bytes);
            context.staging().toHost(address, content);
            return content.toArray(JAVA_BYTE);
        } finally {
            context.exit();
        }
    }

    /**
     * Runs a kernel once.
     *
     * @param file its source, without {@code .cu}
     * @param symbol its name
     * @param sharedBytes dynamic shared memory
     * @param blocks how many
     * @param clusterBlocks how many of them make a cluster
     * @param arguments puts them in order
     */
    void run(
            String file,
            String symbol,
            int sharedBytes,
            int blocks,
            int clusterBlocks,
            Consumer<Launch> arguments) {
        context.enter();
        try {
            Launch launch = context.launch().of(kernel(file, symbol, sharedBytes));
            arguments.accept(launch);
            if (clusterBlocks == 1) {
                launch.run(blocks);
            } else {
                launch.runCluster(blocks, 1, clusterBlocks, false);
            }
            context.stream().synchronise();
        } finally {
            context.exit();
        }
    }

    /** Does what is given, which queues, and waits for the device. */
    void together(Runnable launches) {
        context.enter();
        try {
            launches.run();
            context.stream().synchronise();
        } finally {
            context.exit();
        }
    }

    /**
     * Queues a kernel.
     *
     * @param file its source, without {@code .cu}
     * @param symbol its name
     * @param blocks how many
     * @param early whether it may start before the one in front of it has ended
     * @param arguments puts them in order
     */
    void queue(String file, String symbol, int blocks, boolean early, Consumer<Launch> arguments) {
        Launch launch = context.launch().of(kernel(file, symbol, 0));
        arguments.accept(launch);
        launch.runCluster(blocks, 1, 1, early);
    }

    private CudaKernel kernel(String file, String symbol, int sharedBytes) {
        CudaKernel kernel =
                modules.computeIfAbsent(file, name -> context.module("conformance/" + name))
                        .kernel(symbol);
        return new CudaKernel(
                symbol,
                kernel.function(),
                kernel.threads(),
                kernel.itemsPerBlock(),
                sharedBytes,
                kernel.cluster(),
                kernel.residentBlocks(),
                kernel.parameterBytes());
    }

    /** Runs a kernel of one block that reads {@code in} and writes {@code out}. */
    byte[] run(String file, String symbol, byte[] in, int outBytes) {
        long input = upload(in);
        long output = output(outBytes);
        run(file, symbol, 0, 1, 1, launch -> launch.pointer(input).pointer(output));
        return download(output, outBytes);
    }

    /** A view for tensor maps. */
    static Tensor tensor(long address, DType dtype, long... shape) {
        return Tensor.device(address, dtype, shape);
    }

    @Override
    public void close() {
        arena.close();
        context.close();
    }
}
