package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * A router, and the gate of the shared expert, which reads the same tokens.
 *
 * @param rule how logits become experts and weights
 * @param weights how a token becomes logits; {@linkplain RouterWeights#normalised normalised} if
 *     they are to be cosines
 * @param sharedGate F32, F16 or BF16 [1, 1, H]: the shared expert's weight is sigmoid(x g); null if
 *     there is no such gate
 * @param noiseStep I32 [1], the step of {@link ShapeInputs} and {@link Kernels#jitter}; null for 0
 * @param activeExperts I32 [numExperts], as in {@link RouteInputs}; null if all are active
 */
public record Router(
        RouterConfig rule,
        RouterWeights weights,
        @Nullable Tensor sharedGate,
        @Nullable Tensor noiseStep,
        @Nullable Tensor activeExperts) {
    /** Checks types and shapes against each other. */
    public Router {
        if (weights.weight().dim(1) != rule.numLogits()) {
            throw Check.mismatch(
                    "weight", "[1, numLogits=" + rule.numLogits() + ", hidden]", weights.weight());
        }
        if (sharedGate != null) {
            boolean usable =
                    RouterWeights.isTrained(sharedGate)
                            && sharedGate.rank() == 3
                            && sharedGate.numElements() == sharedGate.dim(2)
                            && sharedGate.dim(2) == weights.hidden();
            if (!usable) {
                String shape = "[1, 1, hidden=" + weights.hidden() + "]";
                throw Check.mismatch("sharedGate", "F32, F16 or BF16 " + shape, sharedGate);
            }
        }
        weights.requireNoiseFor(rule);
        weights.requireCosineFor(rule);
        weights.requireTableOf(rule);
        RouteChecks.activeExperts(rule, activeExperts);
        if (noiseStep != null) {
            Check.vector("noiseStep", noiseStep, DType.I32, "steps", 1);
        }
    }

    /**
     * A router at step 0.
     *
     * @param rule as {@link #rule}
     * @param weights as {@link #weights}
     * @param sharedGate as {@link #sharedGate}
     */
    public Router(RouterConfig rule, RouterWeights weights, @Nullable Tensor sharedGate) {
        this(rule, weights, sharedGate, null);
    }

    /**
     * A router all of whose experts are active.
     *
     * @param rule as {@link #rule}
     * @param weights as {@link #weights}
     * @param sharedGate as {@link #sharedGate}
     * @param noiseStep as {@link #noiseStep}
     */
    public Router(
            RouterConfig rule,
            RouterWeights weights,
            @Nullable Tensor sharedGate,
            @Nullable Tensor noiseStep) {
        this(rule, weights, sharedGate, noiseStep, null);
    }
}
