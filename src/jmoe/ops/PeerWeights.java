package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * All numbers of a PEER layer: every head asks with a query of two halves, and expert i n + j has
 * the score {@code q1 . keys[0, i] + q2 . keys[1, j]}. Heads have their own queries, and share keys
 * and experts. He 2024, "Mixture of A Million Experts".
 *
 * @param queries F32, F16 or BF16 [2, heads * D, H]: the first halves of all heads, then the
 *     second; a batch norm behind them is folded into these and the bias
 * @param queryBias F32 [2, heads * D], or null
 * @param keys F32, F16 or BF16 [2, n, D], D being the width of half a key
 * @param experts n^2 of them
 */
public record PeerWeights(
        Tensor queries, @Nullable Tensor queryBias, Tensor keys, SingletonExperts experts) {
    /** Checks shapes against each other. */
    public PeerWeights {
        Check.floating("keys", keys, "[2, numKeys, keyWidth]", 3);
        Check.floating("queries", queries, "[2, heads * keyWidth, hidden]", 3);
        long numKeys = keys.dim(1);
        long width = keys.dim(2);
        if (keys.dim(0) != 2 || numKeys < 1 || width < 1) {
            throw Check.mismatch("keys", "[2, numKeys, keyWidth], none of them 0", keys);
        }
        if (queries.dim(0) != 2
                || queries.dim(1) < 1
                || queries.dim(1) % width != 0
                || queries.dim(2) != experts.hidden()) {
            throw Check.mismatch(
                    "queries",
                    "[2, a multiple of keyWidth=" + width + ", hidden=" + experts.hidden() + "]",
                    queries);
        }
        if (queryBias != null) {
            long outputs = queries.dim(1);
            Check.matrix(
                    "queryBias", queryBias, DType.F32, "halves", 2, "heads * keyWidth", outputs);
        }
        if (numKeys > Integer.MAX_VALUE / numKeys || experts.numExperts() != numKeys * numKeys) {
            throw new IllegalArgumentException(
                    "experts: expected the square of numKeys="
                            + numKeys
                            + ", fewer than 2^31, got "
                            + experts.numExperts());
        }
    }

    /**
     * Heads, each of which asks for experts of its own.
     *
     * @return how many
     */
    public int heads() {
        return (int) (queries.dim(1) / keys.dim(2));
    }

    /**
     * Keys of either half.
     *
     * @return n; there are n^2 experts
     */
    public int numKeys() {
        return (int) keys.dim(1);
    }
}
