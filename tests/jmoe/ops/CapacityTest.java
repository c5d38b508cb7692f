package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.Capacity.RandomRouting;
import jmoe.ops.CapacityLimit.Factor;
import jmoe.ops.CapacityLimit.Fraction;
import jmoe.ops.CapacityLimit.Grown;
import jmoe.ops.CapacityLimit.Rounding;
import jmoe.ops.CapacityLimit.Tokens;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;

import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.util.SplittableRandom;

/** Limits against tables worked out by hand, and what is refused. */
final class CapacityTest {
    /** Columns: T = 0, 1, 3, 100 and 1000, with E = 8 and K = 2. */
    @ParameterizedTest
    @CsvSource(
            textBlock =
                    """
                    MESH,       1.0,  4, 4, 4, 12, 125
                    MESH,       1.25, 4, 4, 4, 15, 156
                    MESH,       9.0,  4, 4, 4, 100, 1000
                    FLAXFORMER, 1.0,  4, 4, 4, 12, 125
                    FLAXFORMER, 1.25, 4, 4, 4, 16, 156
                    FLAXFORMER, 9.0,  4, 4, 4, 112, 1125
                    LINGVO,     1.0,  4, 4, 4, 12, 128
                    LINGVO,     1.25, 4, 4, 4, 16, 156
                    VMOE,       1.0,  0, 4, 4, 28, 252
                    VMOE,       1.05, 0, 4, 4, 28, 264
                    MEGATRON,   1.0,  0, 1, 1, 25, 250
                    MEGATRON,   1.25, 0, 1, 1, 32, 313
                    TUTEL,      1.0,  0, 2, 2, 26, 250
                    TUTEL,      1.25, 0, 2, 2, 32, 312
                    TUTEL,      -1.25, 0, 2, 2, 32, 312
                    TUTEL,      0,    0, 2, 6, 200, 2000
                    TUTEL,      0.25, 0, 0, 0, 6, 62
                    ERNIE,      2.0,  0, 0, 0, 25, 250
                    ERNIE,      1.25, 0, 0, 0, 15, 156
                    FASTMOE,    1.2,  0, 0, 1, 30, 300
                    FASTMOE,    2.4,  0, 0, 2, 60, 600
                    """)
    void limit_ofFactor_roundsAsItsSource(
            Rounding rounding, double factor, long t0, long t1, long t3, long t100, long t1000) {
        CapacityLimit limit = new Factor(factor, rounding);
        assertThat(limit.of(0, 2, 8)).isEqualTo(t0);
        assertThat(limit.of(1, 2, 8)).isEqualTo(t1);
        assertThat(limit.of(3, 2, 8)).isEqualTo(t3);
        assertThat(limit.of(100, 2, 8)).isEqualTo(t100);
        assertThat(limit.of(1000, 2, 8)).isEqualTo(t1000);
        assertThat(limit.dependsOnTokens()).isTrue();
    }

    /** Switch-XXL takes at least 2; Tutel aligns. */
    @Test
    void limit_ofFactor_takesAnotherMinimumAndMultiple() {
        assertThat(new Factor(1, Rounding.FLAXFORMER, 2, 1).of(8, 1, 8)).isEqualTo(2);
        assertThat(new Factor(1, Rounding.FLAXFORMER, 2, 1).of(20, 1, 8)).isEqualTo(2);
        assertThat(new Factor(1, Rounding.FLAXFORMER, 2, 1).of(28, 1, 8)).isEqualTo(4);
        assertThat(new Factor(1, Rounding.TUTEL, 0, 8).of(100, 2, 8)).isEqualTo(32);
        assertThat(new Factor(1, Rounding.MEGATRON, 7, 1).of(3, 2, 8)).isEqualTo(7);
        assertThat(new Factor(1e300, Rounding.VMOE).of(1L << 40, 8, 2)).isEqualTo(Long.MAX_VALUE);
    }

    @Test
    void limit_ofOthers_isFixedOrAShareOrGrown() {
        assertThat(new Tokens(7).of(100, 2, 8)).isEqualTo(7);
        assertThat(new Tokens(0).of(100, 2, 8)).isZero();
        assertThat(new Fraction(0.25).of(101, 2, 8)).isEqualTo(26);
        assertThat(new Fraction(0).of(101, 2, 8)).isZero();
        assertThat(new Grown(new Tokens(10), 1.1).of(5, 1, 2)).isEqualTo(11);
        assertThat(new Grown(new Tokens(4), 1.1).of(5, 1, 2)).isEqualTo(4);
        assertThat(new Grown(new Tokens(5), 1.1).of(5, 1, 2)).isEqualTo(6);
        assertThat(new Grown(new Tokens(5), 1.1).dependsOnTokens()).isFalse();
        assertThat(new Grown(new Fraction(1), 1).dependsOnTokens()).isTrue();
    }

