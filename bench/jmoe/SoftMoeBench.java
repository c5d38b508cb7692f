package jmoe;

import jmoe.ops.Kernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

import java.lang.foreign.Arena;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;

/** The mixtures of Soft-MoE for an image of ViT-S/16: 196 tokens of 384 columns, as many slots. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 4, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
@State(Scope.Benchmark)
public class SoftMoeBench {
    /** Tokens, and slots. */
    @Param({"196", "1024"})
    public int tokens;

    /** H. */
    @Param("384")
    public int hidden;

    /** A {@link Backend} constant. */
    @Param("VECTOR")
    public String backend;

    private final Arena arena = Arena.ofShared();
    private Kernels kernels;
    private Tensor x;
    private Tensor logits;
    private Tensor rows;
    private Tensor y;

    /** Fills everything with random numbers. */
    @Setup
    public void open() {
        kernels = Backend.valueOf(backend).open();
        x = random(tokens, hidden);
        logits = random(tokens, tokens);
        rows = random(tokens, hidden);
        y = kernels.allocate(arena, DType.F32, tokens, hidden);
    }

    private Tensor random(long rowCount, long columns) {
        SplittableRandom random = new SplittableRandom(columns);
        Tensor host = Tensor.allocate(arena, DType.F32, rowCount, columns);
        for (long i = 0; i < host.numElements(); i++) {
            host.setDouble(i, random.nextDouble() - 0.5);
        }
        Tensor there = kernels.allocate(arena, DType.F32, rowCount, columns);
        kernels.copy(host, there);
        return there;
    }

    /** Rows of one length. */
    @Benchmark
    public void normaliseRows() {
        kernels.normaliseRows(x, 1, SoftMoeLayer.EPSILON, y);
        kernels.synchronise();
    }

    /** Tokens into slots. */
    @Benchmark
    public void softDispatch() {
        kernels.softDispatch(x, logits, rows);
        kernels.synchronise();
    }

    /** Slots back into tokens. */
    @Benchmark
    public void softCombine() {
        kernels.softCombine(rows, logits, y);
        kernels.synchronise();
    }

    /** Frees all of it. */
    @TearDown
    public void close() {
        arena.close();
        kernels.close();
    }
}
