package jmoe.cuda;

import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.JCudaDriver;

/** A mark in a stream. Not for use outside a turn of its context. */
final class CudaEvent implements AutoCloseable {
    private final CudaContext context;
    private final CUevent handle = new CUevent();

    /**
     * Creates a mark that has been passed.
     *
     * @param context where
     * @param timed whether it notes the time
     */
    CudaEvent(CudaContext context, boolean timed) {
        this.context = context;
        int flags = timed ? CUevent_flags.CU_EVENT_DEFAULT : CUevent_flags.CU_EVENT_DISABLE_TIMING;
        context.check(JCudaDriver.cuEventCreate(handle, flags), "cuEventCreate");
    }

    /** What operations take on the device, from where they begin there. */
    static double nanos(CudaContext context, Runnable operations) {
        context.enter();
        try (CudaEvent start = new CudaEvent(context, true);
                CudaEvent end = new CudaEvent(context, true)) {
            context.refuseInCapture("a wait for the device");
            start.record(context.stream());
            operations.run();
            end.record(context.stream());
            end.synchronise();
            return 1e6 * end.millisecondsSince(start);
        } finally {
            context.exit();
        }
    }

    CUevent handle() {
        return handle;
    }

    /** Puts the mark behind what is queued in the stream. */
    void record(CudaStream stream) {
        context.check(JCudaDriver.cuEventRecord(handle, stream.handle()), "cuEventRecord");
    }

    /** Waits until the device has passed the mark. */
    void synchronise() {
        context.check(JCudaDriver.cuEventSynchronize(handle), "cuEventSynchronize");
    }

    /** Whether the device has passed the mark. */
    boolean isPassed() {
        int code = JCudaDriver.cuEventQuery(handle);
        if (code == CudaDriver.NOT_READY) {
            return false;
        }
        context.check(code, "cuEventQuery");
        return true;
    }

    /** Milliseconds from another mark to this one, both timed and passed. */
    float millisecondsSince(CudaEvent earlier) {
        float[] milliseconds = new float[1];
        context.check(
                JCudaDriver.cuEventElapsedTime(milliseconds, earlier.handle, handle),
                "cuEventElapsedTime");
        return milliseconds[0];
    }

    @Override
    public void close() {
        context.checkRelease(JCudaDriver.cuEventDestroy(handle), "cuEventDestroy");
    }
}
