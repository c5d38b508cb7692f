package jmoe.ops;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/** What a backend routed, beside what the reference and an oracle say. */
final class Routings {
    private Routings() {}

    /** Ids must be equal, weights close. */
    static void compare(
            String name,
            RouterConfig config,
            int[][] ids,
            double[][] weights,
            Routing want,
            Routing got) {
        int topK = config.topK();
        try (Arena arena = Arena.ofConfined()) {
            Tensor byOracle = Tensor.allocate(arena, DType.F64, weights.length, topK);
            for (int t = 0; t < ids.length; t++) {
                for (int k = 0; k < topK; k++) {
                    int slot = t * topK + k;
                    byOracle.setDouble(slot, weights[t][k]);
                    if (got.topkIds().getInt(slot) != want.topkIds().getInt(slot)
                            || got.topkIds().getInt(slot) != ids[t][k]) {
                        throw new AssertionError(
                                "route, %s: topkIds[%d, %d]: got %d, reference %d, oracle %d"
                                        .formatted(
                                                name,
                                                t,
                                                k,
                                                got.topkIds().getInt(slot),
                                                want.topkIds().getInt(slot),
                                                ids[t][k]));
                    }
                }
            }
            int terms = config.numExperts();
            Tolerance.assertClose("route", name + " (oracle)", got.topkWeights(), byOracle, terms);
            Tolerance.assertClose("route", name, got.topkWeights(), want.topkWeights(), terms);
        }
    }
}
