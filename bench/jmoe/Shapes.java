package jmoe;

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

/**
 * Layers by model name; weights are random, never zeros: the time of a multiplication depends on
 * its operands.
 */
enum Shapes {
    OLMOE_1B_7B(2048, 1024, 64, 8, false),
    QWEN3_30B_A3B(2048, 768, 128, 8, true),
    DEEPSEEK_V2_LITE(2048, 1408, 64, 6, false),
    MIXTRAL_8X7B(4096, 14336, 8, 2, true);

    private final int hidden;
    private final int intermediate;
    private final int numExperts;
    private final int topK;
    private final boolean renormalise;

    Shapes(int hidden, int intermediate, int numExperts, int topK, boolean renormalise) {
        this.hidden = hidden;
        this.intermediate = intermediate;
        this.numExperts = numExperts;
        this.topK = topK;
        this.renormalise = renormalise;
    }

    MoeConfig config() {
        return new MoeConfig(
                name(),
                hidden,
                hidden,
                numExperts,
                0,
                Activation.SWIGLU,
                List.of(RouterConfig.softmaxTopK(numExperts, topK, renormalise)),
                List.of(intermediate),
                0,
                false,
                1);
    }

    MoeWeights weights(Arena arena, DType type) {
        Tensor router = random(arena, DType.F32, 1, 1, numExperts, hidden);
        Tensor gateUp = random(arena, type, 2, numExperts, 2L * intermediate, hidden);
        Tensor down = random(arena, type, 3, numExperts, hidden, intermediate);
        return new MoeWeights(
                List.of(new RouterWeights(router, null, null)),
                List.of(new ExpertWeights(gateUp, down, null, null, Activation.SWIGLU)),
                null,
                null,
                null,
                null,
                null);
    }

    /** Uniform with variance 1 / last dimension, so that products keep their size. */
    static Tensor random(Arena arena, DType type, long seed, long... shape) {
        Tensor tensor = Tensor.allocate(arena, type, shape);
        double range = Math.sqrt(3.0 / shape[shape.length - 1]);
        SplittableRandom random = new SplittableRandom(seed);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextDouble(-range, range));
        }
        return tensor;
    }
}
