package jmoe;

import jmoe.cuda.CudaDevice;
import jmoe.cuda.CudaKernels;
import jmoe.cuda.CudaProbe;
import jmoe.nativecpu.NativeKernels;
import jmoe.nativecpu.NativeLibrary;
import jmoe.nativecpu.NativeProbe;
import jmoe.ops.Kernels;
import jmoe.reference.ReferenceKernels;
import jmoe.threads.Workers;
import jmoe.vector.VectorKernels;

import org.jspecify.annotations.Nullable;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * The implementations of {@link Kernels}, slowest first. This enum alone names them; which one runs
 * is decided once, here, and said in one log line. After that a failing kernel throws; nothing is
 * retried elsewhere.
 */
public enum Backend {
    /** Plain loops in double precision on one thread: the law, not for speed. */
    REFERENCE,
    /** The Vector API on all cores. */
    VECTOR,
    /** Products with AMX, AVX-512 or AVX2 in C, on all cores; the rest as {@link #VECTOR}. */
    NATIVE,
    /** CUDA kernels on an NVIDIA GPU. */
    CUDA;

    /** System property that lowers the choice of {@link #best}: one of the names, in lower case. */
    public static final String LIMIT_PROPERTY = "jmoe.backend";

    private static final Logger LOG = System.getLogger("jmoe");

    /**
     * A backend and why it was taken.
     *
     * @param backend the fastest that can run here
     * @param why for each faster one the reason why it cannot, and the remedy
     */
    public record Choice(Backend backend, String why) {}

    /**
     * Why a backend cannot run here.
     *
     * @param reason what is missing
     * @param remedy what to do about it
     */
    public record Unavailable(String reason, String remedy) {}

    private static @Nullable Choice best;

    /**
     * The fastest backend that can run here; the first call writes one line to the log {@code
     * jmoe}.
     *
     * @return never null: {@link #REFERENCE} always runs
     * @throws IllegalArgumentException if {@link #LIMIT_PROPERTY} names no backend
     */
    public static Backend best() {
        return choice().backend;
    }

    /**
     * The decision behind {@link #best}, in words.
     *
     * @return backend and reasons
     */
    public static synchronized Choice choice() {
        if (best == null) {
            best = choose(System.getProperty(LIMIT_PROPERTY));
            LOG.log(Level.INFO, "jmoe: backend {0}: {1}", best.backend.description(), best.why);
        }
        return best;
    }

    static Choice choose(@Nullable String limit) {
        StringBuilder why = new StringBuilder("the fastest that runs here");
        List<Backend> fastestFirst = List.of(values()).reversed();
        if (limit != null) {
            fastestFirst = fastestFirst.subList(fastestFirst.indexOf(of(limit)), values().length);
            why.append(" within -D").append(LIMIT_PROPERTY).append('=').append(limit);
        }
        for (Backend backend : fastestFirst) {
            Optional<Unavailable> problem = backend.unavailable().or(backend::notChosen);
            if (problem.isEmpty()) {
                return new Choice(backend, why.toString());
            }
            why.append("; not ").append(backend.id()).append(": ").append(problem.get().reason);
            why.append(" (").append(problem.get().remedy).append(')');
        }
        throw new AssertionError("the reference always runs");
    }

    /**
     * Finds a backend by the name that users type.
     *
     * @param name for example {@code vector}
     * @return the backend
     * @throws IllegalArgumentException for any other name
     */
    public static Backend of(String name) {
        for (Backend backend : values()) {
            if (backend.id().equals(name)) {
                return backend;
            }
        }
        throw new IllegalArgumentException(
                "backend: expected reference, vector, native or cuda, got " + name);
    }

    /**
     * The name that users type.
     *
     * @return the constant in lower case
     */
    public String id() {
        return name().toLowerCase(Locale.ROOT);
    }

    /**
     * Name and what it runs on.
     *
     * @return for example {@code vector (256-bit vectors, 2 threads)}
     */
    public String description() {
        return description(defaultThreads());
    }

    /**
     * Name and what it runs on, when opened with some other number of threads.
     *
     * @param threads as given to {@link #open(int)}
     * @return for example {@code vector (256-bit vectors, 1 thread)}
     */
    public String description(int threads) {
        if (unavailable().isPresent()) {
            return id();
        }
        return switch (this) {
            case REFERENCE -> "reference (plain loops, 1 thread)";
            case VECTOR ->
                    "vector (" + VectorKernels.vectorBits() + "-bit vectors, " + count(threads);
            case NATIVE -> "native (" + nativeLibrary().tier().text() + ", " + count(threads);
            case CUDA -> "cuda (" + describe(CudaProbe.probe().device()) + ")";
        };
    }

