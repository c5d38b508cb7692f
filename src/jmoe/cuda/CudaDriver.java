package jmoe.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Optional;

/**
 * The driver library and those of its functions that JCuda lacks, or that must be called before
 * JCuda may be touched, or that JCuda is slow at: a launch by JCuda's documented idiom takes
 * microseconds.
 *
 * <p>The library stays loaded once this class is; JCuda's native code then binds to the same one,
 * because the loader knows it by its soname. A function that the driver lacks throws {@link
 * UnsupportedOperationException} when it is called. Handles are passed as numbers.
 */
@SuppressWarnings("restricted")
final class CudaDriver {
    /** System property: path of the driver library. */
    static final String LIBRARY_PROPERTY = "jmoe.cuda.driver";

    /** Soname of the driver library. */
    static final String DEFAULT_LIBRARY = "libcuda.so.1";

    static final int SUCCESS = 0;
    static final int NO_DEVICE = 100;
    static final int NOT_READY = 600;

    private static final SymbolLookup LIBRARY;

    /** Why there is no library, or null. */
    private static final @Nullable Throwable FAILURE;

    static {
        SymbolLookup library = name -> Optional.empty();
        Throwable failure = null;
        try {
            String path = System.getProperty(LIBRARY_PROPERTY);
            library =
                    path == null
                            ? SymbolLookup.libraryLookup(DEFAULT_LIBRARY, Arena.global())
                            : SymbolLookup.libraryLookup(Path.of(path), Arena.global());
        } catch (IllegalArgumentException | IllegalCallerException e) {
            failure = e;
        }
        LIBRARY = library;
        FAILURE = failure;
    }

