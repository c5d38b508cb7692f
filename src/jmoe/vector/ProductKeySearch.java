package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.EQ;
import static jdk.incubator.vector.VectorOperators.GT;
import static jdk.incubator.vector.VectorOperators.MAX;
import static jdk.incubator.vector.VectorOperators.MIN;

import jdk.incubator.vector.FloatVector;

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
        FloatVector least = FloatVector.broadcast(Lanes.FLOATS, Float.POSITIVE_INFINITY);
        FloatVector most = FloatVector.zero(Lanes.FLOATS);
        for (int i = 0; i < first.length; i += Lanes.COUNT) {
            FloatVector a = FloatVector.fromArray(Lanes.FLOATS, first, i).abs();
            FloatVector b = FloatVector.fromArray(Lanes.FLOATS, second, i).abs();
            most = most.max(a).max(b);
            // A zero adds nothing, so that it cannot round.
            least = least.min(a.blend(Float.POSITIVE_INFINITY, a.compare(EQ, 0)));
            least = least.min(b.blend(Float.POSITIVE_INFINITY, b.compare(EQ, 0)));
        }
        int highest = Math.getExponent(most.reduceLanes(MAX));
        int lowest = Math.getExponent(least.reduceLanes(MIN));
        return highest <= Float.MAX_EXPONENT && highest - lowest <= EXACT_SPREAD;
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

    /** The best of one half. Most values are below all that are kept, which vectors find out. */
    private void rank(float[] values, int[] ids) {
        half.clear();
        float worst = Float.NEGATIVE_INFINITY;
        for (int from = 0; from < numKeys; from += Lanes.COUNT) {
            FloatVector some = FloatVector.fromArray(Lanes.FLOATS, values, from);
            if (!some.compare(GT, worst).anyTrue()) {
                continue;
            }
            int to = Math.min(from + Lanes.COUNT, numKeys);
            for (int i = from; i < to; i++) {
                half.offer(values[i], i);
            }
            worst = half.isFull() ? values[half.worst()] : worst;
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
