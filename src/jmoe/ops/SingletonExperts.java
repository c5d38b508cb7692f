package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.Tensor;

/**
 * Experts of a single neuron each: {@code expert(x) = function(x . up[e]) down[e]}. A layer has
 * very many of them, found by product keys: PEER; He 2024, "Mixture of A Million Experts".
 *
 * @param up F32, F16 or BF16 [numExperts, H]: what a neuron looks for
 * @param down same type [numExperts, H]: what it adds to the token
 * @param function what a neuron makes of its sum
 */
public record SingletonExperts(Tensor up, Tensor down, Function function) {
    /** What a neuron makes of its sum a. */
    public enum Function {
        /** a Phi(a), with Phi the distribution of a normal number, by erf; Hendrycks 2016. */
        GELU,
        /** max(a, 0). */
        RELU,
        /** a sigmoid(a). */
        SILU;

        /**
         * The function.
         *
         * @param a the sum
         * @return its value, in double; NaN for NaN, and of GELU and SILU also for minus infinity
         */
        public double of(double a) {
            return switch (this) {
                case GELU -> a * (0.5 * ErrorFunction.complement(-a / Math.sqrt(2)));
                case RELU -> Math.max(a, 0);
                case SILU -> a / (1 + Math.exp(-a));
            };
        }
    }

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
