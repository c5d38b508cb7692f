package jmoe.vector;

/**
 * The best of a stream of candidates: a heap with the worst on top. Of equals the lower id is
 * better; NaN is worse than every number; the two zeros are equal.
 */
final class TopK {
    private final long[] keys;
    private final int[] ids;
    private int size;

    /**
     * An empty heap.
     *
     * @param k how many candidates are kept
     */
    TopK(int k) {
        keys = new long[k];
        ids = new int[k];
    }

    /** Forgets everything. */
    void clear() {
        size = 0;
    }

    boolean isFull() {
        return size == keys.length;
    }

    /** The id that goes first when a better candidate comes. */
    int worst() {
        return ids[0];
    }

    /** Considers a candidate; no id may be offered twice. */
    void offer(double value, int id) {
        long key = key(value);
        if (size < keys.length) {
            up(size++, key, id);
        } else if (isWorse(keys[0], ids[0], key, id)) {
            down(key, id);
        }
    }

    /**
     * Considers a candidate and says which one is left out for it.
     *
     * @return the id of the worst of all, which may be this one; -1 while there is room
     */
    int exchange(double value, int id) {
        long key = key(value);
        if (size < keys.length) {
            up(size++, key, id);
            return -1;
        }
        if (!isWorse(keys[0], ids[0], key, id)) {
            return id;
        }
        int worst = ids[0];
        down(key, id);
        return worst;
    }

    /** Whether it was made for so many. */
    boolean keeps(int k) {
        return keys.length == k;
    }

    /** The value of the worst; a number. */
    double worstValue() {
        return Double.longBitsToDouble(keys[0] ^ ((keys[0] >> 63) & Long.MAX_VALUE));
    }

    /**
     * Takes everything out, best first.
     *
     * @param to receives as many ids as there are
     */
    void drain(int[] to) {
        while (size > 0) {
            to[size - 1] = ids[0];
            size--;
            down(keys[size], ids[size]);
        }
    }

    /** Integers in the order of the numbers, NaN lowest. */
    private static long key(double value) {
        if (Double.isNaN(value)) {
            return Long.MIN_VALUE;
        }
        long bits = Double.doubleToRawLongBits(value + 0.0); // turns -0 into 0
        return bits ^ ((bits >> 63) & Long.MAX_VALUE);
    }

    private static boolean isWorse(long key, int id, long otherKey, int otherId) {
        return key < otherKey || (key == otherKey && id > otherId);
    }

    private void up(int hole, long key, int id) {
        while (hole > 0) {
            int parent = (hole - 1) >>> 1;
            if (!isWorse(key, id, keys[parent], ids[parent])) {
                break;
            }
            keys[hole] = keys[parent];
            ids[hole] = ids[parent];
            hole = parent;
        }
        keys[hole] = key;
        ids[hole] = id;
    }

    /** Puts an entry in the place of the worst. */
    private void down(long key, int id) {
        int hole = 0;
        for (int child = 1; child < size; child = 2 * hole + 1) {
            int right = child + 1;
            if (right < size && isWorse(keys[right], ids[right], keys[child], ids[child])) {
                child = right;
            }
            if (!isWorse(keys[child], ids[child], key, id)) {
                break;
            }
            keys[hole] = keys[child];
            ids[hole] = ids[child];
            hole = child;
        }
        keys[hole] = key;
        ids[hole] = id;
    }
}
