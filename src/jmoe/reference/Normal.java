package jmoe.reference;

/** The standard normal distribution, in double. */
final class Normal {
    /** Here the sum and the fraction need about as many terms. */
    private static final double BORDER = 2.5;

    /** Of the fraction, for all digits from {@link #BORDER} on. */
    private static final int LEVELS = 100;

    private Normal() {}

    /**
     * Phi(x) = (1 + erf(x / sqrt 2)) / 2, to about 1e-14 of itself, also where it is tiny.
     *
     * <pre>
     * Phi(x) = 1/2 + phi(x) (x + x^3 / 3 + x^5 / (3 5) + x^7 / (3 5 7) + ...)
     * Phi(-x) = phi(x) / (x + 1 / (x + 2 / (x + 3 / (x + ...))))     for x &gt; 0
     * </pre>
     *
     * <p>with phi(x) = exp(-x^2 / 2) / sqrt(2 pi). Abramowitz and Stegun 1964, 26.2.11 and 26.2.14.
     *
     * @param x any number; NaN stays
     * @return from 0 to 1
     */
    static double cumulative(double x) {
        double density = Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
        double size = Math.abs(x);
        if (size < BORDER) {
            double term = x;
            double sum = x;
            for (int odd = 3; Math.abs(term) > Math.ulp(sum) / 4; odd += 2) {
                term *= x * x / odd;
                sum += term;
            }
            return 0.5 + density * sum;
        }
        double fraction = size;
        for (int level = LEVELS; level > 0; level--) {
            fraction = size + level / fraction;
        }
        double tail = density / fraction;
        return x < 0 ? tail : 1 - tail;
    }
}
