package jmoe.ops;

import java.math.BigDecimal;
import java.math.MathContext;

/**
 * The standard normal distribution by its power series in as many digits as its alternating terms
 * cancel: nothing in common with how anything in {@code src} computes it.
 */
public final class NormalOracle {
    private static final BigDecimal PI =
            new BigDecimal(
                    "3.1415926535897932384626433832795028841971693993751058209749445923078164"
                        + "062862089986280348253421170679821480865132823066470938446095505822317");

    private NormalOracle() {}

    /**
     * Phi(x) = 1/2 + sum over k of (-1)^k x^(2k+1) / (2^k k! (2k+1)) / sqrt(2 pi).
     *
     * @param x finite, from -22 on, so that the digits of pi suffice
     * @return rounded to double
     */
    public static double cumulative(double x) {
        MathContext digits = new MathContext(250);
        BigDecimal exact = new BigDecimal(x);
        BigDecimal minusHalfSquare =
                exact.multiply(exact, digits).divide(BigDecimal.valueOf(-2), digits);
        BigDecimal power = exact;
        BigDecimal sum = BigDecimal.ZERO;
        BigDecimal smallest = new BigDecimal("1e-140");
        for (int k = 0; power.abs().compareTo(smallest) > 0; k++) {
            sum = sum.add(power.divide(BigDecimal.valueOf(2L * k + 1), digits), digits);
            power =
                    power.multiply(minusHalfSquare, digits)
                            .divide(BigDecimal.valueOf(k + 1L), digits);
        }
        BigDecimal root = PI.multiply(BigDecimal.valueOf(2)).sqrt(digits);
        return sum.divide(root, digits).add(new BigDecimal("0.5")).doubleValue();
    }
}
