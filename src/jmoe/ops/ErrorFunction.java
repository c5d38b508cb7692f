package jmoe.ops;

/**
 * The complementary error function by rational Chebyshev approximations; Cody 1969, "Rational
 * Chebyshev Approximations for the Error Function". Relative error below 1e-15 wherever the result
 * is not subnormal.
 */
final class ErrorFunction {
    private static final double[] A = {
        0.18577770618460315,
        3.1611237438705655,
        113.86415415105016,
        377.485237685302,
        3209.3775891384694
    };

    private static final double[] B = {
        1, 23.601290952344122, 244.02463793444417, 1282.6165260773723, 2844.236833439171
    };

    private static final double[] C = {
        2.1531153547440383e-8,
        0.5641884969886701,
        8.883149794388377,
        66.11919063714163,
        298.6351381974001,
        881.952221241769,
        1712.0476126340707,
        2051.0783778260716,
        1230.3393547979972
    };

    private static final double[] D = {
        1,
        15.744926110709835,
        117.6939508913125,
        537.1811018620099,
        1621.3895745666903,
        3290.7992357334597,
        4362.619090143247,
        3439.3676741437216,
        1230.3393548037495
    };

    private static final double[] P = {
        0.016315387137302097,
        0.30532663496123236,
        0.36034489994980445,
        0.12578172611122926,
        0.016083785148742275,
        0.0006587491615298378
    };

    private static final double[] Q = {
        1,
        2.568520192289822,
        1.8729528499234604,
        0.5279051029514285,
        0.06051834131244132,
        0.0023352049762686918
    };

    /** From here on the result is 0. */
    private static final double ZERO_FROM = 27.3;

    private ErrorFunction() {}

    /**
     * 2 / sqrt(pi) times the integral of exp(-t^2) over t from x on.
     *
     * @return 0 to 2, or NaN for NaN
     */
    static double complement(double x) {
        double size = Math.abs(x);
        if (size <= 0.46875) {
            return 1 - x * quotient(A, B, x * x);
        }
        double tail = size >= ZERO_FROM ? 0 : tail(size);
        return x < 0 ? 2 - tail : tail;
    }

    private static double tail(double x) {
        // exp(-x^2) as a product, because the rounding of x^2 would be magnified.
        double coarse = Math.floor(x * 16) / 16;
        double exp = Math.exp(-coarse * coarse) * Math.exp(-(x - coarse) * (x + coarse));
        if (x <= 4) {
            return exp * quotient(C, D, x);
        }
        double inverse = 1 / (x * x);
        double correction = inverse * quotient(P, Q, inverse);
        return exp * (1 / Math.sqrt(Math.PI) - correction) / x;
    }

    private static double quotient(double[] numerator, double[] denominator, double x) {
        return polynomial(numerator, x) / polynomial(denominator, x);
    }

    /** Coefficients from the highest power down. */
    private static double polynomial(double[] coefficients, double x) {
        double sum = 0;
        for (double coefficient : coefficients) {
            sum = sum * x + coefficient;
        }
        return sum;
    }
}
