package jmoe.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import org.junit.jupiter.api.Test;

final class AdaptiveCoefficientTest {
    @Test
    void adaptiveCoefficient_followsTheDropRate() {
        AdaptiveCoefficient skywork = AdaptiveCoefficient.ofSkywork();
        assertThat(skywork.next(0.01, 0)).isCloseTo(0.0099, within(1e-15));
        assertThat(skywork.next(0, 0.02)).isCloseTo(0.01 * 0.004, within(1e-15));
        assertThat(skywork.next(0, 1)).isCloseTo(0.01 * 0.01, within(1e-15));
        assertThatThrownBy(() -> skywork.next(0, 1.5))
                .hasMessage("dropRate: expected 0 to 1, got 1.5");
        assertThatThrownBy(() -> new AdaptiveCoefficient(0.2, 0.01, 2))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith("coefficient: expected slope and max of at least 0");
    }
}
