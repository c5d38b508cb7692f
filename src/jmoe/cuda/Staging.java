package jmoe.cuda;

import jcuda.driver.JCudaDriver;

import java.lang.foreign.MemorySegment;

/**
 * Copies between host memory of any kind and size and the device, by way of page-locked memory in
 * two halves: the device works on one while the host works on the other.
 */
final class Staging implements AutoCloseable {
    /** One half. Two of 4 MiB keep a PCIe link busy; more gains nothing. */
    static final int HALF_BYTES = 4 << 20;

    private final CudaContext context;
    private final CudaStream stream;
    private final Half[] halves = new Half[2];
    private int next;

    /** Page-locked memory and the mark behind its last use by the device. */
    private static final class Half {
        final JCudaPointers.Host pointer;
        final MemorySegment memory;
        final CudaEvent used;

        /** Whether the device may still work on it without a mark behind that work. */
        boolean unmarked;

        /** What of the host's memory is on its way into this half. */
        long from;

        long bytes;

        @SuppressWarnings("restricted")
        Half(CudaContext context, JCudaPointers.Host pointer) {
            this.pointer = pointer;
            memory = MemorySegment.ofAddress(pointer.address()).reinterpret(HALF_BYTES);
            used = new CudaEvent(context, false);
        }
    }

    Staging(CudaContext context, CudaStream stream) {
        this.context = context;
        this.stream = stream;
    }

    /** Copies to the device; returns when the host's memory may change. */
    void toDevice(MemorySegment host, long address) {
        context.refuseInCapture("a copy from the host");
        CopyEvent event = new CopyEvent();
        event.begin();
        long bytes = host.byteSize();
        for (long done = 0; done < bytes; done += HALF_BYTES) {
            Half half = nextHalf();
            long count = Math.min(HALF_BYTES, bytes - done);
            MemorySegment.copy(host, done, half.memory, 0, count);
            half.unmarked = true;
            context.check(
                    JCudaDriver.cuMemcpyHtoDAsync(
                            new JCudaPointers.Device(address + done),
                            half.pointer,
                            count,
                            stream.handle()),
                    "cuMemcpyHtoDAsync");
            mark(half);
        }
        event.end("host to device", bytes);
    }

    /** Copies to the host, behind what is queued; returns when it is done. */
    void toHost(long address, MemorySegment host) {
        context.refuseInCapture("a copy to the host");
        CopyEvent event = new CopyEvent();
        event.begin();
        long bytes = host.byteSize();
        Half before = null;
        for (long done = 0; done < bytes; done += HALF_BYTES) {
            Half half = nextHalf();
            half.from = done;
            half.bytes = Math.min(HALF_BYTES, bytes - done);
            half.unmarked = true;
            context.check(
                    JCudaDriver.cuMemcpyDtoHAsync(
                            half.pointer,
                            new JCudaPointers.Device(address + done),
                            half.bytes,
                            stream.handle()),
                    "cuMemcpyDtoHAsync");
            mark(half);
            if (before != null) {
                arrive(before, host);
            }
            before = half;
        }
        if (before != null) {
            arrive(before, host);
        }
        event.end("device to host", bytes);
    }

    private void mark(Half half) {
        half.used.record(stream);
        half.unmarked = false;
    }

    private static void arrive(Half half, MemorySegment host) {
        half.used.synchronise();
        MemorySegment.copy(half.memory, 0, host, half.from, half.bytes);
    }

    /** Copies within the device, behind what is queued. */
    void within(long from, long to, long bytes) {
        CopyEvent event = new CopyEvent();
        event.begin();
        context.check(
                JCudaDriver.cuMemcpyDtoDAsync(
                        new JCudaPointers.Device(to),
                        new JCudaPointers.Device(from),
                        bytes,
                        stream.handle()),
                "cuMemcpyDtoDAsync");
        event.end("within the device", bytes);
    }

    /** A half that the device is done with. */
    private Half nextHalf() {
        Half half = halves[next];
        if (half == null) {
            half = allocateHalf();
            halves[next] = half;
        }
        next = 1 - next;
        if (half.unmarked) {
            // A call failed between the copy and its mark.
            stream.synchronise();
            half.unmarked = false;
        } else {
            half.used.synchronise();
        }
        return half;
    }

    private Half allocateHalf() {
        JCudaPointers.Host pointer = new JCudaPointers.Host();
        context.check(
                JCudaDriver.cuMemAllocHost(pointer, HALF_BYTES),
                "cuMemAllocHost of " + HALF_BYTES + " bytes");
        try {
            return new Half(context, pointer);
        } catch (RuntimeException e) {
            context.checkRelease(JCudaDriver.cuMemFreeHost(pointer), "cuMemFreeHost");
            throw e;
        }
    }

    @Override
    public void close() {
        for (Half half : halves) {
            if (half != null) {
                half.used.close();
                context.checkRelease(JCudaDriver.cuMemFreeHost(half.pointer), "cuMemFreeHost");
            }
        }
    }
}
