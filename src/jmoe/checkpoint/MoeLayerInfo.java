package jmoe.checkpoint;

import jmoe.ops.MoeConfig;
import jmoe.tensor.DType;

/**
 * A MoE layer of a checkpoint, known without reading its weights.
 *
 * @param layer its number in the model, dense layers counted; in encoder-decoder models the
 *     decoder's layers follow the encoder's
 * @param prefix what its tensors' names begin with, for example {@code
 *     model.layers.0.block_sparse_moe.}
 * @param config what it computes
 * @param selectionBias whether a learned bias takes part in the selection
 * @param storedType type of the routed experts in the file
 * @param totalParameters elements of all tensors of the layer
 * @param activeParameters elements that one token uses: the router, the shared expert, latent
 *     projections, and K of the E routed experts. With identity experts this is an upper bound,
 *     because those have no elements; with a bank per token type it counts the first type's
 */
public record MoeLayerInfo(
        int layer,
        String prefix,
        MoeConfig config,
        boolean selectionBias,
        DType storedType,
        long totalParameters,
        long activeParameters) {}