    private static String count(int threads) {
        return threads + (threads == 1 ? " thread)" : " threads)");
    }

    /**
     * What this backend could make use of if the machine had it or the system allowed it.
     *
     * @return sentences, for example {@code no AMX: the system does not permit tiles}
     */
    public List<String> notes() {
        return this == NATIVE && unavailable().isEmpty() ? NativeProbe.probe().notes() : List.of();
    }

    /**
     * Whether this backend's device is an emulator, so that its times mean nothing.
     *
     * @return false for every CPU backend
     */
    public boolean emulated() {
        if (this != CUDA || unavailable().isPresent()) {
            return false;
        }
        CudaDevice device = CudaProbe.probe().device();
        return device != null && device.emulated();
    }

    private static String describe(@Nullable CudaDevice device) {
        if (device == null) {
            return "no device";
        }
        return device.emulated()
                ? device.name() + ": no GPU, times mean nothing"
                : device.name() + ", compute capability " + device.capabilityText();
    }

    /**
     * Why this backend cannot run here.
     *
     * @return reason and remedy, or empty if it can
     * @throws IllegalArgumentException if a system property of the backend has a value that it
     *     cannot have
     */
    public Optional<Unavailable> unavailable() {
        return switch (this) {
            case REFERENCE -> Optional.empty();
            case VECTOR ->
                    ModuleLayer.boot().findModule("jdk.incubator.vector").isPresent()
                            ? Optional.empty()
                            : Optional.of(
                                    new Unavailable(
                                            "the Vector API module is not loaded",
                                            "start java with --add-modules jdk.incubator.vector"));
            case NATIVE -> {
                Optional<Unavailable> problem = VECTOR.unavailable();
                if (problem.isPresent()) {
                    yield problem;
                }
                NativeProbe probe = NativeProbe.probe();
                yield probe.status() == NativeProbe.Status.OK
                        ? Optional.empty()
                        : Optional.of(new Unavailable(probe.reason(), probe.remedy()));
            }
            case CUDA -> {
                CudaProbe probe = CudaProbe.probe();
                yield probe.status() == CudaProbe.Status.OK
                        ? Optional.empty()
                        : Optional.of(new Unavailable(probe.reason(), probe.remedy()));
            }
        };
    }

    /**
     * Why cuBLAS cannot be used here, which the CUDA backend can do without.
     *
     * @return reason and remedy, or empty if it can
     */
    public static Optional<Unavailable> cublasUnavailable() {
        CudaProbe.Library cublas = CudaProbe.cublas();
        return cublas.present()
                ? Optional.empty()
                : Optional.of(new Unavailable(cublas.reason(), cublas.remedy()));
    }

    /** Why this backend runs here, but only for those who ask for it by name. */
    private Optional<Unavailable> notChosen() {
        return emulated()
                ? Optional.of(
                        new Unavailable(
                                "its driver is an emulator, for tests",
                                "it runs if asked for by name"))
                : Optional.empty();
    }

    /**
     * Starts the backend on all cores.
     *
     * @return kernels to be closed by the caller
     * @throws UnsupportedOperationException if it cannot run here, with reason and remedy
     */
    public Kernels open() {
        return open(defaultThreads());
    }

    /**
     * Starts the backend.
     *
     * @param threads worker threads of a CPU backend, at least 1
     * @return kernels to be closed by the caller
     * @throws UnsupportedOperationException if it cannot run here, with reason and remedy
     */
    public Kernels open(int threads) {
        if (threads < 1) {
            throw new IllegalArgumentException("threads: expected at least 1, got " + threads);
        }
        Optional<Unavailable> problem = unavailable();
        if (problem.isPresent()) {
            throw new UnsupportedOperationException(
                    "backend "
                            + id()
                            + ": "
                            + problem.get().reason
                            + "; "
                            + problem.get().remedy
                            + ", or take the backend "
                            + choose(null).backend.id());
        }
        return switch (this) {
            case VECTOR -> new VectorKernels(threads);
            case CUDA -> new CudaKernels();
            case REFERENCE -> new ReferenceKernels();
            case NATIVE -> {
                NativeLibrary library = nativeLibrary();
                Workers workers = new Workers(id(), threads);
                yield new NativeKernels(workers, new VectorKernels(workers), library);
            }
        };
    }

    private static NativeLibrary nativeLibrary() {
        NativeLibrary library = NativeProbe.probe().library();
        if (library == null) {
            throw new IllegalStateException("the native backend is not available");
        }
        return library;
    }

    private static int defaultThreads() {
        return Runtime.getRuntime().availableProcessors();
    }
}
