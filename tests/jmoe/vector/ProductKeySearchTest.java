package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.Random;

class ProductKeySearchTest {
    @Test
    void select_findsTheBestSums_lowestIdOfEquals() {
        Random random = new Random(5);
        try (Arena arena = Arena.ofConfined()) {
            for (int repeat = 0; repeat < 1000; repeat++) {
                int n = 1 + random.nextInt(12);
                int k = 1 + random.nextInt(n * n);
                boolean ties = random.nextBoolean();
                Tensor logits = Tensor.allocate(arena, DType.F32, 1, 2 * n);
                for (int i = 0; i < 2 * n; i++) {
                    logits.setDouble(i, ties ? random.nextInt(4) : random.nextGaussian());
                }
                ProductKeySearch search = new ProductKeySearch(n, k);
                search.read(new Elements(logits.data(), DType.F32), 0, 1);
                assertThat(search.isExact()).isTrue();
                int[] got = new int[k];
                search.select(got);
                TopK all = new TopK(k);
                double sum = 0;
                for (int id = 0; id < n * n; id++) {
                    all.offer(search.sum(id), id);
                    sum += Math.exp(search.sum(id) - search.max());
                }
                int[] want = new int[k];
                all.drain(want);
                assertThat(got).isEqualTo(want);
                assertThat(search.max()).isEqualTo(search.sum(want[0]));
                assertThat(search.expSum()).isCloseTo(sum, within(1e-12 * sum));
            }
        }
    }

    @Test
    void isExact_refusesInfinityNaNAndSumsThatRound() {
        assertThat(isExact(1, Float.POSITIVE_INFINITY)).isFalse();
        assertThat(isExact(Float.NEGATIVE_INFINITY, 0)).isFalse();
        assertThat(isExact(Float.NaN, 1)).isFalse();
        assertThat(isExact(0, 0)).isTrue();
        assertThat(isExact(Float.MAX_VALUE, 0)).isTrue();
        assertThat(isExact(1, 0x1.000002p-28f)).isTrue();
        float tooSmall = 0x1.fffffep-30f;
        assertThat(isExact(1.9999999f, tooSmall)).isFalse();
        assertThat(isExact(1, Float.MIN_VALUE)).isFalse();
    }

    private static boolean isExact(float a, float b) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 1, 2);
            logits.setDouble(0, a);
            logits.setDouble(1, b);
            ProductKeySearch search = new ProductKeySearch(1, 1);
            search.read(new Elements(logits.data(), DType.F32), 0, 1);
            return search.isExact();
        }
    }
}
