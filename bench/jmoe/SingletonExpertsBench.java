package jmoe;

import jmoe.ops.Activation;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.ops.SingletonExperts;
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

/**
 * PEER as in He 2024: a million experts of a single neuron, 8 heads with 16 of them each. The bank
 * is far larger than the caches, and every token asks for other rows.
 */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 4, time = 2)
@Measurement(iterations = 5, time = 2)
@Fork(1)
@State(Scope.Benchmark)
public class SingletonExpertsBench {
    private static final int KEYS = 1024;
    private static final int HEADS = 8;
    private static final int TOP_K = 16;

    /** Tokens of a batch. */
    @Param({"1", "16", "128"})
    public int tokens;

    /** H. */
    @Param("256")
    public int hidden;

    /** A {@link Backend} constant. */
    @Param("VECTOR")
    public String backend;

    /** Type of the bank. */
    @Param("BF16")
    public DType weights;

    private final Arena arena = Arena.ofShared();
    private final RouterConfig rule =
            new RouterConfig(
                    KEYS * KEYS,
                    TOP_K,
                    Score.SOFTMAX,
                    new Selection.ProductKeys(KEYS),
                    new Normalisation.Sum(0),
                    1,
                    false,
                    null,
                    RouterConfig.ALL_TOKENS);
    private Kernels kernels;
    private Tensor logits;
    private Routing routing;
    private Tensor x;
    private Tensor ids;
    private Tensor slotWeights;
    private SingletonExperts experts;
    private Tensor y;

    /** Fills everything with random numbers and finds the experts once. */
    @Setup
    public void open() {
        kernels = Backend.valueOf(backend).open();
        long queries = (long) tokens * HEADS;
        long numExperts = (long) KEYS * KEYS;
        logits = random(DType.F32, queries, 2L * KEYS);
        routing =
                Routing.allocate(
                        (dtype, shape) -> kernels.allocate(arena, dtype, shape), queries, TOP_K, 1);
        ids = routing.topkIds().reshape(tokens, (long) HEADS * TOP_K);
        slotWeights = routing.topkWeights().reshape(tokens, (long) HEADS * TOP_K);
        x = random(DType.F32, tokens, hidden);
        experts =
                new SingletonExperts(
                        random(weights, numExperts, hidden),
                        random(weights, numExperts, hidden),
                        Activation.of(Activation.Kind.GELU));
        y = kernels.allocate(arena, DType.F32, tokens, hidden);
        select();
    }

    private Tensor random(DType dtype, long... shape) {
        SplittableRandom random = new SplittableRandom(shape[0]);
        Tensor host = Tensor.allocate(arena, dtype, shape);
        for (long i = 0; i < host.numElements(); i++) {
            host.setDouble(i, random.nextDouble() - 0.5);
        }
        Tensor there = kernels.allocate(arena, dtype, shape);
        kernels.copy(host, there);
        return there;
    }

    /** Finds the best of a million sums for every head. */
    @Benchmark
    public void select() {
        kernels.route(logits, rule, RouteInputs.NONE, routing);
        kernels.synchronise();
    }

    /** Sums the experts that were found. */
    @Benchmark
    public void singletonExperts() {
        kernels.singletonExperts(x, ids, slotWeights, experts, y);
        kernels.synchronise();
    }

    /** Frees all of it. */
    @TearDown
    public void close() {
        arena.close();
        kernels.close();
    }
}
