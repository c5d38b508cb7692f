package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import jcuda.Pointer;
import jcuda.driver.CUfunction;
import jcuda.driver.CUfunction_attribute;
import jcuda.driver.CUmodule;
import jcuda.driver.JCudaDriver;

import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The kernels of one source file, loaded on first use. Not for use outside a turn of its context.
 */
final class CudaModule implements AutoCloseable {
    /** The source files. */
    static final List<String> NAMES =
            List.of(
                    "jitter",
                    "shape_logits",
                    "route",
                    "route_capacity",
                    "route_rare",
                    "route_hash",
                    "route_scale",
                    "sort_by_expert",
                    "permute",
                    "grouped_gemm",
                    "grouped_gemm_mma",
                    "grouped_gemm_sm90",
                    "swiglu",
                    "unpermute",
                    "singleton_experts",
                    "constant_experts",
                    "normalise_rows",
                    "soft_dispatch",
                    "soft_combine",
                    "decode_route",
                    "decode_mma",
                    "decode_sm90");

    /** Dynamic shared memory that every kernel may have; more must be asked for. */
    private static final int DEFAULT_SHARED_BYTES = 48 << 10;

    private final CudaContext context;
    private final String name;
    private final Map<String, CudaKernel> kernels = new HashMap<>();

    /** By the codes of two types. */
    private final @Nullable CudaKernel[] typed = new CudaKernel[9];

    private @Nullable CUmodule module;

    /**
     * A module that is not loaded yet.
     *
     * @param context where
     * @param name one of {@link #NAMES}
     */
    CudaModule(CudaContext context, String name) {
        this.context = context;
        this.name = name;
    }

    /** The first image that this build of jmoe lacks, or null. */
    static @Nullable String missingImage() {
        for (String name : NAMES) {
            if (CudaModule.class.getResource(resource(name)) == null) {
                return name + ".fatbin";
            }
        }
        return null;
    }

    private static String resource(String name) {
        return "/jmoe/kernels/" + name + ".fatbin";
    }

    /** The kernel of a symbol. */
    CudaKernel kernel(String symbol) {
        CudaKernel kernel = kernels.get(symbol);
        if (kernel == null) {
            kernel = find(symbol);
            kernels.put(symbol, kernel);
        }
        return kernel;
    }

    /** The kernel named after the module and two types, for example {@code permute_f32_bf16}. */
    CudaKernel kernel(DType first, DType second) {
        int index = 3 * KernelCodes.of(first) + KernelCodes.of(second);
        CudaKernel kernel = typed[index];
        if (kernel == null) {
            kernel = kernel(name + "_" + suffix(first) + "_" + suffix(second));
            typed[index] = kernel;
        }
        return kernel;
    }

    private static String suffix(DType dtype) {
        return switch (dtype) {
            case F32 -> "f32";
            case F16 -> "f16";
            default -> "bf16";
        };
    }

    private CudaKernel find(String symbol) {
        context.refuseInCapture("the first use of " + symbol);
        CUmodule loaded = load();
        JCudaPointers.Function function = new JCudaPointers.Function();
        context.check(
                JCudaDriver.cuModuleGetFunction(function, loaded, symbol),
                "cuModuleGetFunction of " + symbol);
        int[] info = launchInfo(loaded, symbol);
        int sharedBytes = info[2];
        if (sharedBytes > DEFAULT_SHARED_BYTES) {
            context.check(
                    JCudaDriver.cuFuncSetAttribute(
                            function,
                            CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                            sharedBytes),
                    "cuFuncSetAttribute of " + symbol);
        }
        CudaKernel kernel =
                new CudaKernel(
                        symbol,
                        function.address(),
                        info[0],
                        info[1],
                        sharedBytes,
                        info[3],
                        0,
                        CudaDriver.parameterBytes(function.address()));
        return kernel.withResidentBlocks(
                kernel.cluster() > 1
                        ? kernel.cluster() * residentClusters(kernel)
                        : residentBlocks(function, symbol, info[0], sharedBytes));
    }

    /**
     * The multiprocessors of a cluster are neighbours, and some may lack one; of a grid with a
     * cluster too many each block would have to wait for that one.
     */
    private int residentClusters(CudaKernel kernel) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment clusters = arena.allocate(JAVA_INT);
            MemorySegment config =
                    new LaunchConfig(arena)
                            .fill(kernel, kernel.cluster(), 1, kernel.cluster(), false, 0);
            context.check(
                    CudaDriver.maxActiveClusters(clusters, kernel.function(), config),
                    "cuOccupancyMaxActiveClusters of " + kernel.name());
            return clusters.get(JAVA_INT, 0);
        }
    }

    private int residentBlocks(CUfunction function, String symbol, int threads, int sharedBytes) {
        int[] perMultiprocessor = new int[1];
        context.check(
                JCudaDriver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
                        perMultiprocessor, function, threads, sharedBytes),
                "cuOccupancyMaxActiveBlocksPerMultiprocessor of " + symbol);
        return perMultiprocessor[0] * context.device().multiprocessors();
    }

    /** Threads, items per block, shared bytes, cluster: constants in the kernel's source. */
    private int[] launchInfo(CUmodule loaded, String symbol) {
        JCudaPointers.Device constant = new JCudaPointers.Device();
        long[] bytes = new long[1];
        context.check(
                JCudaDriver.cuModuleGetGlobal(constant, bytes, loaded, symbol + "_launch"),
                "cuModuleGetGlobal of " + symbol + "_launch");
        int[] info = new int[4];
        if (bytes[0] != 4L * info.length) {
            throw new IllegalStateException(
                    symbol + "_launch: expected 16 bytes, got " + bytes[0] + "; build jmoe anew");
        }
        context.check(
                JCudaDriver.cuMemcpyDtoH(Pointer.to(info), constant, bytes[0]), "cuMemcpyDtoH");
        return info;
    }

    private CUmodule load() {
        CUmodule loaded = module;
        if (loaded == null) {
            loaded = new CUmodule();
            context.check(
                    JCudaDriver.cuModuleLoadData(loaded, image()),
                    "cuModuleLoadData of " + name + ".fatbin");
            module = loaded;
        }
        return loaded;
    }

    private byte[] image() {
        try (InputStream resource = CudaModule.class.getResourceAsStream(resource(name))) {
            if (resource != null) {
                return resource.readAllBytes();
            }
            if (context.device().emulated()) {
                return new byte[1]; // the emulator has the kernels built in
            }
            throw new UnsupportedOperationException(
                    "this build of jmoe lacks "
                            + name
                            + ".fatbin; build jmoe with nvcc of CUDA 13.0 on the PATH");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @Override
    public void close() {
        if (module != null) {
            context.checkRelease(JCudaDriver.cuModuleUnload(module), "cuModuleUnload");
        }
    }
}
