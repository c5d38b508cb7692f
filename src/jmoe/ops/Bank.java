package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * A bank of experts and the tokens that go to it. The shared expert is a bank of one, to which
 * every token goes: its routing is dense, with row t for token t.
 *
 * @param experts the weights
 * @param routing which expert sees which token; it may have more experts than there are weights
 *     for, whose rows are left out
 * @param inputWeights F32 [tokens, topK] by slot: multiplies an expert's input; null for 1
 * @param outputWeights F32 [tokens, topK] by slot: multiplies an expert's output; null for 1
 */
public record Bank(
        ExpertWeights experts,
        Routing routing,
        @Nullable Tensor inputWeights,
        @Nullable Tensor outputWeights) {
    /**
     * Rows that there can be.
     *
     * @return tokens * topK
     */
    public long slots() {
        return routing.tokens() * routing.topK();
    }

    /**
     * Offsets of the experts that have weights.
     *
     * @return I32 [E + 1]
     */
    public Tensor expertOffsets() {
        return routing.expertOffsets().slice(0, experts.numExperts() + 1L);
    }
}
