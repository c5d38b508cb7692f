package jmoe;

import jmoe.ops.InputTransform;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Warmup;

import java.util.concurrent.TimeUnit;

/** What a router reads, times random factors. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 4, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
public class JitterBench {
    private static final InputTransform.Jitter JITTER = new InputTransform.Jitter(1, 0.01);

    /** All tokens. */
    @Benchmark
    public void jitter(LayerState s) {
        s.kernels.jitter(s.batchInput(), JITTER, null, s.y);
    }
}
