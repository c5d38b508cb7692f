package jmoe.reference;

import jmoe.ops.RouteInputs;
import jmoe.tensor.Tensor;

import java.util.Arrays;
import java.util.Objects;

/** {@link jmoe.ops.Selection.Hash}: experts by a token's id. */
final class ReferenceHash {
    private ReferenceHash() {}

    static void select(RouteInputs inputs, long token, int numExperts, int[] ids) {
        int id = Objects.requireNonNull(inputs.tokenIds()).getInt(token);
        Tensor table = inputs.hashTable();
        Arrays.fill(ids, -1);
        if (id < 0 || (table != null && id >= table.dim(0))) {
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
                expert = (expert + 1) % numExperts;
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

    /** The finaliser of MurmurHash3. */
    private static int mix(int x) {
        x = (x ^ (x >>> 16)) * 0x85ebca6b;
        x = (x ^ (x >>> 13)) * 0xc2b2ae35;
        return x ^ (x >>> 16);
    }
}
