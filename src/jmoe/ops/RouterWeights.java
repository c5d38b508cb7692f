package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * The linear layer of a router, in the type it was trained in, whatever that of the experts:
 * routing decisions must not depend on how experts are stored.
 *
 * @param weight F32, F16 or BF16 [1, numLogits, H], one group of a grouped GEMM
 * @param bias F32 [1, numLogits], added to the logits, or null
 * @param selectionBias F32 [numExperts], added to the scores for the selection only, or null
 */
public record RouterWeights(Tensor weight, @Nullable Tensor bias, @Nullable Tensor selectionBias) {
    /** Checks types and shapes against each other. */
    public RouterWeights {
        boolean usable = weight.dtype().isFloating() && weight.dtype() != DType.F64;
        if (!usable || weight.rank() != 3 || weight.dim(0) != 1) {
            throw Check.mismatch("weight", "F32, F16 or BF16 [1, numLogits, hidden]", weight);
        }
        if (bias != null) {
            Check.matrix("bias", bias, DType.F32, "one", 1, "numLogits", weight.dim(1));
        }
    }

    /**
     * Brings the router to where a backend computes, in the form that it computes with fastest.
     *
     * @param kernels the backend
     * @param arena owner of the memory of new forms
     * @return weights that do not need these any more, except where a backend takes them as they
     *     are
     */
    public RouterWeights prepare(Kernels kernels, Arena arena) {
        return new RouterWeights(
                kernels.prepare(weight, arena),
                MoeWeights.copy(bias, kernels, arena),
                MoeWeights.copy(selectionBias, kernels, arena));
    }
}
