package jmoe;

import jmoe.tensor.Tensor;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Warmup;

import java.util.concurrent.TimeUnit;

/** The first half of the experts, from token rows to activated rows. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 4, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
public class GateUpSwigluBench {
    /** x [tokens, H] to [tokens * topK, I]. */
    @Benchmark
    public void gateUpSwiglu(LayerState s) {
        Tensor x = s.nextBatch();
        s.kernels.gateUpSwiglu(x, s.routing, null, s.experts, s.scratch, s.hidden);
    }
}
