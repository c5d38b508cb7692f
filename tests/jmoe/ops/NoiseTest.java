package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import org.junit.jupiter.api.Test;

import java.util.SplittableRandom;
import java.util.function.DoubleUnaryOperator;

/** Words, numbers and distributions of the noise, by themselves. */
final class NoiseTest {
    private static final int DRAWS = 100_000;

    /** The vectors that the authors publish with their code (Random123, kat_vectors). */
    @Test
    void philox_givesThePublishedAnswers() {
        assertWords("6627e8d5 e169c58d bc57ac4c 9b00dbd8", 0, 0, 0, 0, 0);
        assertWords("408f276d 41c83b0e a20bc7c6 6d5451fd", -1L, -1, -1, -1, -1);
        assertWords(
                "d16cfe09 94fdcceb 5001e420 24126ea1",
                0x299f31d0_a4093822L,
                0x243f6a88,
                0x85a308d3,
                0x13198a2e,
                0x03707344);
    }

    private static void assertWords(String want, long key, int... counter) {
        long[] words = ShapeLogitsOracle.philox(counter, key);
        assertThat("%08x %08x %08x %08x".formatted(words[0], words[1], words[2], words[3]))
                .isEqualTo(want);
        Philox.scramble(counter, key);
        assertThat("%08x %08x %08x %08x".formatted(counter[0], counter[1], counter[2], counter[3]))
                .isEqualTo(want);
    }

    @Test
    void uniform_staysBetween0And1() {
        assertThat(Noise.uniform(0, 0)).isEqualTo(0x1p-53);
        assertThat(Noise.uniform(-1, -1)).isEqualTo(1 - 0x1p-53);
        assertThat(Noise.uniform(1 << 31, 0)).isEqualTo(0.5 + 0x1p-53);
        assertThat(Noise.uniform(0, 1 << 12)).isEqualTo(0x1.8p-52);
    }

    @Test
    void normal_isTheInverseOfTheDistribution() {
        // Of the paper, to its seven digits, and the median.
        assertThat(Noise.normal(0.25)).isEqualTo(-0.6744897501960817, within(1e-15));
        assertThat(Noise.normal(0.001)).isEqualTo(-3.090232306167814, within(1e-14));
        assertThat(Noise.normal(1e-20)).isEqualTo(-9.262340089798408, within(1e-14));
        assertThat(Noise.normal(0.5)).isZero();
        SplittableRandom random = new SplittableRandom(1);
        for (int i = 0; i < 2000; i++) {
            // Every decade down to the least u, on both sides.
            double p = Math.scalb(random.nextDouble(), -random.nextInt(53));
            double u = Math.clamp(random.nextBoolean() ? p : 1 - p, 0x1p-53, 1 - 0x1p-53);
            double want = ShapeLogitsOracle.normal(u);
            assertThat(Noise.normal(u)).isEqualTo(want, within(2e-14 * Math.abs(want) + 1e-15));
        }
    }

    @Test
    void gumbelAndDeviation_areTheirFormulas() {
        SplittableRandom random = new SplittableRandom(2);
        for (int i = 0; i < 2000; i++) {
            double u = random.nextDouble(0x1p-53, 1);
            assertThat(Noise.gumbel(u)).isEqualTo(-Math.log(-Math.log(u)), within(1e-13));
            double h = Math.scalb(random.nextGaussian(), random.nextInt(-40, 10));
            double want = Math.log1p(Math.exp(-Math.abs(h))) + Math.max(h, 0) + 1e-2;
            assertThat(Noise.deviation(h)).isEqualTo(want, within(1e-15 * (1 + want)));
        }
        assertThat(Noise.gumbel(0x1p-53)).isEqualTo(-Math.log(53 * Math.log(2)), within(1e-14));
        assertThat(Noise.gumbel(1 - 0x1p-53)).isEqualTo(53 * Math.log(2), within(1e-13));
        assertThat(Noise.deviation(Double.NEGATIVE_INFINITY)).isEqualTo(1e-2);
        assertThat(Noise.deviation(-1e300)).isEqualTo(1e-2);
        assertThat(Noise.deviation(Double.POSITIVE_INFINITY)).isInfinite();
        assertThat(Noise.deviation(Double.NaN)).isNaN();
    }

    /** Mean, variance and, of what is symmetric, skewness of what counters in a row give. */
    @Test
    void draws_haveTheMomentsOfTheirDistributions() {
        assertMoments(u -> u, 0.5, 1.0 / 12);
        assertMoments(Noise::normal, 0, 1);
        assertMoments(Noise::gumbel, 0.5772156649015329, Math.PI * Math.PI / 6);
    }

    private static void assertMoments(DoubleUnaryOperator of, double mean, double variance) {
        // Neighbours in each of the words that count.
        for (int word = 0; word < 4; word++) {
            double sum = 0;
            double squares = 0;
            double neighbours = 0;
            double previous = 0;
            for (int i = 0; i < DRAWS; i++) {
                int[] counter = new int[4];
                counter[word] = i;
                Philox.scramble(counter, 12345);
                double value = of.applyAsDouble(Noise.uniform(counter[0], counter[1])) - mean;
                sum += value;
                squares += value * value;
                neighbours += value * previous;
                previous = value;
            }
            // Five standard errors; of a Gumbel number's square that is at most 2.1 times its mean.
            double error = 5 / Math.sqrt(DRAWS);
            assertThat(sum / DRAWS).isEqualTo(0, within(error * Math.sqrt(variance)));
            assertThat(squares / DRAWS).isEqualTo(variance, within(error * 2.2 * variance));
            assertThat(neighbours / DRAWS).isEqualTo(0, within(error * variance));
        }
    }
}
