package jmoe.train;

/** The standard normal distribution. */
final class Normal {
    /** Beyond this the rest is less than half a unit of 1. */
    private static final double TAIL = 8.5;

    private Normal() {}

    /**
     * The probability of a number below x.
     *
     * @return to about 1e-16, by the series of Marsaglia 2004
     */
    static double below(double x) {
        if (!(Math.abs(x) < TAIL)) {
            return Double.isNaN(x) ? x : x > 0 ? 1 : 0;
        }
        double term = x;
        double sum = x;
        for (int n = 3; sum + term != sum; n += 2) {
            term *= x * x / n;
            sum += term;
        }
        double above0 = sum * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
        return Math.clamp(0.5 + above0, 0, 1);
    }
}
