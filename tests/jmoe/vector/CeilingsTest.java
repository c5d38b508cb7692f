package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;

final class CeilingsTest {
    @Test
    void measure_findsRatesThatThreadsDoNotLower() {
        Ceilings one = Ceilings.measure(1);
        Ceilings two = Ceilings.measure(2);
        for (Ceilings ceilings : new Ceilings[] {one, two}) {
            assertThat(ceilings.fmaGflops()).isPositive().isFinite();
            assertThat(ceilings.streamGbps()).isPositive().isFinite();
        }
        assertThat(two.threads()).isEqualTo(2);
        assertThat(two.fmaGflops()).isGreaterThan(one.fmaGflops() / 2);
        assertThat(two.streamGbps()).isGreaterThan(one.streamGbps() / 2);
    }

    @Test
    void measure_refusesNoThreads() {
        assertThatThrownBy(() -> Ceilings.measure(0))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("threads: expected at least 1, got 0");
    }

    @Test
    void streamBytes_exceedsTheCache() {
        assertThat(Ceilings.streamBytes(0)).isEqualTo(512L << 20);
        assertThat(Ceilings.streamBytes(1 << 20)).isEqualTo(256L << 20);
        assertThat(Ceilings.streamBytes(64L << 20)).isEqualTo(512L << 20);
        assertThat(Ceilings.streamBytes(1L << 30)).isEqualTo(2L << 30);
    }

    @Test
    void cacheBytes_readsWhatLinuxWrites() {
        assertThat(Ceilings.cacheBytes("32768K")).isEqualTo(32L << 20);
        assertThat(Ceilings.cacheBytes("")).isZero();
        assertThat(Ceilings.cacheBytes("many")).isZero();
        assertThat(Ceilings.lastLevelCacheBytes()).isNotNegative();
    }
}
