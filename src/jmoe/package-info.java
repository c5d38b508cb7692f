/**
 * jmoe: Mixture-of-Experts layers on the JVM.
 *
 * <p><b>The layer.</b> For T tokens x [T, H], E experts, K experts per token:
 *
 * <pre>
 * logits        = x router^T                        groupedGemm with one group, always F32
 *                 shaped, if the rule says so       shapeLogits; before it jitter, normaliseRows
 * ids, weights  = rule(logits)                      route          [T, K]
 * rowToSlot     = stable argsort(ids)               sortByExpert   a slot is token * K + k
 * rows[r]       = x[rowToSlot[r] / K]               permute        [T K, H], rows of an expert together
 * gateUp        = rows gateUp[e]^T                  groupedGemm    [T K, 2 I]
 * hidden        = silu(gate) * up                   swiglu         [T K, I]
 * expertRows    = hidden down[e]^T                  groupedGemm    [T K, H]
 * y[t]          = shared(x[t]) + sum_k weights[t,k] expertRows[slotToRow[t,k]]      unpermute
 * </pre>
 *
 * <p><b>Start here.</b> {@link jmoe.MoeLayer} loads and runs a layer, {@link jmoe.CapturedLayer}
 * runs it again and again on a GPU; {@link jmoe.PeerLayer} and {@link jmoe.SoftMoeLayer} are
 * schemes of another kind; {@link jmoe.Backend} says where; {@link jmoe.ops.Kernels} specifies each
 * operation by itself, on {@link jmoe.tensor.Tensor} views of off-heap memory; {@link
 * jmoe.ops.RouterConfig} says how tokens find experts; {@link jmoe.Presets} has the layers of
 * published models.
 *
 * <p><b>Words.</b> tokens T, hidden H, intermediate I, numExperts E, topK K; the <em>router</em> is
 * the linear layer and its scores, <em>gate</em> is only the SwiGLU half; a <em>slot</em> is one of
 * a token's K choices, a <em>row</em> a position in expert order; {@code permute} and {@code
 * unpermute} reorder locally; an <em>identity</em> expert returns its input, a <em>null</em> expert
 * nothing, a <em>constant</em> expert mixes it with a trained vector; a <em>factor</em> multiplies,
 * a <em>scale</em> is a quantisation factor, and only {@code expertScale} keeps the name that its
 * model gave it.
 *
 * <p><b>Conventions.</b> Nothing that is passed in is owned: arenas belong to the caller. Outputs
 * are overwritten. Errors name the argument, what was expected and what came, before any work
 * starts. All sizes and row offsets are 64-bit. Every result is the same bits for any number of
 * threads, and a token's result does not depend on its batch, except where the model itself couples
 * tokens (capacity, product keys of Doge, rules that choose by batch, Soft-MoE) or gives a token
 * noise by its place in the batch.
 */
@NullMarked
package jmoe;

import org.jspecify.annotations.NullMarked;
