package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What {@link Kernels#route} reads besides the logits; each may be null where the rule does not ask
 * for it. {@code RouteInputs.NONE.withTokenTypes(types)} names what it gives.
 *
 * @param selectionBias F32 [numExperts], added to the scores for the selection only; or null for 0.
 *     Experts with +infinity are chosen by every token, each with the weight that its score gives
 *     it: so are the shared experts of a joint softmax (Uni-MoE-Audio)
 * @param tokenTypes I32 [tokens]; a token of negative type is absent. Null if all are there and the
 *     router serves every type
 */
public record RouteInputs(@Nullable Tensor selectionBias, @Nullable Tensor tokenTypes) {
    /** Logits are all there is. */
    public static final RouteInputs NONE = new RouteInputs(null, null);

    /**
     * These inputs with a selection bias.
     *
     * @param bias as {@link #selectionBias}
     * @return a copy
     */
    public RouteInputs withSelectionBias(@Nullable Tensor bias) {
        return new RouteInputs(bias, tokenTypes);
    }

    /**
     * These inputs with types of tokens.
     *
     * @param types as {@link #tokenTypes}
     * @return a copy
     */
    public RouteInputs withTokenTypes(@Nullable Tensor types) {
        return new RouteInputs(selectionBias, types);
    }

    /**
     * What a router's weights and its tokens say.
     *
     * @param weights the router
     * @param tokenTypes as {@link #tokenTypes}
     * @return what {@link Kernels#route} reads of them
     */
    public static RouteInputs of(RouterWeights weights, @Nullable Tensor tokenTypes) {
        return NONE.withSelectionBias(weights.selectionBias()).withTokenTypes(tokenTypes);
    }

    /**
     * The tensors that are there.
     *
     * @return by their names, in a map of the caller's own
     */
    public Map<String, Tensor> named() {
        Map<String, Tensor> named = new LinkedHashMap<>();
        put(named, "selectionBias", selectionBias);
        put(named, "tokenTypes", tokenTypes);
        return named;
    }

    private static void put(Map<String, Tensor> named, String name, @Nullable Tensor tensor) {
        if (tensor != null) {
            named.put(name, tensor);
        }
    }
}
