package jmoe;

import jmoe.ops.LogitTransform;
import jmoe.ops.ShapeInputs;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Warmup;

import java.util.List;
import java.util.concurrent.TimeUnit;

/** Noise on logits, in place; the cap in front keeps them ordinary from call to call. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 4, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
public class ShapeLogitsBench {
    private static final List<LogitTransform> TRANSFORMS =
            List.of(new LogitTransform.Cap(5), new LogitTransform.FixedNoise(1, 0.1));

    /** All tokens. */
    @Benchmark
    public void shapeLogits(LayerState s) {
        s.kernels.shapeLogits(s.logits, s.router.withLogitTransforms(TRANSFORMS), ShapeInputs.NONE);
    }
}
