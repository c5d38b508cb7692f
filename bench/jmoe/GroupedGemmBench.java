package jmoe;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Warmup;

import java.util.concurrent.TimeUnit;

/** The two products of the experts, unfused. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 4, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
public class GroupedGemmBench {
    /** rows [tokens * topK, H] to [tokens * topK, 2I]. */
    @Benchmark
    public void gateUp(LayerState s) {
        s.nextBatch();
        s.kernels.groupedGemm(s.rows, s.gateUpWeight, null, s.routing.expertOffsets(), s.gateUp);
    }

    /** hidden [tokens * topK, I] to [tokens * topK, H]. */
    @Benchmark
    public void down(LayerState s) {
        s.nextBatch();
        s.kernels.groupedGemm(
                s.hidden, s.experts.down(), null, s.routing.expertOffsets(), s.expertRows);
    }
}
