package jmoe.cuda;

import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUevent;
import jcuda.driver.JCudaDriver;

import jmoe.ops.Replay;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.function.IntConsumer;

/**
 * Times operations by events of the driver around a replayed graph of many of them. It is queued
 * behind a copy that keeps the device busy meanwhile, so that the operations run back to back,
 * however slow the host is.
 */
final class DeviceTimer implements AutoCloseable {
    private static final int ROUNDS = 5;
    private static final int MAX_REPEATS = 200;

    /** What a round may take on the device. */
    private static final double ROUND_MICROS = 15_000;

    private final CudaKernels kernels;
    private final boolean once;
    private final Tensor copyFrom;
    private final Tensor copyTo;
    private final CUdevice device = new CUdevice();
    private final CUcontext context = new CUcontext();
    private final CUevent start = new CUevent();
    private final CUevent end = new CUevent();
    private final double copyMicros;

    /**
     * How long something takes.
     *
     * @param micros on the device, the median of some rounds
     * @param hostMicros to queue it
     * @param repeats in a round
     */
    record Time(double micros, double hostMicros, int repeats) {}

    /**
     * Measures a copy first.
     *
     * @param kernels where
     * @param arena owner of the memory for copies
     * @param copyBytes of each copy
     * @param once whether everything is run once and its time does not matter
     */
    DeviceTimer(CudaKernels kernels, Arena arena, long copyBytes, boolean once) {
        this.kernels = kernels;
        this.once = once;
        createEvents();
        copyFrom = kernels.allocate(arena, DType.U8, copyBytes);
        copyTo = kernels.allocate(arena, DType.U8, copyBytes);
        copyMicros = copyMicros();
    }

    /**
     * Times what other kernels queue.
     *
     * @param kernels on the same device
     * @param other has the memory for copies and knows what they take
     */
    DeviceTimer(CudaKernels kernels, DeviceTimer other) {
        this.kernels = kernels;
        once = other.once;
        createEvents();
        copyFrom = other.copyFrom;
        copyTo = other.copyTo;
        copyMicros = other.copyMicros;
    }

    private void createEvents() {
        check(JCudaDriver.cuDeviceGet(device, kernels.device().ordinal()), "cuDeviceGet");
        check(JCudaDriver.cuDevicePrimaryCtxRetain(context, device), "cuDevicePrimaryCtxRetain");
        makeCurrent();
        check(JCudaDriver.cuEventCreate(start, 0), "cuEventCreate");
        check(JCudaDriver.cuEventCreate(end, 0), "cuEventCreate");
    }

    /** The kernels make it current only while they use it; events and graphs want it here. */
    private void makeCurrent() {
        check(JCudaDriver.cuCtxSetCurrent(context), "cuCtxSetCurrent");
    }

    private static void check(int code, String call) {
        if (code != CudaDriver.SUCCESS) {
            throw CudaException.of(code, call, null);
        }
    }

    private double copyMicros() {
        copy();
        double[] micros = new double[once ? 1 : 2 * ROUNDS];
        for (int round = 0; round < micros.length; round++) {
            begin();
            copy();
            micros[round] = end();
        }
        return median(micros);
    }

    private void copy() {
        kernels.copy(copyFrom, copyTo);
    }

    private void begin() {
        makeCurrent();
        check(JCudaDriver.cuEventRecord(start, kernels.stream()), "cuEventRecord");
    }

    private double end() {
        check(JCudaDriver.cuEventRecord(end, kernels.stream()), "cuEventRecord");
        check(JCudaDriver.cuEventSynchronize(end), "cuEventSynchronize");
        float[] milliseconds = new float[1];
        check(JCudaDriver.cuEventElapsedTime(milliseconds, start, end), "cuEventElapsedTime");
        return 1000.0 * milliseconds[0];
    }

    /** Bytes read and written in a nanosecond by a copy within the device. */
    double copyGigabytesPerSecond() {
        return 2.0 * copyFrom.numBytes() / (1000 * copyMicros);
    }

    /**
     * Times an operation.
     *
     * @param operation queues it, on one of several sets of operands
     * @param sets how many sets there are
     * @return the time of one
     */
    Time time(IntConsumer operation, int sets) {
        begin();
        operation.accept(0);
        end();
        if (once) {
            return new Time(Double.NaN, Double.NaN, 1);
        }
        // The first run loaded the kernel.
        begin();
        operation.accept(1 % sets);
        int repeats = (int) Math.clamp(ROUND_MICROS / end(), 2, MAX_REPEATS);
        long begin = System.nanoTime();
        queue(operation, sets, repeats);
        double hostMicros = (System.nanoTime() - begin) / 1e3 / repeats;
        try (Replay replay = kernels.capture(() -> queue(operation, sets, repeats))) {
            return new Time(replayMicros(replay) / repeats, hostMicros, repeats);
        }
    }

    private static void queue(IntConsumer operation, int sets, int repeats) {
        for (int i = 0; i < repeats; i++) {
            operation.accept(i % sets);
        }
    }

    /** The median of some rounds; a round before them brings the graph to the device. */
    private double replayMicros(Replay replay) {
        double[] micros = new double[ROUNDS];
        for (int round = -1; round < ROUNDS; round++) {
            copy();
            begin();
            replay.run();
            double passed = end();
            if (round >= 0) {
                micros[round] = passed;
            }
        }
        return median(micros);
    }

    private static double median(double[] values) {
        double[] sorted = values.clone();
        Arrays.sort(sorted);
        return sorted[sorted.length / 2];
    }

    @Override
    public void close() {
        makeCurrent();
        check(JCudaDriver.cuEventDestroy(start), "cuEventDestroy");
        check(JCudaDriver.cuEventDestroy(end), "cuEventDestroy");
        check(JCudaDriver.cuDevicePrimaryCtxRelease(device), "cuDevicePrimaryCtxRelease");
    }
}
