package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.GE;
import static jdk.incubator.vector.VectorOperators.MAX;
import static jdk.incubator.vector.VectorOperators.MIN;
import static jdk.incubator.vector.VectorOperators.UMIN;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorSpecies;

/**
 * The best sums a_i + b_j of one token, without forming all n^2 of them. In exact arithmetic they
 * are sums of the K best of each half, and with both in order, the sums of a row fall, and so do
 * the first ones of the rows.
 */
final class ProductKeySearch {
    private static final VectorSpecies<Integer> INTS =
            VectorSpecies.of(int.class, Lanes.FLOATS.vectorShape());

    private static final IntVector INDICES = IntVector.zero(INTS).addIndex(1);

    /** Widest spread of exponents for which the double sum of two floats never rounds. */
    private static final int EXACT_SPREAD = 52 - 24;

    private final int numKeys;
    private final float[] first;
    private final float[] second;
    private final TopK half;

    /** Indices of the values of a half that may be among its best. */
    private final int[] found;

    private final int[] firstIds;
    private final int[] secondIds;

    /** By row: how many sums were taken of it, the next one and its expert. */
    private final int[] taken;

    private final double[] heads;
    private final int[] headIds;

    ProductKeySearch(int numKeys, int topK) {
        this.numKeys = numKeys;
        first = new float[Lanes.padded(numKeys)];
        second = new float[Lanes.padded(numKeys)];
        int kept = Math.min(numKeys, topK);
        half = new TopK(kept);
        found = new int[Lanes.padded(numKeys) + Lanes.COUNT];
        firstIds = new int[kept];
        secondIds = new int[kept];
        taken = new int[kept];
        heads = new double[kept];
        headIds = new int[kept];
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
        IntVector least = IntVector.broadcast(INTS, -1);
        IntVector most = IntVector.zero(INTS);
        for (int i = 0; i < first.length; i += Lanes.COUNT) {
            IntVector a = magnitudes(first, i);
            IntVector b = magnitudes(second, i);
            most = most.max(a).max(b);
            // A zero adds nothing, so that it cannot round: one less, it is the largest of all.
            least = least.lanewise(UMIN, a.sub(1)).lanewise(UMIN, b.sub(1));
        }
        int highest = Math.getExponent(Float.intBitsToFloat(most.reduceLanes(MAX)));
        int lowest = Math.getExponent(Float.intBitsToFloat(least.reduceLanes(UMIN) + 1));
        return highest <= Float.MAX_EXPONENT && highest - lowest <= EXACT_SPREAD;
    }

    /** Absolute values as their bits, which are in the order of the values. */
    private static IntVector magnitudes(float[] values, int from) {
        return FloatVector.fromArray(Lanes.FLOATS, values, from)
                .reinterpretAsInts()
                .and(Integer.MAX_VALUE);
    }

    /**
     * Finds the best sums, of equals the lower id.
     *
     * @param ids receives K ids, best first
     */
    void select(int[] ids) {
        rank(first, firstIds);
        rank(second, secondIds);
        int rows = 0;
        for (int k = 0; k < ids.length; k++) {
            // The next row may only hold the best once the last one has lost its first.
            if (rows == 0 || (taken[rows - 1] > 0 && rows < firstIds.length)) {
                taken[rows] = 0;
                show(rows++);
            }
            int best = 0;
            for (int row = 1; row < rows; row++) {
                boolean isFirst = heads[row] == heads[best] && headIds[row] < headIds[best];
                best = heads[row] > heads[best] || isFirst ? row : best;
            }
            ids[k] = headIds[best];
            taken[best]++;
            show(best);
        }
    }

    /** Finds the best sum of a row that is left. */
    private void show(int row) {
        boolean any = taken[row] < secondIds.length;
        headIds[row] = any ? firstIds[row] * numKeys + secondIds[taken[row]] : Integer.MAX_VALUE;
        heads[row] = any ? sum(headIds[row]) : Double.NEGATIVE_INFINITY;
    }

    /** The best of one half. Few values reach the bound, and no branch depends on which. */
    private void rank(float[] values, int[] ids) {
        float least = least(values, ids.length);
        int count = 0;
        for (int from = 0; from < numKeys; from += Lanes.COUNT) {
            FloatVector some = FloatVector.fromArray(Lanes.FLOATS, values, from);
            VectorMask<Float> reaching = some.compare(GE, least);
            INDICES.add(from).compress(reaching.cast(INTS)).intoArray(found, count);
            count += reaching.trueCount();
        }
        half.clear();
        for (int i = 0; i < count; i++) {
            if (found[i] < numKeys) {
                half.offer(values[found[i]], found[i]);
            }
        }
        half.drain(ids);
    }

    /**
     * A bound that at least so many values reach: the least of as many maxima, each lane of each
     * run of vectors having one.
     */
    private float least(float[] values, int count) {
        int runs = Math.ceilDiv(count, Lanes.COUNT);
        int vectors = numKeys / Lanes.COUNT / runs;
        if (vectors == 0) {
            return Float.NEGATIVE_INFINITY;
        }
        FloatVector least = FloatVector.broadcast(Lanes.FLOATS, Float.POSITIVE_INFINITY);
        for (int run = 0; run < runs; run++) {
            FloatVector most = FloatVector.broadcast(Lanes.FLOATS, Float.NEGATIVE_INFINITY);
            for (int i = run * vectors; i < (run + 1) * vectors; i++) {
                most = most.max(FloatVector.fromArray(Lanes.FLOATS, values, i * Lanes.COUNT));
            }
            least = least.min(most);
        }
        return least.reduceLanes(MIN);
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
