package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.List;

/**
 * All numbers of a MoE layer.
 *
 * @param routers one per token type
 * @param experts the routed experts, one bank per token type
 * @param shared the expert of every token, or null
 * @param sharedGate F32 [1, 1, H]: sigmoid(x g) multiplies the shared expert's output; or null
 * @param latentIn F32, F16 or BF16 [1, L, H]: routed experts see x latentIn^T; or null
 * @param latentOut same type [1, H, L]: brings the routed experts' sum back to H; null together
 *     with latentIn
 * @param outputBias F32 [1, H]: added to the output once per token, or null
 */
public record MoeWeights(
        List<RouterWeights> routers,
        List<ExpertWeights> experts,
        @Nullable ExpertWeights shared,
        @Nullable Tensor sharedGate,
        @Nullable Tensor latentIn,
        @Nullable Tensor latentOut,
        @Nullable Tensor outputBias) {
    /** Copies the lists. */
    public MoeWeights {
        routers = List.copyOf(routers);
        experts = List.copyOf(experts);
    }
}
