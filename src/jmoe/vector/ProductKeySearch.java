package jmoe.vector;

/**
 * The best sums a_i + b_j of one token, without forming all n^2 of them. In exact arithmetic a sum
 * whose halves rank p-th and q-th follows p q - 1 others, so only pairs with p q at most K can be
 * among the K best.
 */
final class ProductKeySearch {
    /** Widest spread of exponents for which the double sum of two floats never rounds. */
    private static final int EXACT_SPREAD = 52 - 24;

    private final int numKeys;
    private final float[] first;
    private final float[] second;
    private final TopK half;
    private final TopK best;
    private final int[] firstIds;
    private final int[] secondIds;

    ProductKeySearch(int numKeys, int topK) {
        this.numKeys = numKeys;
        first = new float[Lanes.padded(numKeys)];
        second = new float[Lanes.padded(numKeys)];
        int kept = Math.min(numKeys, topK);
        half = new TopK(kept);
        best = new TopK(topK);
        firstIds = new int[kept];
        secondIds = new int[kept];
    }

    /** Reads the halves of a token from logits that are laid out [2, tokens, n]. */
    void read(Elements logits, long token, long tokens) {
        logits.read(token * numKeys, numKeys, first, 0);
        logits.read((tokens + token) * numKeys, numKeys, second, 0);
    }

    double sum(int id) {
        return (double) first[id / numKeys] + second[id % numKeys];
    }

    /** Whether all logits are finite and all sums exact, which {@link #select} relies on. */
    boolean isExact() {
        int lowest = Integer.MAX_VALUE;
        int highest = Integer.MIN_VALUE;
        for (int i = 0; i < 2 * numKeys; i++) {
            float value = i < numKeys ? first[i] : second[i - numKeys];
            if (value != 0) {
                int exponent = Math.getExponent(value);
                lowest = Math.min(lowest, exponent);
                highest = Math.max(highest, exponent);
            }
        }
        return highest <= Float.MAX_EXPONENT && highest - (long) lowest <= EXACT_SPREAD;
    }

    /**
     * Finds the best sums, of equals the lower id.
     *
     * @param ids receives K ids, best first
     */
    void select(int[] ids) {
        rank(first, firstIds);
        rank(second, secondIds);
        best.clear();
        for (int p = 0; p < firstIds.length; p++) {
            for (int q = 0; q < secondIds.length && (p + 1L) * (q + 1) <= ids.length; q++) {
                int id = firstIds[p] * numKeys + secondIds[q];
                best.offer(sum(id), id);
            }
        }
        best.drain(ids);
    }

    private void rank(float[] values, int[] ids) {
        half.clear();
        for (int i = 0; i < numKeys; i++) {
            half.offer(values[i], i);
        }
        half.drain(ids);
    }

    /** The largest sum. */
    double max() {
        return max(first) + max(second);
    }

    /** The sum over all pairs of exp(a_i + b_j - max). */
    double expSum() {
        return expSum(first) * expSum(second);
    }

    private double expSum(float[] values) {
        double max = max(values);
        double sum = 0;
        for (int i = 0; i < numKeys; i++) {
            sum += Math.exp(values[i] - max);
        }
        return sum;
    }

    private double max(float[] values) {
        double max = Double.NEGATIVE_INFINITY;
        for (int i = 0; i < numKeys; i++) {
            max = Math.max(max, values[i]);
        }
        return max;
    }
}
