package jmoe.ops;

/**
 * What happens to a token's logits z before the rule reads them: {@link Kernels#shapeLogits}. A
 * {@link RouterConfig} has any of them, applied one after the other.
 *
 * <p>The noise n is made of nothing but its seed, the token's number in the batch, the expert, the
 * step and the place of the transform in the list: Philox4x32-10 (Salmon et al. 2011, "Parallel
 * random numbers: as easy as 1, 2, 3") with the seed as key, low half first, and the counter
 * (token, expert, step, place). The first two words w0 and w1 give {@code u = (w0 2^20 + floor(w1 /
 * 2^12) + 1/2) / 2^52}, and u the normal deviate by algorithm AS 241 (Wichura 1988, PPND16). It is
 * the same on every backend, in every pass of the same step.
 */
public sealed interface LogitTransform {
    /**
     * {@code z / tau}: above 1 the scores come closer together, below 1 they part. X-MoE (Chi et
     * al. 2022) divides its cosines so.
     *
     * @param tau divisor; finite, above 0
     */
    record Temperature(double tau) implements LogitTransform {
        /** Checks the number. */
        public Temperature {
            RouterConfig.requireAbove0("tau", tau);
        }
    }

    /**
     * {@code lambda (z - mean) / sd}, with mean and population standard deviation of the token's E
     * logits; zeros where all are equal, and NaN throughout where one is NaN or infinite. Wei et
     * al. 2024, "Skywork-MoE", normalise so in front of the softmax.
     *
     * @param lambda standard deviation afterwards; finite, above 0
     */
    record Standardise(double lambda) implements LogitTransform {
        /** Checks the number. */
        public Standardise {
            RouterConfig.requireAbove0("lambda", lambda);
        }
    }

    /**
     * {@code limit tanh(z / limit)}: keeps logits within the limit and their order, as far as F32
     * tells them apart. Gemma 2 (2024) caps its logits so.
     *
     * @param limit largest absolute value; finite, above 0
     */
    record Cap(double limit) implements LogitTransform {
        /** Checks the number. */
        public Cap {
            RouterConfig.requireAbove0("limit", limit);
        }
    }

    /**
     * {@code z + deviation n} with normal n. Riquelme et al. 2021, "Scaling vision with sparse
     * mixture of experts", take 1 / E for the deviation.
     *
     * @param seed of the noise
     * @param deviation standard deviation; finite, at least 0
     */
    record FixedNoise(long seed, double deviation) implements LogitTransform {
        /** Checks the number. */
        public FixedNoise {
            RouterConfig.requireAtLeast0("deviation", deviation);
        }
    }

    /**
     * {@code z + n (softplus(h) + 0.01)} with normal n and the noise logits h, which a second
     * linear layer makes of the token: noisy top-k gating of Shazeer et al. 2017, "Outrageously
     * large neural networks", with the floor of 0.01 of its source code. A rule has at most one.
     *
     * @param seed of the noise
     */
    record LearnedNoise(long seed) implements LogitTransform {}

    /**
     * {@code z - factor log(-log u)} with u uniform between 0 and 1: with factor 1, the best expert
     * is a sample of the softmax, and the K best are a sample without replacement (Gumbel 1954;
     * Kool et al. 2019, "Stochastic beams and where to find them").
     *
     * @param seed of the noise
     * @param factor of the noise; finite, at least 0
     */
    record GumbelNoise(long seed, double factor) implements LogitTransform {
        /** Checks the number. */
        public GumbelNoise {
            RouterConfig.requireAtLeast0("factor", factor);
        }
    }
}
