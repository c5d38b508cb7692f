package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jcuda.driver.CUdevice;
import jcuda.driver.JCudaDriver;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The primary context of a device with one stream, and whose turn it is to use it. Everything that
 * talks to the driver does so between {@link #enter} and {@link #exit}: one thread at a time, with
 * the context current. The context that the thread had before is current again afterwards.
 */
final class CudaContext implements AutoCloseable {
    /** System property: wait for every kernel, so that the one that fails is named. */
    static final String SYNC_PROPERTY = "jmoe.sync";

    private final CudaDevice device;
    private final CUdevice driverDevice = new CUdevice();
    private final JCudaPointers.Context handle = new JCudaPointers.Context();
    private final boolean waitsForKernels = Boolean.getBoolean(SYNC_PROPERTY);
    private final ReentrantLock turn = new ReentrantLock();
    private final Arena arena = Arena.ofShared();
    private final MemorySegment currentOut = arena.allocate(JAVA_LONG);

    /** Nested turns of the thread that has it. */
    private int depth;

    /** What was current before the turn. */
    private long previous;

    private boolean retained;
    private volatile boolean closed;
    private boolean lost;
    private @Nullable String lastKernel;

    /** Whether what is queued goes into a graph instead of to the device. */
    private boolean capturing;

    private final List<CudaModule> modules = new ArrayList<>();
    private final Set<CudaGraph> graphs = new HashSet<>();
    private final CudaStream stream;
    private final CudaMemory memory;
    private final Scratch scratch;
    private final Arrivals arrivals;
    private final Staging staging;
    private final Launch launch;
    private final TensorMap tensorMap;

    /** The driver must be initialised and have the device. */
    CudaContext(CudaDevice device) {
        this.device = device;
        try {
            retain();
            enter();
            try {
                stream = new CudaStream(this);
                memory = new CudaMemory(this, stream);
                scratch = new Scratch(memory);
                arrivals = new Arrivals(memory, stream);
                staging = new Staging(this, stream);
                launch = new Launch(this, stream, arena);
                tensorMap = new TensorMap(this, arena);
            } finally {
                exit();
            }
        } catch (RuntimeException | Error e) {
            release();
            throw e;
        }
    }

    private void retain() {
        check(init(), "cuInit");
        check(JCudaDriver.cuDeviceGet(driverDevice, device.ordinal()), "cuDeviceGet");
        check(
                JCudaDriver.cuDevicePrimaryCtxRetain(handle, driverDevice),
                "cuDevicePrimaryCtxRetain");
        retained = true;
    }

    /** The first use of JCuda, which unpacks its native code under a fixed name and trusts it. */
    private static int init() {
        try {
            return JCudaDriver.cuInit(0);
        } catch (LinkageError e) {
            throw new UnsupportedOperationException(
                    "CUDA: JCuda's native library cannot be loaded; if a libJCudaDriver is in "
                            + System.getProperty("java.io.tmpdir")
                            + " remove it, or set -Djava.io.tmpdir",
                    e);
        }
    }

    CudaDevice device() {
        return device;
    }

    /** Where everything is queued. */
    CudaStream stream() {
        return stream;
    }

    CudaMemory memory() {
        return memory;
    }

    Scratch scratch() {
        return scratch;
    }

    Arrivals arrivals() {
        return arrivals;
    }

    Staging staging() {
        return staging;
    }

    Launch launch() {
        return launch;
    }

    TensorMap tensorMap() {
        return tensorMap;
    }

    /** The kernels of a source file, unloaded with the context. */
    CudaModule module(String name) {
        CudaModule module = new CudaModule(this, name);
        modules.add(module);
        return module;
    }

    /** A graph to be destroyed with the context. */
    void add(CudaGraph graph) {
        graphs.add(graph);
    }

    void remove(CudaGraph graph) {
        graphs.remove(graph);
    }

    void setCapturing(boolean capturing) {
        this.capturing = capturing;
    }

    /** Fails if a graph is being captured, which could not hold this. */
    void refuseInCapture(String what) {
        if (capturing) {
            throw new IllegalStateException(
                    "capture: expected operations that have run before, on tensors of the device,"
                            + " got "
                            + what
                            + "; run them once with the same types and sizes, and keep the host"
                            + " out");
        }
    }

    /** Fails if the context is closed. */
    void checkOpen() {
        if (closed) {
            throw new IllegalStateException(
                    "the CUDA backend is closed; close it after its last use");
        }
    }

    /**
     * Waits for the turn of this thread and makes the context current. May be nested.
     *
     * @throws IllegalStateException if the context is closed
     */
    void enter() {
        boolean entered = false;
        turn.lock();
        try {
            if (depth == 0) {
                checkOpen();
                makeCurrent();
            }
            depth++;
            entered = true;
        } finally {
            if (!entered) {
                turn.unlock();
            }
        }
    }

    /** The same, unless the context is closed: then there is no turn to end. */
    boolean enterIfOpen() {
        boolean open = false;
        turn.lock();
        try {
            if (!closed) {
                enter();
                open = true;
            }
        } finally {
            turn.unlock();
        }
        return open;
    }

    /** Ends the turn. */
    void exit() {
        try {
            if (--depth == 0) {
                restoreCurrent();
            }
        } finally {
            turn.unlock();
        }
    }

    private void restoreCurrent() {
        if (previous != 0 && previous != handle.address()) {
            CudaDriver.setCurrentContext(previous);
        }
    }

    /** Asking is as cheap as remembering, and stays right when others change it. */
    private void makeCurrent() {
        check(CudaDriver.getCurrentContext(currentOut), "cuCtxGetCurrent");
        previous = currentOut.get(JAVA_LONG, 0);
        if (previous != handle.address()) {
            check(CudaDriver.setCurrentContext(handle.address()), "cuCtxSetCurrent");
        }
    }

    /** Turns the driver's answer into an exception. */
    void check(int code, String call) {
        if (code != CudaDriver.SUCCESS) {
            lost |= CudaException.isLost(code);
            throw CudaException.of(code, call, lastKernel);
        }
    }

    /** The same, for what gives back memory and handles: a lost context has none. */
    void checkRelease(int code, String call) {
        if (!lost) {
            check(code, call);
        }
    }

    /** A kernel was handed to the driver, which answered: exceptions name it from now on. */
    void launched(String kernel, int code, String call) {
        lastKernel = kernel;
        check(code, call);
        if (waitsForKernels && !capturing) {
            stream.synchronise();
        }
    }

    /**
     * Waits for the device and gives back everything, also what its users forgot.
     *
     * @throws CudaException if something failed on the device that nobody has been told of
     */
    @Override
    public void close() {
        turn.lock();
        try {
            if (closed) {
                return;
            }
            closed = true;
            boolean known = lost;
            CudaException failure = null;
            try {
                makeCurrent();
                stream.synchronise();
            } catch (CudaException e) {
                failure = known ? null : e;
            }
            for (Runnable part : parts()) {
                try {
                    part.run();
                } catch (CudaException e) {
                    failure = failure == null ? e : failure;
                }
            }
            restoreCurrent();
            release();
            if (failure != null) {
                throw failure;
            }
        } finally {
            turn.unlock();
        }
    }

    /** What has to be closed, each even if another could not be. */
    private List<Runnable> parts() {
        List<Runnable> parts = new ArrayList<>();
        parts.add(staging::close);
        parts.add(scratch::close);
        parts.add(arrivals::close);
        parts.add(memory::close);
        graphs.forEach(graph -> parts.add(graph::destroy));
        modules.forEach(module -> parts.add(module::close));
        parts.add(stream::close);
        return parts;
    }

    /** A lost context would answer every later user with the same error. */
    private void release() {
        if (retained) {
            int code = CudaDriver.getCurrentContext(currentOut);
            if (code == CudaDriver.SUCCESS && currentOut.get(JAVA_LONG, 0) == handle.address()) {
                CudaDriver.setCurrentContext(0);
            }
            JCudaDriver.cuDevicePrimaryCtxRelease(driverDevice);
            if (lost) {
                JCudaDriver.cuDevicePrimaryCtxReset(driverDevice);
            }
        }
        arena.close();
    }
}
