package jmoe.experiment;

import jmoe.ops.Kernels;

import java.util.Arrays;

/** Times of operations: the median of many, after as long a warm-up. */
final class Stopwatch {
    private final Kernels kernels;
    private final Effort effort;

    Stopwatch(Kernels kernels, Effort effort) {
        this.kernels = kernels;
        this.effort = effort;
    }

    /** Microseconds of a call. */
    double micros(Runnable operations) {
        long start = System.nanoTime();
        double nanos = kernels.nanos(operations);
        // Java compiles what is called often; one long call is warm-up enough.
        while (System.nanoTime() - start < effort.nanos() / 4) {
            nanos = kernels.nanos(operations);
        }
        double fit = Math.max(1, effort.nanos() / Math.max(nanos, 1));
        double[] times = new double[(int) Math.min(effort.maxRepeats(), Math.max(3, fit))];
        for (int i = 0; i < times.length; i++) {
            times[i] = kernels.nanos(operations);
        }
        Arrays.sort(times);
        return times[times.length / 2] / 1e3;
    }
}
