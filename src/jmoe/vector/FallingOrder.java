package jmoe.vector;

/** Indices by falling value: NaN first, of equals the lower index. A merge sort, stable. */
final class FallingOrder {
    private int[] order = new int[0];
    private int[] merged = new int[0];

    /**
     * Sorts.
     *
     * @param values what decides
     * @param count how many of them
     * @return the indices 0 to count - 1, valid until the next call
     */
    int[] of(double[] values, int count) {
        if (order.length < count) {
            order = new int[count];
            merged = new int[count];
        }
        for (int i = 0; i < count; i++) {
            order[i] = i;
        }
        for (long width = 1; width < count; width *= 2) {
            for (long from = 0; from < count; from += 2 * width) {
                int middle = (int) Math.min(from + width, count);
                int to = (int) Math.min(from + 2 * width, count);
                merge(values, (int) from, middle, to);
            }
            int[] sorted = merged;
            merged = order;
            order = sorted;
        }
        return order;
    }

    private void merge(double[] values, int from, int middle, int to) {
        int left = from;
        int right = middle;
        for (int i = from; i < to; i++) {
            boolean takesLeft =
                    right == to
                            || (left < middle
                                    && !ranksAbove(values[order[right]], values[order[left]]));
            merged[i] = order[takesLeft ? left++ : right++];
        }
    }

    private static boolean ranksAbove(double a, double b) {
        return a > b || (Double.isNaN(a) && !Double.isNaN(b));
    }
}
