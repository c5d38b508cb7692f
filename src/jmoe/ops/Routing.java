package jmoe.ops;

import jmoe.tensor.Allocator;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * Which expert sees which token. Two orders exist: a <em>slot</em> is token * topK + k, a
 * <em>row</em> is a position in expert order. {@link Kernels#route} fills the first two tensors,
 * {@link Kernels#sortByExpert} the others.
 *
 * @param topkIds I32 [tokens, topK]; an id outside 0..numExperts-1 (by convention -1) means no
 *     expert
 * @param topkWeights F32 [tokens, topK]
 * @param tokensPerExpert I32 [numExperts]; slots of each expert
 * @param expertOffsets I32 [numExperts + 1]; first row of each expert, last entry = number of rows,
 *     or where the rows of {@link #experts some of the experts} end
 * @param rowToSlot I32 [tokens * topK]; the slot of each row; entries past the last row are
 *     undefined
 * @param slotToRow I32 [tokens, topK]; the row of each slot, -1 for a slot without an expert
 */
public record Routing(
        Tensor topkIds,
        Tensor topkWeights,
        Tensor tokensPerExpert,
        Tensor expertOffsets,
        Tensor rowToSlot,
        Tensor slotToRow) {
    /** Checks types and shapes against each other. */
    public Routing {
        if (topkIds.rank() != 2) {
            throw Check.mismatch("topkIds", "I32 [tokens, topK]", topkIds);
        }
        long tokens = topkIds.dim(0);
        long topK = topkIds.dim(1);
        if (topK > 0 && tokens > Integer.MAX_VALUE / topK) {
            throw Check.mismatch("topkIds", "fewer than 2^31 slots", topkIds);
        }
        long numExperts = tokensPerExpert.numElements();
        Check.matrix("topkIds", topkIds, DType.I32, "tokens", tokens, "topK", topK);
        Check.matrix("topkWeights", topkWeights, DType.F32, "tokens", tokens, "topK", topK);
        Check.vector("tokensPerExpert", tokensPerExpert, DType.I32, "numExperts", numExperts);
        Check.vector("expertOffsets", expertOffsets, DType.I32, "numExperts + 1", numExperts + 1);
        Check.vector("rowToSlot", rowToSlot, DType.I32, "tokens * topK", tokens * topK);
        Check.matrix("slotToRow", slotToRow, DType.I32, "tokens", tokens, "topK", topK);
    }

    /**
     * Allocates all six tensors on the host, zeroed.
     *
     * @param arena owner of the memory
     * @param tokens T
     * @param topK K
     * @param numExperts E
     * @return the tensors
     */
    public static Routing allocate(Arena arena, long tokens, int topK, int numExperts) {
        Allocator host = (dtype, shape) -> Tensor.allocate(arena, dtype, shape);
        return allocate(host, tokens, topK, numExperts);
    }

    /**
     * Allocates all six tensors where a backend computes.
     *
     * @param memory for example {@link Kernels#allocate} for some arena; the content is what it
     *     leaves there
     * @param tokens T
     * @param topK K
     * @param numExperts E
     * @return the tensors
     */
    public static Routing allocate(Allocator memory, long tokens, int topK, int numExperts) {
        return new Routing(
                memory.allocate(DType.I32, tokens, topK),
                memory.allocate(DType.F32, tokens, topK),
                memory.allocate(DType.I32, numExperts),
                memory.allocate(DType.I32, numExperts + 1L),
                memory.allocate(DType.I32, tokens * topK),
                memory.allocate(DType.I32, tokens, topK));
    }

    /**
     * Views the same memory for fewer tokens.
     *
     * @param tokens at most {@link #tokens}
     * @return a view of the first tokens
     */
    public Routing first(long tokens) {
        return tokens == tokens()
                ? this
                : new Routing(
                        topkIds.slice(0, tokens),
                        topkWeights.slice(0, tokens),
                        tokensPerExpert,
                        expertOffsets,
                        rowToSlot.slice(0, tokens * topK()),
                        slotToRow.slice(0, tokens));
    }

    /**
     * Views the same memory for some of the experts, whose first row need not be row 0: so that a
     * product computes their rows only, among those of the others.
     *
     * @param first id of the first one
     * @param count experts, with the ids that follow
     * @return a view with offsets of these experts; its maps are those of all
     */
    public Routing experts(int first, int count) {
        return first == 0 && count == numExperts()
                ? this
                : new Routing(
                        topkIds,
                        topkWeights,
                        tokensPerExpert.slice(first, count),
                        expertOffsets.slice(first, count + 1L),
                        rowToSlot,
                        slotToRow);
    }

    /**
     * Tokens.
     *
     * @return T
     */
    public long tokens() {
        return topkIds.dim(0);
    }

    /**
     * Slots per token.
     *
     * @return K
     */
    public int topK() {
        return (int) topkIds.dim(1);
    }

    /**
     * Experts.
     *
     * @return E
     */
    public int numExperts() {
        return (int) tokensPerExpert.dim(0);
    }
}
