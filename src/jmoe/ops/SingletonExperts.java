package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.Tensor;

/**
 * Experts of a single neuron each: {@code expert(x) = activation(x . up[e]) down[e]}. A layer has
 * very many of them, found by product keys: PEER; He 2024, "Mixture of A Million Experts".
 *
 * @param up F32, F16 or BF16 [numExperts, H]: what a neuron looks for
 * @param down same type [numExperts, H]: what it adds to the token
 * @param activation what a neuron makes of its sum; of a kind without a gate
 */
public record SingletonExperts(Tensor up, Tensor down, Activation activation) {
    /** Checks types and shapes against each other. */
    public SingletonExperts {
        Check.floating("up", up, "[numExperts, hidden]", 2);
        Check.floating("down", down, "[numExperts, hidden]", 2);
        if (down.dtype() != up.dtype() || down.dim(0) != up.dim(0) || down.dim(1) != up.dim(1)) {
            throw Check.mismatch(
                    "down",
                    up.dtype() + " [numExperts=" + up.dim(0) + ", hidden=" + up.dim(1) + "]",
                    down);
        }
        if (activation.gated()) {
            throw new IllegalArgumentException(
                    "activation: expected a kind without a gate, got " + activation.kind());
        }
    }

    /**
     * Experts in the bank.
     *
     * @return E
     */
    public long numExperts() {
        return up.dim(0);
    }

    /**
     * Width of an expert's input and output.
     *
     * @return H
     */
    public long hidden() {
        return up.dim(1);
    }
}
