package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import org.junit.jupiter.api.Test;

final class ErrorFunctionTest {
    /** Abramowitz and Stegun 1964, tables 7.1 and 7.3, and their relation at negative numbers. */
    @Test
    void complement_isWhatTablesSay() {
        double[][] table = {
            {0, 1},
            {0.1, 0.887537083981715},
            {0.46875, 0.5073865267820620},
            {0.5, 0.479500122186953},
            {1, 0.157299207050285},
            {2, 4.67773498104727e-3},
            {3, 2.209049699858544e-5},
            {4, 1.541725790028002e-8},
            {5, 1.537459794428035e-12},
            {10, 2.088487583762545e-45},
            {26, 5.663192408856143e-296}
        };
        for (double[] row : table) {
            double x = row[0];
            double want = row[1];
            assertThat(ErrorFunction.complement(x)).isCloseTo(want, within(4e-15 * want));
            assertThat(ErrorFunction.complement(-x)).isCloseTo(2 - want, within(1e-15));
        }
        assertThat(ErrorFunction.complement(Double.POSITIVE_INFINITY)).isZero();
        assertThat(ErrorFunction.complement(Double.NEGATIVE_INFINITY)).isEqualTo(2);
        assertThat(ErrorFunction.complement(Double.NaN)).isNaN();
    }

    /** Its derivative is -2 exp(-x^2) / sqrt(pi), across the borders of the approximations too. */
    @Test
    void complement_hasTheRightSlope() {
        double step = 1e-5;
        for (double x = -6; x < 6; x += 0.03125) {
            double rise = ErrorFunction.complement(x + step) - ErrorFunction.complement(x - step);
            double want = -2 / Math.sqrt(Math.PI) * Math.exp(-x * x);
            assertThat(rise / (2 * step)).isCloseTo(want, within(1e-9));
        }
    }
}
