package jmoe;

import jmoe.ops.Kernels.Residual;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Warmup;

import java.util.concurrent.TimeUnit;

/** Expert rows back into tokens, weighted and summed. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 4, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
public class UnpermuteBench {
    /** Sums topK rows per token. */
    @Benchmark
    public void unpermute(LayerState s) {
        s.nextBatch();
        s.kernels.unpermute(s.expertRows, s.routing, s.routing.topkWeights(), Residual.NONE, s.y);
    }
}
