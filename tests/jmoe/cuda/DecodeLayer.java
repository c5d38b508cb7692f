package jmoe.cuda;

import jmoe.CapturedLayer;
import jmoe.MoeLayer;
import jmoe.Workspace;
import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.SplittableRandom;

/** A layer of one 16-bit type with random weights, and up to 128 tokens for it. */
final class DecodeLayer implements AutoCloseable {
    private static final int MAX_TOKENS = 128;
    private static final int EXPERTS = 6;
    private static final int TOP_K = 2;
    private static final int HIDDEN = 136;

    private final CudaKernels kernels;
    private final DType type;
    private final Arena arena = Arena.ofShared();
    private final MoeLayer layer;
    private final Workspace workspace;
    private final Tensor x;

    /**
     * On the device.
     *
     * @param type of tokens and rows; weights of F32 tokens have 16 bits too
     * @param intermediate of routed experts
     * @param shared whether there is a shared expert, with a gate
     */
    DecodeLayer(CudaKernels kernels, DType type, int intermediate, boolean shared) {
        this.kernels = kernels;
        this.type = type;
        DType weight = type == DType.F32 ? DType.BF16 : type;
        int sharedIntermediate = shared ? 40 : 0;
        MoeConfig config =
                new MoeConfig(
                        "decode",
                        HIDDEN,
                        HIDDEN,
                        EXPERTS,
                        0,
                        Activation.SWIGLU,
                        List.of(RouterConfig.softmaxTopK(EXPERTS, TOP_K, true)),
                        List.of(intermediate),
                        sharedIntermediate,
                        shared,
                        1);
        Tensor router = random(arena, weight, 2, 1, EXPERTS, HIDDEN);
        MoeWeights weights =
                new MoeWeights(
                        List.of(new RouterWeights(router, null, null)),
                        List.of(experts(arena, weight, EXPERTS, intermediate)),
                        shared ? experts(arena, weight, 1, sharedIntermediate) : null,
                        shared ? random(arena, weight, 3, 1, 1, HIDDEN) : null,
                        null,
                        null,
                        null);
        layer = new MoeLayer(config, weights, kernels);
        workspace = layer.workspace(MAX_TOKENS, type);
        x = kernels.upload(arena, random(arena, type, 1, MAX_TOKENS, HIDDEN));
        // What is loaded and allocated at first is not what tests look at.
        forward(MAX_TOKENS);
    }

    private static ExpertWeights experts(Arena arena, DType type, int experts, int intermediate) {
        return new ExpertWeights(
                random(arena, type, 4, experts, 2L * intermediate, HIDDEN),
                random(arena, type, 5, experts, HIDDEN, intermediate),
                null,
                null,
                Activation.SWIGLU);
    }

    /** Normal numbers, of weights so small that sums are about 1. */
    static Tensor random(Arena arena, DType type, long seed, long... shape) {
        Tensor tensor = Tensor.allocate(arena, type, shape);
        SplittableRandom random = new SplittableRandom(seed);
        double scale = shape.length == 3 ? 1 / Math.sqrt(shape[2]) : 1;
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, scale * random.nextGaussian());
        }
        return tensor;
    }

    /** The first tokens, computed; the result is on the host. */
    Tensor forward(int tokens) {
        try (Arena own = Arena.ofConfined()) {
            Tensor y = kernels.allocate(own, type, tokens, HIDDEN);
            layer.forward(x.slice(0, tokens), y, workspace);
            return onHost(y);
        }
    }

    /** For input and output of the type. */
    CapturedLayer capture(int maxTokens) {
        return layer.capture(maxTokens, type, type);
    }

    /** The first tokens, replayed. */
    Tensor replay(CapturedLayer captured, int tokens) {
        kernels.copy(x.slice(0, tokens), captured.x().slice(0, tokens));
        captured.replay(tokens);
        return onHost(captured.y().slice(0, tokens));
    }

    private Tensor onHost(Tensor tensor) {
        Tensor host = Tensor.allocate(Arena.ofAuto(), tensor.dtype(), tensor.shape());
        kernels.copy(tensor, host);
        return host;
    }

    /** Largest difference of two results, relative to the largest number. */
    static double difference(Tensor first, Tensor second) {
        double difference = 0;
        double largest = 0;
        for (long i = 0; i < first.numElements(); i++) {
            double a = first.getDouble(i);
            difference = Math.max(difference, Math.abs(a - second.getDouble(i)));
            largest = Math.max(largest, Math.abs(a));
        }
        return difference / largest;
    }

    @Override
    public void close() {
        workspace.close();
        layer.close();
        arena.close();
    }
}
