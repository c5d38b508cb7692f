package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

import java.util.Comparator;
import java.util.Random;
import java.util.stream.IntStream;

class TopKTest {
    private static final double[] VALUES = {
        1, 2, 2, 3, 0.0, -0.0, -1, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY
    };

    @Test
    void drain_givesTheBestFirst_lowestIdOfEquals_nanLast() {
        Random random = new Random(3);
        for (int repeat = 0; repeat < 2000; repeat++) {
            int count = 1 + random.nextInt(40);
            int k = 1 + random.nextInt(count);
            double[] values =
                    random.doubles(count).map(u -> VALUES[(int) (u * VALUES.length)]).toArray();
            int[] want =
                    IntStream.range(0, count)
                            .boxed()
                            .sorted(
                                    Comparator.comparingDouble((Integer i) ->
                                                    Double.isNaN(values[i])
                                                            ? 1e300
                                                            : -Math.clamp(values[i], -1e200, 1e200)
                                                                    + 0.0)
                                            .thenComparing(i -> i))
                            .limit(k)
                            .mapToInt(i -> i)
                            .toArray();
            TopK top = new TopK(k);
            int[] got = new int[k];
            // In any order of offering.
            int step = random.nextBoolean() ? 1 : -1;
            for (int i = 0; i < count; i++) {
                int id = step > 0 ? i : count - 1 - i;
                top.offer(values[id], id);
            }
            top.drain(got);
            assertThat(got).isEqualTo(want);
        }
    }

    @Test
    void drain_givesFewerIfFewerWereOffered() {
        TopK top = new TopK(3);
        top.offer(1, 5);
        int[] got = {-7, -7, -7};
        top.drain(got);
        assertThat(got).containsExactly(5, -7, -7);
        int[] nothing = {-7};
        top.drain(nothing);
        assertThat(nothing).containsExactly(-7);
    }

    @Test
    void exchange_saysWhoIsLeftOut() {
        TopK top = new TopK(2);
        assertThat(top.exchange(1, 4)).isEqualTo(-1);
        assertThat(top.isFull()).isFalse();
        assertThat(top.exchange(-0.5, 2)).isEqualTo(-1);
        assertThat(top.isFull()).isTrue();
        assertThat(top.worstValue()).isEqualTo(-0.5);
        assertThat(top.exchange(-0.5, 3)).isEqualTo(3);
        assertThat(top.exchange(-0.5, 1)).isEqualTo(2);
        assertThat(top.exchange(2, 9)).isEqualTo(1);
        assertThat(top.worstValue()).isEqualTo(1);
        assertThat(top.exchange(Double.NaN, 0)).isZero();
    }
}
