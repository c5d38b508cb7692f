package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * The six operations of a MoE layer. A backend is one class that implements them; the plain loops
 * of {@code jmoe.reference} say what they mean, and every backend is tested against those.
 *
 * <p><b>Common rules.</b> Floating-point arguments may be F32, F16, BF16 (the reference: also F64),
 * each independently; sums are accumulated in at least F32 and rounded once to the output's type.
 * Matrices are dense and row-major. Outputs are overwritten, never accumulated into, and must not
 * share memory with inputs unless a parameter says so. Arguments are checked before any work
 * starts:
 *
 * <ul>
 *   <li>{@link IllegalArgumentException} for a wrong type or shape, shared or read-only outputs;
 *   <li>{@link IllegalStateException} if an arena is closed;
 *   <li>{@link WrongThreadException} for memory confined to another thread;
 *   <li>{@link UnsupportedOperationException} if the backend lacks the type.
 * </ul>
 *
 * <p>Each call gives the same bits when repeated, for any number of threads; a row of the output
 * depends only on the token it belongs to, not on the batch (except with capacity or product keys
 * in {@link #route}). An instance may be used by several threads; calls then run one after the
 * other.
 */
public interface Kernels extends AutoCloseable {
    /**
     * Selects experts: {@code topkIds, topkWeights = rule(logits)}.
     *
     * <p>A NaN logit is never selected while there are K numbers, with groups in those that are
     * kept, and makes the weights NaN that depend on it. So does an infinite maximum of a softmax.
     * NaN weights have the bits 0x7fc00000. Ids stay unique and in range whatever the logits. With
     * product keys, experts are ordered by the sum in double.
     *
     * @param logits in, F32 or F64 [tokens, numLogits]
     * @param config the rule
     * @param selectionBias in, F32 [numExperts], or null
     * @param tokenTypes in, I32 [tokens], or null; with {@link RouterConfig#tokenType} set, the
     *     other tokens get ids -1 and weights 0
     * @param routing out: topkIds, by falling candidate, and topkWeights; the other tensors are not
     *     touched
     */
    void route(
            Tensor logits,
            RouterConfig config,
            @Nullable Tensor selectionBias,
            @Nullable Tensor tokenTypes,
            Routing routing);

    /**
     * Sorts slots by expert, stably: {@code rowToSlot = argsort(topkIds)}.
     *
     * <p>Slots whose id is outside 0..numExperts-1 get no row.
     *
     * @param routing in: topkIds; out: tokensPerExpert, expertOffsets, rowToSlot, slotToRow
     */
    void sortByExpert(Routing routing);

    /**
     * Copies token rows into expert order: {@code rows[r] = w[r] x[rowToSlot[r] / topK]}.
     *
     * @param x in, [tokens, H]
     * @param routing in: rowToSlot, expertOffsets (for the number of rows)
     * @param weights in, F32 [tokens, topK] by slot, or null for 1; the product is rounded to the
     *     type of rows
     * @param rows out, [tokens * topK, H]; rows past the last are not touched
     */
    void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows);

    /**
     * Multiplies each expert's rows by its matrix: {@code y[r] = x[r] weight[e]^T + bias[e]} for
     * {@code expertOffsets[e] <= r < expertOffsets[e + 1]}. With one group this is a dense linear
     * layer.
     *
     * @param x in, [rows, inputs]
     * @param weight in, [groups, outputs, inputs]
     * @param bias in, F32 [groups, outputs], or null
     * @param expertOffsets in, I32 [groups + 1]; first entry 0, rising, last at most rows (not
     *     checked on a device)
     * @param y out, [rows, outputs]; rows past the last offset are not touched
     */
    void groupedGemm(
            Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y);

    /**
     * Applies the activation: {@code hidden[r] = activation(gateUp[r])}, gate in the first I
     * columns, up in the others.
     *
     * @param gateUp in, [rows, 2I], or [rows, I] if the activation is not gated
     * @param activation the function
     * @param expertOffsets in, I32 [G + 1]; the last entry is the number of rows
     * @param hidden out, [rows, I]; rows past the last are not touched
     */
    void swiglu(Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden);

    /**
     * Sums rows back into tokens, in slot order: {@code y[t] = addend[t] + factor * sum_k w[t,k]
     * v[t,k]}, where v is {@code rows[slotToRow[t,k]]}, or {@code identity[t]} for an id of {@code
     * firstIdentity} or above. A slot without a row or with weight 0 adds nothing; identity experts
     * have rows like the others, so the routing counts them among its experts.
     *
     * @param rows in, [tokens * topK, H]
     * @param routing in: slotToRow; topkIds if identity is given
     * @param weights in, F32 [tokens, topK], or null for 1
     * @param residual in: what else belongs to the sum
     * @param y out, [tokens, H]; may be the same tensor as the addend
     */
    void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y);

    /**
     * What {@link #unpermute} adds besides the experts' rows.
     *
     * @param addend [tokens, H], or [1, H] for every token, or null for 0
     * @param identity [tokens, H]: output of the identity experts, or null if there are none
     * @param firstIdentity lowest id of an identity expert
     * @param factor multiplies the sum over slots, not the addend
     */
    record Residual(
            @Nullable Tensor addend, @Nullable Tensor identity, int firstIdentity, double factor) {
        /** Nothing besides the rows. */
        public static final Residual NONE = new Residual(null, null, Integer.MAX_VALUE, 1);

        /**
         * Only an addend.
         *
         * @param addend [tokens, H] or [1, H], or null
         * @return the residual
         */
        public static Residual of(@Nullable Tensor addend) {
            return new Residual(addend, null, Integer.MAX_VALUE, 1);
        }
    }

    /**
     * Releases threads and memory of the backend, after which its operations throw {@link
     * IllegalStateException}. A backend that holds neither, as the reference, goes on working.
     */
    @Override
    default void close() {}
}
