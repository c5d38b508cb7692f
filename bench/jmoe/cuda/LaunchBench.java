package jmoe.cuda;

import jmoe.ops.Activation;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

import java.lang.foreign.Arena;
import java.util.concurrent.TimeUnit;

/**
 * What a launch costs the host. On the emulator launches are dropped, so that the binding alone is
 * measured: {@code -Djmh.include=Launch "-Djmh.options=-jvmArgsAppend
 * -Djmoe.cuda.driver=target/native/emulator/fast/libcuda.so.1"}.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 4, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class LaunchBench {
    private static final int ROWS = 4;
    private static final int INTERMEDIATE = 64;

    private CudaContext context;
    private CudaKernel kernel;
    private CudaKernels kernels;
    private Arena arena;
    private Tensor gateUp;
    private Tensor offsets;
    private Tensor hidden;

    /** Opens a device and queues each kernel once. */
    @Setup
    public void open() {
        arena = Arena.ofShared();
        kernels = new CudaKernels();
        gateUp = kernels.allocate(arena, DType.BF16, ROWS, 2 * INTERMEDIATE);
        hidden = kernels.allocate(arena, DType.BF16, ROWS, INTERMEDIATE);
        Tensor zeros = Tensor.allocate(arena, DType.I32, 2);
        offsets = kernels.upload(arena, zeros);
        context = new CudaContext(kernels.device());
        context.enter();
        kernel = context.module("swiglu").kernel(DType.BF16, DType.BF16);
        if (kernels.device().emulated()) {
            Emulator.set("discardLaunches", 2);
        }
    }

    /** A kernel with eight arguments. */
    @Benchmark
    public void launch() {
        arguments().run(2);
    }

    /** The same, by the call that takes attributes. */
    @Benchmark
    public void launchEarly() {
        arguments().runCluster(2, 1, 1, true);
    }

    private Launch arguments() {
        return context.launch()
                .of(kernel)
                .pointer(gateUp.data().address())
                .pointer(offsets.data().address())
                .int32(1)
                .pointer(hidden.data().address())
                .int32(ROWS)
                .int32(INTERMEDIATE)
                .int32(0)
                .float32(0);
    }

    /** A whole operation on device tensors: checks, context, arguments, launch. */
    @Benchmark
    public void operation() {
        kernels.swiglu(gateUp, Activation.SWIGLU, offsets, hidden);
    }

    /** So that the queue of a real device never fills. */
    @TearDown(Level.Iteration)
    public void synchronise() {
        kernels.synchronise();
        context.stream().synchronise();
    }

    /** Closes everything. */
    @TearDown
    public void close() {
        context.exit();
        context.close();
        arena.close();
        kernels.close();
    }
}
