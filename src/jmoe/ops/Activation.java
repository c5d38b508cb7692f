package jmoe.ops;

/**
 * What an expert does between its two matrix products.
 *
 * @param kind the function
 * @param limit bound of the clamps of {@link Kind#CLAMPED_SWIGLU}; infinite otherwise
 */
public record Activation(Kind kind, float limit) {
    /** The functions; g and u are the gate and up halves, of ungated kinds there is only u. */
    public enum Kind {
        /**
         * silu(g) u, with silu(g) = g sigmoid(g). Shazeer 2020, "GLU Variants Improve Transformer".
         */
        SWIGLU(true),
        /**
         * g' sigmoid(1.702 g') (u' + 1), with g' = min(g, limit) and u' = clamp(u, -limit, limit);
         * gpt-oss.
         */
        CLAMPED_SWIGLU(true),
        /** silu(u). */
        SILU(false),
        /** max(u, 0). */
        RELU(false),
        /** max(u, 0)^2. */
        SQUARED_RELU(false);

        private final boolean gated;

        Kind(boolean gated) {
            this.gated = gated;
        }
    }

    /** Slope inside the sigmoid of {@link Kind#CLAMPED_SWIGLU}. */
    public static final double CLAMPED_SWIGLU_ALPHA = 1.702;

    /** The common case. */
    public static final Activation SWIGLU = of(Kind.SWIGLU);

    /**
     * An activation without a limit.
     *
     * @param kind any but {@link Kind#CLAMPED_SWIGLU}
     * @return the activation
     */
    public static Activation of(Kind kind) {
        return new Activation(kind, Float.POSITIVE_INFINITY);
    }

    /**
     * The activation of gpt-oss.
     *
     * @param limit bound of the clamps, 7 in the published models
     * @return the activation
     */
    public static Activation clampedSwiglu(float limit) {
        return new Activation(Kind.CLAMPED_SWIGLU, limit);
    }

    /**
     * Whether there is a gate half.
     *
     * @return true if the first product has 2I columns (gate, then up), false if it has I
     */
    public boolean gated() {
        return kind.gated;
    }
}
