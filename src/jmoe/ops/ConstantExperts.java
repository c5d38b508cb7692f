package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * Experts that mix their input with a constant: {@code expert(x) = a1 x + a2 v} with {@code [a1,
 * a2] = softmax(W x)}. Jin et al. 2024, "MoE++: Accelerating Mixture-of-Experts Methods with
 * Zero-Computation Experts", equation 5.
 *
 * <p>The gating residuals of MoE++, which add logits of the layer before to those of this one, join
 * layers; they are not part of one, and whoever runs several adds them to the logits.
 *
 * @param mixing F32 [n, 2, H]: W of each expert, the row of a1 first
 * @param vectors F32 [n, H]: v of each expert
 */
public record ConstantExperts(Tensor mixing, Tensor vectors) {
    /** Checks types and shapes against each other. */
    public ConstantExperts {
        Check.floating("vectors", vectors, "[numConstants, hidden]", 2);
        long constants = vectors.dim(0);
        long hidden = vectors.dim(1);
        Check.matrix("vectors", vectors, DType.F32, "numConstants", constants, "hidden", hidden);
        boolean fits =
                mixing.dtype() == DType.F32
                        && mixing.rank() == 3
                        && mixing.dim(0) == constants
                        && mixing.dim(1) == 2
                        && mixing.dim(2) == hidden;
        if (!fits) {
            throw Check.mismatch(
                    "mixing",
                    "F32 [numConstants=" + constants + ", 2, hidden=" + hidden + "]",
                    mixing);
        }
    }

    /** The same where a backend computes. */
    ConstantExperts copy(Kernels kernels, Arena arena) {
        return new ConstantExperts(
                MoeWeights.copy(mixing, kernels, arena), MoeWeights.copy(vectors, kernels, arena));
    }

    /**
     * Experts in the bank.
     *
     * @return n
     */
    public int numConstants() {
        return (int) vectors.dim(0);
    }

    /**
     * Width of an expert's input and output.
     *
     * @return H
     */
    public long hidden() {
        return vectors.dim(1);
    }
}
