package jmoe.cli;

import jmoe.ops.Kernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.vector.Ceilings;

import java.lang.foreign.Arena;

/** What a device does at best right now: a copy within it and a dense product in BF16. */
final class DeviceCeilings {
    private static final int ROUNDS = 10;
    private static final long COPY_BYTES = 1L << 31;
    private static final long DENSE_SIZE = 8192;

    /** On emulated devices, where times mean nothing. */
    private static final long EMULATED_COPY_BYTES = 1 << 16;

    private static final long EMULATED_DENSE_SIZE = 64;

    private DeviceCeilings() {}

    /**
     * Measures both.
     *
     * @param kernels of the device
     * @param emulated whether times mean nothing there
     * @return operations of the product, bytes read and written by the copy
     */
    static Ceilings measure(Kernels kernels, boolean emulated) {
        return new Ceilings(
                1,
                denseGflops(kernels, emulated ? EMULATED_DENSE_SIZE : DENSE_SIZE),
                copyGbps(kernels, emulated ? EMULATED_COPY_BYTES : COPY_BYTES));
    }

    private static double copyGbps(Kernels kernels, long bytes) {
        try (Arena arena = Arena.ofShared()) {
            Tensor from = kernels.allocate(arena, DType.U8, bytes);
            Tensor to = kernels.allocate(arena, DType.U8, bytes);
            return 2 * bytes / leastNanos(kernels, () -> kernels.copy(from, to));
        }
    }

    private static double denseGflops(Kernels kernels, long size) {
        try (Arena arena = Arena.ofShared();
                Arena host = Arena.ofShared()) {
            Tensor numbers = Tensor.allocate(host, DType.BF16, size, size);
            // Zeros would take less power than numbers do.
            RandomLayer.fill(numbers, 1, size);
            Tensor hostOffsets = Tensor.allocate(host, DType.I32, 2);
            hostOffsets.setInt(1, (int) size);
            Tensor offsets = kernels.allocate(arena, DType.I32, 2);
            Tensor x = kernels.allocate(arena, DType.BF16, size, size);
            Tensor weight = kernels.allocate(arena, DType.BF16, size, size);
            Tensor y = kernels.allocate(arena, DType.BF16, size, size);
            kernels.copy(hostOffsets, offsets);
            kernels.copy(numbers, x);
            kernels.copy(numbers, weight);
            Tensor group = weight.reshape(1, size, size);
            double nanos =
                    leastNanos(kernels, () -> kernels.groupedGemm(x, group, null, offsets, y));
            return 2.0 * size * size * size / nanos;
        }
    }

    private static double leastNanos(Kernels kernels, Runnable operation) {
        double least = Double.POSITIVE_INFINITY;
        for (int round = 0; round < ROUNDS; round++) {
            least = Math.min(least, kernels.nanos(operation));
        }
        return Math.max(1, least);
    }
}
