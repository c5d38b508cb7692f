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
        SQUARED_RELU(false),
        /**
         * gelu(u) = u Phi(u), with Phi(u) = (1 + erf(u / sqrt 2)) / 2. Hendrycks and Gimpel 2016,
         * "Gaussian Error Linear Units".
         */
        GELU(false),
        /**
         * u (1 + tanh(z)) / 2 = u sigmoid(2z), with z = sqrt(2 / pi) (u + 0.044715 u^3): the
         * approximation of {@link #GELU} in the same paper.
         */
        GELU_TANH(false),
        /** u: experts that are one linear map of low rank, or a check without any activation. */
        LINEAR(false),
        /** gelu(g) u, with the gelu of {@link #GELU}. Shazeer 2020, as the other gated kinds. */
        GEGLU(true),
        /** gelu(g) u, with the approximation of {@link #GELU_TANH}; Grok-1, T5 1.1. */
        GEGLU_TANH(true),
        /** max(g, 0) u. */
        REGLU(true),
        /**
         * sigmoid(g) u. Dauphin et al. 2016, "Language Modeling with Gated Convolutional Networks".
         */
        GLU(true),
        /** g u. */
        BILINEAR(true);

        private final boolean gated;

        Kind(boolean gated) {
            this.gated = gated;
        }
    }

    /** Slope inside the sigmoid of {@link Kind#CLAMPED_SWIGLU}. */
    public static final double CLAMPED_SWIGLU_ALPHA = 1.702;

    /** Factor of u^3 in {@link Kind#GELU_TANH}. */
    public static final double GELU_TANH_CUBE = 0.044715;

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
