package jmoe.vector;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * {@link jmoe.ops.Selection.Hash}: experts by a token's id.
 *
 * @param tokenIds ids by token
 * @param table experts by id and choice, or null
 * @param vocabulary rows of the table
 */
record TokenHash(Elements tokenIds, @Nullable Elements table, long vocabulary) {
    /** Writes the K experts of a token, -1 where it has none. */
    void select(long token, int numExperts, int[] ids) {
        int id = tokenIds.getInt(token);
        Arrays.fill(ids, -1);
        if (id < 0 || (table != null && id >= vocabulary)) {
            return;
        }
        for (int k = 0; k < ids.length; k++) {
            if (table != null) {
                int expert = table.getInt((long) id * ids.length + k);
                ids[k] = expert >= 0 && expert < numExperts ? expert : -1;
                continue;
            }
            int expert = Integer.remainderUnsigned(mix(id + k * 0x9e3779b9), numExperts);
            while (isAmong(expert, ids, k)) {
                expert = expert + 1 == numExperts ? 0 : expert + 1;
            }
            ids[k] = expert;
        }
    }

    private static boolean isAmong(int expert, int[] ids, int count) {
        for (int k = 0; k < count; k++) {
            if (ids[k] == expert) {
                return true;
            }
        }
        return false;
    }

    private static int mix(int x) {
        x = (x ^ (x >>> 16)) * 0x85ebca6b;
        x = (x ^ (x >>> 13)) * 0xc2b2ae35;
        return x ^ (x >>> 16);
    }
}
