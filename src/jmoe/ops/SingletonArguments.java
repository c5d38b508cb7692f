package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/** The argument checks of {@link Kernels#singletonExperts}, the same for every backend. */
public final class SingletonArguments {
    private SingletonArguments() {}

    /**
     * Checks the arguments.
     *
     * @param x as there
     * @param topkIds as there
     * @param weights as there
     * @param experts as there
     * @param y as there
     */
    public static void singletonExperts(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        if (topkIds.dtype() != DType.I32 || topkIds.rank() != 2) {
            throw Check.mismatch("topkIds", "I32 [tokens, topK]", topkIds);
        }
        long tokens = topkIds.dim(0);
        long topK = topkIds.dim(1);
        if (topK > 0 && tokens > Integer.MAX_VALUE / topK) {
            throw Check.mismatch("topkIds", "fewer than 2^31 slots", topkIds);
        }
        Check.matrix("topkIds", topkIds, DType.I32, "tokens", tokens, "topK", topK);
        Check.floatMatrix("x", x, "tokens", tokens, "hidden", experts.hidden());
        if (weights != null) {
            Check.matrix("weights", weights, DType.F32, "tokens", tokens, "topK", topK);
            Check.disjoint("y", y, "weights", weights);
        }
        weight("up", experts.up());
        weight("down", experts.down());
        Check.floatMatrix("y", y, "tokens", tokens, "hidden", experts.hidden());
        Check.writable("y", y);
        Check.disjoint("y", y, "x", x);
        Check.disjoint("y", y, "topkIds", topkIds);
        Check.disjoint("y", y, "up", experts.up());
        Check.disjoint("y", y, "down", experts.down());
    }

    private static void weight(String name, Tensor weight) {
        Check.accessible(name, weight);
        Check.rowMajor(name, weight);
    }
}
