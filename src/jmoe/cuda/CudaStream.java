package jmoe.cuda;

import jcuda.driver.CUstream;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;

/** A queue of work on the device. Not for use outside a turn of its context. */
final class CudaStream implements AutoCloseable {
    private final CudaContext context;
    private final JCudaPointers.Stream handle = new JCudaPointers.Stream();

    CudaStream(CudaContext context) {
        this.context = context;
        context.check(
                JCudaDriver.cuStreamCreate(handle, CUstream_flags.CU_STREAM_NON_BLOCKING),
                "cuStreamCreate");
    }

    CUstream handle() {
        return handle;
    }

    long address() {
        return handle.address();
    }

    /** Waits for everything queued so far. */
    void synchronise() {
        context.check(JCudaDriver.cuStreamSynchronize(handle), "cuStreamSynchronize");
    }

    /** Queues the writing of a number to consecutive places. */
    void fill(long address, int value, long count) {
        if (count > 0) {
            context.check(
                    JCudaDriver.cuMemsetD32Async(
                            new JCudaPointers.Device(address), value, count, handle),
                    "cuMemsetD32Async");
        }
    }

    /** Lets what is queued from now on wait for the event. */
    void await(CudaEvent event) {
        context.check(
                JCudaDriver.cuStreamWaitEvent(handle, event.handle(), 0), "cuStreamWaitEvent");
    }

    @Override
    public void close() {
        context.checkRelease(JCudaDriver.cuStreamDestroy(handle), "cuStreamDestroy");
    }
}
