package jmoe.ops;

import java.util.List;

/**
 * What a MoE layer computes, without its numbers.
 *
 * @param family model type as in config.json
 * @param hidden H: width of the layer's input and output
 * @param expertHidden width of the routed experts' input and output: H, or less with latent
 *     projections
 * @param numExperts routed experts with weights, per token type
 * @param numIdentityExperts experts without weights that return their input; their ids follow the
 *     others'
 * @param activation of every expert
 * @param routers one per token type, nearly always one
 * @param intermediates I of the routed experts, one per token type; of the largest where they
 *     differ in size
 * @param sharedIntermediate I of the shared expert, 0 if there is none
 * @param sharedGated whether the shared expert's output is multiplied by sigmoid of a learned
 *     projection
 * @param outputFactor multiplies the routed experts' sum (evaluation of expert dropout; nearly
 *     always 1)
 * @param numNullExperts experts that return nothing, so that a token may have fewer than K; their
 *     ids follow those of identity experts
 * @param sizeClasses where experts with weights differ in size: for each token type, their sizes in
 *     the order of their ids; empty where each token type has one size, as nearly always
 * @param numConstantExperts experts that mix their input with a constant, {@link ConstantExperts};
 *     their ids follow those of null experts
 */
public record MoeConfig(
        String family,
        int hidden,
        int expertHidden,
        int numExperts,
        int numIdentityExperts,
        Activation activation,
        List<RouterConfig> routers,
        List<Integer> intermediates,
        int sharedIntermediate,
        boolean sharedGated,
        double outputFactor,
        int numNullExperts,
        List<List<SizeClass>> sizeClasses,
        int numConstantExperts) {
    /**
     * A layer without null experts.
     *
     * @param family as above
     * @param hidden as above
     * @param expertHidden as above
     * @param numExperts as above
     * @param numIdentityExperts as above
     * @param activation as above
     * @param routers as above
     * @param intermediates as above
     * @param sharedIntermediate as above
     * @param sharedGated as above
     * @param outputFactor as above
     */
    public MoeConfig(
            String family,
            int hidden,
            int expertHidden,
            int numExperts,
            int numIdentityExperts,
            Activation activation,
            List<RouterConfig> routers,
            List<Integer> intermediates,
            int sharedIntermediate,
            boolean sharedGated,
            double outputFactor) {
        this(
                family,
                hidden,
                expertHidden,
                numExperts,
                numIdentityExperts,
                activation,
                routers,
                intermediates,
                sharedIntermediate,
                sharedGated,
                outputFactor,
                0);
    }

    /**
     * A layer whose experts have one size, without constant experts.
     *
     * @param family as above
     * @param hidden as above
     * @param expertHidden as above
     * @param numExperts as above
     * @param numIdentityExperts as above
     * @param activation as above
     * @param routers as above
     * @param intermediates as above
     * @param sharedIntermediate as above
     * @param sharedGated as above
     * @param outputFactor as above
     * @param numNullExperts as above
     */
    public MoeConfig(
            String family,
            int hidden,
            int expertHidden,
            int numExperts,
            int numIdentityExperts,
            Activation activation,
            List<RouterConfig> routers,
            List<Integer> intermediates,
            int sharedIntermediate,
            boolean sharedGated,
            double outputFactor,
            int numNullExperts) {
        this(
                family,
                hidden,
                expertHidden,
                numExperts,
                numIdentityExperts,
                activation,
                routers,
                intermediates,
                sharedIntermediate,
                sharedGated,
                outputFactor,
                numNullExperts,
                List.of(),
                0);
    }

    /** Checks the sizes against each other. */
    public MoeConfig {
        routers = List.copyOf(routers);
        intermediates = List.copyOf(intermediates);
        sizeClasses = sizeClasses.stream().map(List::copyOf).toList();
        if (routers.isEmpty() || routers.size() != intermediates.size()) {
            throw new IllegalArgumentException(
                    "intermediates: expected one per router="
                            + routers.size()
                            + ", got "
                            + intermediates.size());
        }
        if (!sizeClasses.isEmpty()) {
            requireSizes(sizeClasses, numExperts, intermediates);
        }
        requireAtLeast0("numIdentityExperts", numIdentityExperts);
        requireAtLeast0("numNullExperts", numNullExperts);
        requireAtLeast0("numConstantExperts", numConstantExperts);
        int all = numExperts + numIdentityExperts + numNullExperts + numConstantExperts;
        for (RouterConfig router : routers) {
            if (router.numExperts() != all || router.topK() != routers.getFirst().topK()) {
                throw new IllegalArgumentException(
                        "routers: expected numExperts=" + all + " and one topK, got " + router);
            }
            if (router.numLogits() != routers.getFirst().numLogits()) {
                throw new IllegalArgumentException(
                        "routers: expected one numLogits="
                                + routers.getFirst().numLogits()
                                + ", got "
                                + router);
            }
            boolean weightless = numIdentityExperts > 0 || numConstantExperts > 0;
            if (router.weightOnInput() && (weightless || router.capacity() != null)) {
                throw new IllegalArgumentException(
                        "weightOnInput: expected neither identity or constant experts nor a"
                                + " capacity with it, because their weight belongs to the output;"
                                + " got "
                                + router);
            }
        }
    }

    private static void requireAtLeast0(String name, int number) {
        if (number < 0) {
            throw new IllegalArgumentException(name + ": expected at least 0, got " + number);
        }
    }

    private static void requireSizes(
            List<List<SizeClass>> sizeClasses, int numExperts, List<Integer> intermediates) {
        if (sizeClasses.size() != intermediates.size()) {
            throw new IllegalArgumentException(
                    "sizeClasses: expected a list per token type="
                            + intermediates.size()
                            + ", or none, got "
                            + sizeClasses.size());
        }
        for (int type = 0; type < intermediates.size(); type++) {
            int experts = 0;
            int largest = 0;
            for (SizeClass ofType : sizeClasses.get(type)) {
                experts += ofType.numExperts();
                largest = Math.max(largest, ofType.intermediate());
            }
            if (experts != numExperts || largest != intermediates.get(type)) {
                throw new IllegalArgumentException(
                        "sizeClasses: expected numExperts="
                                + numExperts
                                + " of which the largest has intermediate="
                                + intermediates.get(type)
                                + ", got "
                                + sizeClasses.get(type));
            }
        }
    }

    /**
     * Sizes of the experts with weights, in the order of their ids.
     *
     * @param type of tokens
     * @return one class where all have one size
     */
    public List<SizeClass> sizeClasses(int type) {
        return sizeClasses.isEmpty()
                ? List.of(new SizeClass(numExperts, intermediates.get(type)))
                : sizeClasses.get(type);
    }

    /**
     * Whether experts of a token type differ in size.
     *
     * @return true if there are {@link #sizeClasses()}
     */
    public boolean mixesSizes() {
        return !sizeClasses.isEmpty();
    }

    /**
     * Id of the first constant expert.
     *
     * @return how many experts of other kinds there are
     */
    public int firstConstant() {
        return numExperts + numIdentityExperts + numNullExperts;
    }

    /**
     * Experts per token.
     *
     * @return K
     */
    public int topK() {
        return routers.getFirst().topK();
    }

    /**
     * Kinds of tokens that have routers and experts of their own.
     *
     * @return 1 unless the model separates modalities
     */
    public int numTokenTypes() {
        return routers.size();
    }
}
