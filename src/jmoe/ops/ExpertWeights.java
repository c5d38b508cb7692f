package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * A bank of experts of one size, in the one layout that all backends read: output features before
 * input features, gate rows before up rows. A shared expert is a bank of one.
 *
 * @param gateUp F32, F16, BF16 or {@linkplain Tensor#scaled scaled} I8 [E, 2I, H], or [E, I, H] if
 *     the activation is not gated
 * @param down same type [E, H, I]
 * @param gateUpBias F32 [E, 2I] or [E, I], or null
 * @param downBias F32 [E, H], or null
 * @param activation what happens between the products
 */
public record ExpertWeights(
        Tensor gateUp,
        Tensor down,
        @Nullable Tensor gateUpBias,
        @Nullable Tensor downBias,
        Activation activation) {
    /** Checks types and shapes against each other. */
    public ExpertWeights {
        Check.weight("gateUp", gateUp, "[numExperts, gateUp, hidden]");
        Check.weight("down", down, "[numExperts, hidden, intermediate]");
        long experts = gateUp.dim(0);
        long columns = gateUp.dim(1);
        long hidden = gateUp.dim(2);
        long intermediate = activation.gated() ? columns / 2 : columns;
        if (activation.gated() && columns % 2 != 0) {
            throw Check.mismatch("gateUp", "an even second dimension (gate, then up)", gateUp);
        }
        if (down.dtype() != gateUp.dtype()
                || down.dim(0) != experts
                || down.dim(1) != hidden
                || down.dim(2) != intermediate) {
            throw Check.mismatch(
                    "down",
                    (gateUp.scale() == null ? "" : "scaled ")
                            + gateUp.dtype()
                            + " [numExperts="
                            + experts
                            + ", hidden="
                            + hidden
                            + ", intermediate="
                            + intermediate
                            + "]",
                    down);
        }
        if (gateUpBias != null) {
            Check.matrix(
                    "gateUpBias", gateUpBias, DType.F32, "numExperts", experts, "gateUp", columns);
        }
        if (downBias != null) {
            Check.matrix("downBias", downBias, DType.F32, "numExperts", experts, "hidden", hidden);
        }
    }

    /**
     * Experts in the bank.
     *
     * @return E
     */
    public int numExperts() {
        return (int) gateUp.dim(0);
    }

    /**
     * Width of an expert's input and output.
     *
     * @return H
     */
    public long hidden() {
        return gateUp.dim(2);
    }

    /**
     * Width between the two products.
     *
     * @return I
     */
    public long intermediate() {
        return down.dim(2);
    }
}