    private static final @Nullable MethodHandle INIT = function("cuInit", JAVA_INT);
    private static final @Nullable MethodHandle DRIVER_GET_VERSION =
            function("cuDriverGetVersion", ADDRESS);
    private static final @Nullable MethodHandle DEVICE_GET_COUNT =
            function("cuDeviceGetCount", ADDRESS);
    private static final @Nullable MethodHandle DEVICE_GET_ATTRIBUTE =
            function("cuDeviceGetAttribute", ADDRESS, JAVA_INT, JAVA_INT);
    private static final @Nullable MethodHandle DEVICE_GET_NAME =
            function("cuDeviceGetName", ADDRESS, JAVA_INT, JAVA_INT);
    private static final @Nullable MethodHandle DEVICE_TOTAL_MEM =
            function("cuDeviceTotalMem_v2", ADDRESS, JAVA_INT);
    private static final @Nullable MethodHandle DEVICE_GET_DEFAULT_MEM_POOL =
            function("cuDeviceGetDefaultMemPool", ADDRESS, JAVA_INT);
    private static final @Nullable MethodHandle MEM_POOL_SET_ATTRIBUTE =
            function("cuMemPoolSetAttribute", JAVA_LONG, JAVA_INT, ADDRESS);
    private static final @Nullable MethodHandle CTX_GET_CURRENT =
            function("cuCtxGetCurrent", ADDRESS);
    private static final @Nullable MethodHandle CTX_SET_CURRENT =
            function("cuCtxSetCurrent", JAVA_LONG);
    private static final @Nullable MethodHandle FUNC_GET_PARAM_INFO =
            function("cuFuncGetParamInfo", JAVA_LONG, JAVA_LONG, ADDRESS, ADDRESS);
    private static final @Nullable MethodHandle LAUNCH_KERNEL =
            function(
                    "cuLaunchKernel",
                    JAVA_LONG,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG);
    private static final @Nullable MethodHandle LAUNCH_KERNEL_EX =
            function("cuLaunchKernelEx", ADDRESS, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final @Nullable MethodHandle MAX_ACTIVE_CLUSTERS =
            function("cuOccupancyMaxActiveClusters", ADDRESS, JAVA_LONG, ADDRESS);
    private static final @Nullable MethodHandle TENSOR_MAP_ENCODE_TILED =
            function(
                    "cuTensorMapEncodeTiled",
                    ADDRESS,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_LONG,
                    ADDRESS,
                    ADDRESS,
                    ADDRESS,
                    ADDRESS,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_INT,
                    JAVA_INT);
    private static final @Nullable MethodHandle GET_ERROR_NAME =
            function("cuGetErrorName", JAVA_INT, ADDRESS);
    private static final @Nullable MethodHandle GET_ERROR_STRING =
            function("cuGetErrorString", JAVA_INT, ADDRESS);

    private CudaDriver() {}

    private static @Nullable MethodHandle function(String symbol, MemoryLayout... parameters) {
        return LIBRARY.find(symbol)
                .map(address ->
                        Linker.nativeLinker()
                                .downcallHandle(
                                        address, FunctionDescriptor.of(JAVA_INT, parameters)))
                .orElse(null);
    }

    /** Why the library cannot be loaded, or null if it is. */
    static @Nullable Throwable loadFailure() {
        return FAILURE;
    }

    /** Whether the driver has a function. */
    static boolean has(String symbol) {
        return LIBRARY.find(symbol).isPresent();
    }

    /** The library as users name it. */
    static String libraryName() {
        return System.getProperty(LIBRARY_PROPERTY, DEFAULT_LIBRARY);
    }

    /** What stands in for a GPU, or null if it is one. */
    static @Nullable String emulatorName() {
        MemorySegment symbol = LIBRARY.find("jmoeEmulatorName").orElse(null);
        if (symbol == null) {
            return null;
        }
        MethodHandle function =
                Linker.nativeLinker().downcallHandle(symbol, FunctionDescriptor.of(ADDRESS));
        try {
            return text((MemorySegment) function.invokeExact());
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    static int init() {
        try {
            return (int) available(INIT, "cuInit").invokeExact(0);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** 1000 major + 10 minor of the newest CUDA that the driver supports. */
    static int driverVersion() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment version = arena.allocate(JAVA_INT);
            int code =
                    (int) available(DRIVER_GET_VERSION, "cuDriverGetVersion").invokeExact(version);
            check(code, "cuDriverGetVersion");
            return version.get(JAVA_INT, 0);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    static int deviceCount() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment count = arena.allocate(JAVA_INT);
            int code = (int) available(DEVICE_GET_COUNT, "cuDeviceGetCount").invokeExact(count);
            check(code, "cuDeviceGetCount");
            return count.get(JAVA_INT, 0);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** One of the numbers of enum CUdevice_attribute. */
    static int deviceAttribute(int attribute, int ordinal) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment value = arena.allocate(JAVA_INT);
            int code =
                    (int)
                            available(DEVICE_GET_ATTRIBUTE, "cuDeviceGetAttribute")
                                    .invokeExact(value, attribute, ordinal);
            check(code, "cuDeviceGetAttribute");
            return value.get(JAVA_INT, 0);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    static String deviceName(int ordinal) {
        try (Arena arena = Arena.ofConfined()) {
            int bytes = 256;
            MemorySegment name = arena.allocate(bytes);
            int code =
                    (int)
                            available(DEVICE_GET_NAME, "cuDeviceGetName")
                                    .invokeExact(name, bytes, ordinal);
            check(code, "cuDeviceGetName");
            return name.getString(0);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    static long deviceBytes(int ordinal) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment bytes = arena.allocate(JAVA_LONG);
            int code =
                    (int)
                            available(DEVICE_TOTAL_MEM, "cuDeviceTotalMem")
                                    .invokeExact(bytes, ordinal);
            check(code, "cuDeviceTotalMem");
            return bytes.get(JAVA_LONG, 0);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** Lets the device's memory pool keep what is freed, for the next allocation. */
    static void keepFreedMemory(int ordinal) {
        int releaseThreshold = 4;
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment pool = arena.allocate(JAVA_LONG);
            int code =
                    (int)
                            available(DEVICE_GET_DEFAULT_MEM_POOL, "cuDeviceGetDefaultMemPool")
                                    .invokeExact(pool, ordinal);
            check(code, "cuDeviceGetDefaultMemPool");
            MemorySegment unlimited = arena.allocateFrom(JAVA_LONG, -1L);
            code =
                    (int)
                            available(MEM_POOL_SET_ATTRIBUTE, "cuMemPoolSetAttribute")
                                    .invokeExact(
                                            pool.get(JAVA_LONG, 0), releaseThreshold, unlimited);
            check(code, "cuMemPoolSetAttribute");
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** The calling thread's context goes to the eight bytes of {@code out}. */
    static int getCurrentContext(MemorySegment out) {
        try {
            return (int) available(CTX_GET_CURRENT, "cuCtxGetCurrent").invokeExact(out);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    static int setCurrentContext(long context) {
        try {
            return (int) available(CTX_SET_CURRENT, "cuCtxSetCurrent").invokeExact(context);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /**
     * Bytes of each parameter of a kernel.
     *
     * @return null if the driver cannot tell
     */
    static int @Nullable [] parameterBytes(long function) {
        MethodHandle info = FUNC_GET_PARAM_INFO;
        if (info == null) {
            return null;
        }
        int[] sizes = new int[Launch.MAX_PARAMETERS];
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment offset = arena.allocate(JAVA_LONG);
            MemorySegment bytes = arena.allocate(JAVA_LONG);
            int count = 0;
            while ((int) info.invokeExact(function, (long) count, offset, bytes) == SUCCESS) {
                sizes[count++] = (int) bytes.get(JAVA_LONG, 0);
            }
            return Arrays.copyOf(sizes, count);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** Parameters are the address of an array of addresses. */
    static int launchKernel(
            long function,
            int gridX,
            int gridY,
            int gridZ,
            int threads,
            int sharedBytes,
            long stream,
            long parameters) {
        try {
            return (int)
                    available(LAUNCH_KERNEL, "cuLaunchKernel")
                            .invokeExact(
                                    function,
                                    gridX,
                                    gridY,
                                    gridZ,
                                    threads,
                                    1,
                                    1,
                                    sharedBytes,
                                    stream,
                                    parameters,
                                    0L);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** With a CUlaunchConfig. */
    static int launchKernelEx(MemorySegment config, long function, long parameters) {
        try {
            return (int)
                    available(LAUNCH_KERNEL_EX, "cuLaunchKernelEx")
                            .invokeExact(config, function, parameters, 0L);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** How many clusters the device runs at once goes to the four bytes of {@code out}. */
    static int maxActiveClusters(MemorySegment out, long function, MemorySegment config) {
        try {
            return (int)
                    available(MAX_ACTIVE_CLUSTERS, "cuOccupancyMaxActiveClusters")
                            .invokeExact(out, function, config);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /** The descriptor that the tensor memory accelerator reads; see cuda.h. */
    static int encodeTiled(
            MemorySegment map,
            int dataType,
            int rank,
            long address,
            MemorySegment dims,
            MemorySegment strideBytes,
            MemorySegment box,
            MemorySegment elementStrides,
            int interleave,
            int swizzle,
            int promotion,
            int fill) {
        try {
            return (int)
                    available(TENSOR_MAP_ENCODE_TILED, "cuTensorMapEncodeTiled")
                            .invokeExact(
                                    map,
                                    dataType,
                                    rank,
                                    address,
                                    dims,
                                    strideBytes,
                                    box,
                                    elementStrides,
                                    interleave,
                                    swizzle,
                                    promotion,
                                    fill);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    static String errorName(int code) {
        return errorText(GET_ERROR_NAME, "cuGetErrorName", code, "CUDA_ERROR");
    }

    static String errorText(int code) {
        return errorText(GET_ERROR_STRING, "cuGetErrorString", code, "unknown error");
    }

    private static String errorText(
            @Nullable MethodHandle function, String symbol, int code, String unknown) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ADDRESS);
            int result = (int) available(function, symbol).invokeExact(code, out);
            MemorySegment text = out.get(ADDRESS, 0);
            return result == SUCCESS && text.address() != 0 ? text(text) : unknown;
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    private static void check(int code, String call) {
        if (code != SUCCESS) {
            throw CudaException.of(code, call, null);
        }
    }

    private static MethodHandle available(@Nullable MethodHandle function, String symbol) {
        if (function == null) {
            throw new UnsupportedOperationException(
                    symbol
                            + ": the CUDA driver "
                            + libraryName()
                            + " lacks this function; install NVIDIA driver "
                            + CudaProbe.OLDEST_DRIVER
                            + " or later");
        }
        return function;
    }

    private static String text(MemorySegment characters) {
        return characters.reinterpret(Long.MAX_VALUE).getString(0);
    }

    /** A call into C throws nothing; what is thrown around it is unchecked. */
    private static RuntimeException unexpected(Throwable e) {
        return switch (e) {
            case RuntimeException r -> r;
            case Error error -> throw error;
            default -> new IllegalStateException(e);
        };
    }
}
