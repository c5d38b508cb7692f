package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/** The argument checks of {@link Kernels#jitter}, the same for every backend. */
public final class InputArguments {
    private InputArguments() {}

    /**
     * Checks the arguments of {@link Kernels#jitter}.
     *
     * @param x as there
     * @param step as there
     * @param y as there
     */
    public static void jitter(Tensor x, @Nullable Tensor step, Tensor y) {
        Check.floating("x", x, "[tokens, hidden]", 2);
        Check.rowMajor("x", x);
        Check.matrix("y", y, DType.F32, "tokens", x.dim(0), "hidden", x.dim(1));
        Check.rowMajor("y", y);
        Check.writable("y", y);
        Check.disjoint("y", y, "x", x);
        if (step != null) {
            Check.vector("step", step, DType.I32, "steps", 1);
            Check.disjoint("y", y, "step", step);
        }
    }
}
