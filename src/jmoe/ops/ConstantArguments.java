package jmoe.ops;

import jmoe.ops.Kernels.Residual;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

/** The argument checks of {@link Kernels#constantExperts}, the same for every backend. */
public final class ConstantArguments {
    private ConstantArguments() {}

    /**
     * Checks the arguments.
     *
     * @param x as there
     * @param routing as there
     * @param experts as there
     * @param firstId as there
     * @param residual as there
     * @param y as there
     */
    public static void constantExperts(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        long tokens = routing.tokens();
        long topK = routing.topK();
        Check.matrix("topkIds", routing.topkIds(), DType.I32, "tokens", tokens, "topK", topK);
        Check.matrix(
                "topkWeights", routing.topkWeights(), DType.F32, "tokens", tokens, "topK", topK);
        Check.floatMatrix("x", x, "tokens", tokens, "hidden", experts.hidden());
        long constants = experts.numConstants();
        long hidden = experts.hidden();
        Check.accessible("mixing", experts.mixing());
        Check.rowMajor("mixing", experts.mixing());
        Tensor vectors = experts.vectors();
        Check.matrix("vectors", vectors, DType.F32, "numConstants", constants, "hidden", hidden);
        if (firstId < 0 || firstId > Integer.MAX_VALUE - constants) {
            throw new IllegalArgumentException(
                    "firstId: expected 0 to "
                            + (Integer.MAX_VALUE - constants)
                            + ", got "
                            + firstId);
        }
        Check.floatMatrix("y", y, "tokens", tokens, "hidden", experts.hidden());
        Arguments.residual(residual, tokens, y);
        Check.writable("y", y);
        Check.disjoint("y", y, "x", x);
        Check.disjoint("y", y, "topkIds", routing.topkIds());
        Check.disjoint("y", y, "topkWeights", routing.topkWeights());
        Check.disjoint("y", y, "mixing", experts.mixing());
        Check.disjoint("y", y, "vectors", experts.vectors());
    }
}
