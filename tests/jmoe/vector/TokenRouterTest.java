package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.Random;

class TokenRouterTest {
    /** Tokens queue by it, so that the last bit may decide who is dropped. */
    @Test
    void bestScore_withProductKeysIsThatOfTheSumOverAllExperts() {
        int n = 7;
        RouterConfig config =
                new RouterConfig(
                        n * n,
                        2,
                        RouterConfig.Score.SOFTMAX,
                        new Selection.ProductKeys(n),
                        new RouterConfig.Normalisation.Sum(0),
                        1,
                        false,
                        new Capacity(new CapacityLimit.Tokens(1), Priority.PROBABILITY, false),
                        RouterConfig.ALL_TOKENS);
        TokenRouter router = new TokenRouter(config);
        Random random = new Random(7);
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 1, 2 * n);
            for (int repeat = 0; repeat < 100; repeat++) {
                for (int i = 0; i < 2 * n; i++) {
                    logits.setDouble(i, random.nextInt(64) / 8.0);
                }
                router.route(new Elements(logits.data(), DType.F32), null, 0, 1);
                double max = Double.NEGATIVE_INFINITY;
                for (int e = 0; e < n * n; e++) {
                    max = Math.max(max, sum(logits, n, e));
                }
                double sum = 0;
                for (int e = 0; e < n * n; e++) {
                    sum += Math.exp(sum(logits, n, e) - max);
                }
                assertThat(router.bestScore()).isEqualTo(1 / sum);
            }
        }
    }

    private static double sum(Tensor logits, int n, int expert) {
        return logits.getDouble(expert / n) + logits.getDouble(n + expert % n);
    }
}
