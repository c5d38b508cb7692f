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
 * @param intermediates I of the routed experts, one per token type
 * @param sharedIntermediate I of the shared expert, 0 if there is none
 * @param sharedGated whether the shared expert's output is multiplied by sigmoid of a learned
 *     projection
 * @param outputFactor multiplies the routed experts' sum (evaluation of expert dropout; nearly
 *     always 1)
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
        double outputFactor) {
    /** Checks the sizes against each other. */
    public MoeConfig {
        routers = List.copyOf(routers);
        intermediates = List.copyOf(intermediates);
        if (routers.isEmpty() || routers.size() != intermediates.size()) {
            throw new IllegalArgumentException(
                    "intermediates: expected one per router="
                            + routers.size()
                            + ", got "
                            + intermediates.size());
        }
        for (RouterConfig router : routers) {
            if (router.selection() instanceof RouterConfig.Selection.Hash) {
                throw new IllegalArgumentException(
                        "routers: expected rules that read logits, got "
                                + router
                                + "; a layer does not know its tokens' ids, so call Kernels.route");
            }
            if (router.numExperts() != numExperts + numIdentityExperts
                    || router.topK() != routers.getFirst().topK()) {
                throw new IllegalArgumentException(
                        "routers: expected numExperts="
                                + (numExperts + numIdentityExperts)
                                + " and one topK, got "
                                + router);
            }
            if (router.weightOnInput() && (numIdentityExperts > 0 || router.capacity() != null)) {
                throw new IllegalArgumentException(
                        "weightOnInput: expected neither identity experts nor a capacity with it,"
                                + " because their weight belongs to the output; got "
                                + router);
            }
        }
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