    /** cf 1, K = 2, T = 12: 6 slots of each of 4 experts, 12 of each of 2 devices. */
    @Test
    void limit_perDevice_sharesAmongDevices() {
        CapacityLimit even = new Factor(1, Rounding.MEGATRON);
        Capacity capacity = new Capacity(even, Priority.WEIGHT, false);
        RouterConfig config = config(4, 2, capacity);
        assertThat(capacity.limit(config, 12)).isEqualTo(6);
        assertThat(capacity.expertsPerQueue(config)).isOne();
        assertThat(capacity.perDevice(2).limit(config, 12)).isEqualTo(12);
        assertThat(capacity.perDevice(2).expertsPerQueue(config)).isEqualTo(2);
    }

    @Test
    void ranking_hasNoMoreExpertsThanThereAre() {
        Capacity drop = new Capacity(new Tokens(1), Priority.POSITION, true);
        assertThat(drop.ranking(config(4, 2, drop))).isNull();
        Capacity next = drop.withOverflow(new Overflow.NextChoice(9));
        assertThat(next.ranking(config(4, 2, next)).topK()).isEqualTo(4);
        assertThat(next.ranking(config(4, 2, next)).capacity()).isNull();
        assertThat(next.ranking(config(4, 4, next))).isNull();
        Capacity last = drop.withOverflow(new Overflow.NextChoice(Integer.MAX_VALUE));
        assertThat(last.ranking(config(4, 2, last)).topK()).isEqualTo(4);
    }

    /** The JDK's generator of this name. */
    @Test
    void splitMix_countsThroughTheNumbersOfItsSeed() {
        for (long seed : new long[] {0, 1, -1, Long.MIN_VALUE, 0x123456789ABCDEFL}) {
            SplittableRandom random = new SplittableRandom(seed);
            for (int counter = 0; counter < 100; counter++) {
                long bits = random.nextLong();
                assertThat(SplitMix.bits(seed, counter)).isEqualTo(bits);
                assertThat(SplitMix.uniform(seed, counter))
                        .isEqualTo((double) (float) SplitMix.uniform(seed, counter))
                        .isEqualTo((bits >>> 40) / (double) (1 << 24));
            }
        }
    }

    @Test
    void records_refuseWhatCannotBe() {
        assertRefused(
                () -> new Factor(-1, Rounding.MESH),
                "capacityFactor: expected a finite number of at least 0, got -1.0");
        assertRefused(
                () -> new Factor(Double.NaN, Rounding.TUTEL),
                "capacityFactor: expected a finite number, got NaN");
        assertRefused(
                () -> new Factor(1, Rounding.MESH, -1, 1), "minSlots: expected at least 0, got -1");
        assertRefused(
                () -> new Factor(1, Rounding.MESH, 0, 0), "multiple: expected at least 1, got 0");
        assertRefused(
                () -> new Grown(new Tokens(1), 0.9),
                "growth: expected a finite number of at least 1, got 0.9");
        assertRefused(
                () -> new RandomRouting(0, 1),
                "threshold: expected a finite number above 0, got 0.0");
        assertRefused(() -> new Overflow.Ring(0), "tries: expected at least 1, got 0");
        assertRefused(() -> new Overflow.NextChoice(0), "tries: expected at least 1, got 0");
        Capacity one = new Capacity(new Tokens(1), Priority.POSITION, false);
        assertRefused(() -> one.perDevice(-1), "numDevices: expected at least 0, got -1");
        assertRefused(
                () -> config(4, 2, one.perDevice(3)),
                "numDevices: expected a divisor of numExperts=4, got 3");
    }

    private static void assertRefused(ThrowingCallable call, String message) {
        assertThatThrownBy(call).isInstanceOf(IllegalArgumentException.class).hasMessage(message);
    }

    private static RouterConfig config(int numExperts, int topK, Capacity capacity) {
        return new RouterConfig(
                numExperts,
                topK,
                Score.SOFTMAX,
                new Selection.TopK(),
                new Normalisation.None(),
                1,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }
}
