package jmoe.reference;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.ops.NormalOracle;

import org.junit.jupiter.api.Test;

class NormalTest {
    /** Both the sum and the fraction, and what lies around the border between them. */
    @Test
    void cumulative_equalsItsPowerSeries() {
        for (double x = -22; x < 9; x += 0.15625) {
            double want = NormalOracle.cumulative(x);
            assertThat(Normal.cumulative(x)).as("x = %s", x).isCloseTo(want, within(1e-13 * want));
        }
        for (double x : new double[] {-2.5, Math.nextDown(-2.5), 2.5, 1e-9, -1e-300, 0.7}) {
            double want = NormalOracle.cumulative(x);
            assertThat(Normal.cumulative(x)).as("x = %s", x).isCloseTo(want, within(1e-13 * want));
        }
    }

    /** Beyond the series: phi(a) / a (1 - 1 / a^2) < Phi(-a) < phi(a) / a, Gordon 1941. */
    @Test
    void cumulative_ofTheFarTailLiesBetweenItsBounds() {
        for (double a = 22; a < 37; a += 0.7) {
            double above = Math.exp(-a * a / 2) / Math.sqrt(2 * Math.PI) / a;
            assertThat(Normal.cumulative(-a)).isBetween(above * (1 - 1 / (a * a)), above);
        }
    }

    @Test
    void cumulative_hasTheLimitsOfTheFormula() {
        assertThat(Normal.cumulative(-0.0)).isEqualTo(0.5);
        assertThat(Normal.cumulative(-38.4)).isPositive();
        assertThat(Normal.cumulative(-38.6)).isZero();
        assertThat(Normal.cumulative(Double.NEGATIVE_INFINITY)).isZero();
        assertThat(Normal.cumulative(Double.POSITIVE_INFINITY)).isEqualTo(1);
        assertThat(Normal.cumulative(Double.NaN)).isNaN();
    }
}
