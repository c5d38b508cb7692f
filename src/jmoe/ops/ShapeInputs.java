package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What {@link Kernels#shapeLogits} reads besides the logits; each may be null where the transforms
 * do not ask for it.
 *
 * @param tokenTypes I32 [tokens], as in {@link RouteInputs}
 * @param noiseLogits F32 [tokens, numLogits], the h of {@link LogitTransform.LearnedNoise}
 * @param step I32 [1], number of the step, as 32 bits without sign, for every kind of noise; null
 *     for 0. A tensor, so that one captured pass can be replayed for many steps
 */
public record ShapeInputs(
        @Nullable Tensor tokenTypes, @Nullable Tensor noiseLogits, @Nullable Tensor step) {
    /** Logits are all there is. */
    public static final ShapeInputs NONE = new ShapeInputs(null, null, null);

    /**
     * The tensors that are there.
     *
     * @return by their names, in a map of the caller's own
     */
    public Map<String, Tensor> named() {
        Map<String, Tensor> named = new LinkedHashMap<>();
        put(named, "tokenTypes", tokenTypes);
        put(named, "noiseLogits", noiseLogits);
        put(named, "step", step);
        return named;
    }

    private static void put(Map<String, Tensor> named, String name, @Nullable Tensor tensor) {
        if (tensor != null) {
            named.put(name, tensor);
        }
    }
}
