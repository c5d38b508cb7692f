package jmoe.ops;

/**
 * The complementary error function by rational Chebyshev approximations; Cody 1969, "Rational
 * Chebyshev Approximations for the Error Function". Relative error below 1e-15 wherever the result
 * is not subnormal.
 */
final class ErrorFunction {
    private static final double[] A = {
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3
    };

    private static final double[] B = {
        1,
        2.36012909523441209e1,
        2.44024637934444173e2,
        1.28261652607737228e3,
        2.84423683343917062e3
    };

    private static final double[] C = {
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e0,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3
    };

    private static final double[] D = {
        1,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3
    };

    private static final double[] P = {
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4
    };

    private static final double[] Q = {
        1,
        2.56852019228982242e0,
        1.87295284992346047e0,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3
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
