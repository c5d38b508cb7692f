package jmoe.ops;

/**
 * What happens to a token before its router multiplies it, and for the router alone: experts, the
 * shared expert and its gate read x as it is. A {@link RouterConfig} has a jitter, a cosine, or
 * both in this order.
 */
public sealed interface InputTransform {
    /**
     * {@code x f} with factors f that are uniform between 1 - epsilon and 1 + epsilon, one for each
     * element: {@link Kernels#jitter}. Fedus et al. 2021, "Switch Transformers", train so with
     * epsilon 0.01; it is {@code multiplicative_jitter} of Mesh TensorFlow and {@code jitter_noise}
     * of Flaxformer. Evaluation is a rule without it.
     *
     * @param seed of the factors
     * @param epsilon largest relative change; 0 to 1
     */
    record Jitter(long seed, double epsilon) implements InputTransform {
        /** Checks the number. */
        public Jitter {
            RouterConfig.require(epsilon >= 0 && epsilon <= 1, "epsilon", "0 to 1", epsilon);
        }
    }

    /**
     * {@code p / (|p| + epsilon)} with {@code p = x projection^T}, or {@code p = x} where {@link
     * RouterWeights#projection} is null. With rows of the weight that have length 1, which {@link
     * RouterWeights#normalised} makes and a layer has, logits are cosines of tokens and experts:
     * Chi et al. 2022, "On the representation collapse of sparse mixture of experts" (X-MoE), and
     * the cosine gate of Tutel, both with a {@link LogitTransform.Temperature} behind it.
     *
     * @param epsilon added to each length, so that zeros stay zeros; finite, at least 0
     */
    record Cosine(double epsilon) implements InputTransform {
        /** Checks the number. */
        public Cosine {
            RouterConfig.requireAtLeast0("epsilon", epsilon);
        }
    }
}
