package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.Tensor;

/**
 * All numbers of a Soft-MoE layer: slot s belongs to expert s / slotsPerExpert. Puigcerver et al.
 * 2023, "From Sparse to Soft Mixtures of Experts".
 *
 * @param slots F32, F16 or BF16 [numSlots, H], a multiple of the experts: what each slot looks for
 *     (Phi, transposed)
 * @param factor multiplies the logits, which are cosines without it; finite
 * @param experts the experts
 */
public record SoftMoeWeights(Tensor slots, double factor, ExpertWeights experts) {
    /** Checks shapes against each other. */
    public SoftMoeWeights {
        Check.floating("slots", slots, "[numSlots, hidden]", 2);
        long numExperts = experts.numExperts();
        if (slots.dim(0) < 1
                || slots.dim(0) > Integer.MAX_VALUE
                || slots.dim(0) % numExperts != 0
                || slots.dim(1) != experts.hidden()) {
            throw Check.mismatch(
                    "slots",
                    "[a multiple of numExperts="
                            + numExperts
                            + ", hidden="
                            + experts.hidden()
                            + "]",
                    slots);
        }
        if (!Double.isFinite(factor)) {
            throw new IllegalArgumentException("factor: expected a finite number, got " + factor);
        }
    }

    /**
     * Slots of all experts.
     *
     * @return how many
     */
    public int numSlots() {
        return (int) slots.dim(0);
    }
}
