package jmoe.ops;

/**
 * Random numbers of given distributions from uniform ones, and what scales them. Everything is made
 * of the basic operations of double and of {@link StrictMath}, whose specification prescribes the
 * results of fdlibm: a kernel that follows fdlibm too computes the same bits.
 */
final class Noise {
    /** The least standard deviation of learned noise. */
    private static final double LEAST_DEVIATION = 1e-2;

    /** The coefficients of AS 241, as the nearest doubles, of the highest power first. */
    private static final double[] MIDDLE_NUMERATOR = {
        2509.0809287301227,
        33430.57558358813,
        67265.7709270087,
        45921.95393154987,
        13731.69376550946,
        1971.5909503065513,
        133.14166789178438,
        3.3871328727963665
    };

    private static final double[] MIDDLE_DENOMINATOR = {
        5226.495278852854,
        28729.085735721943,
        39307.89580009271,
        21213.794301586597,
        5394.196021424751,
        687.1870074920579,
        42.31333070160091,
        1.0
    };

    private static final double[] TAIL_NUMERATOR = {
        0.0007745450142783414,
        0.022723844989269184,
        0.2417807251774506,
        1.2704582524523684,
        3.6478483247632045,
        5.769497221460691,
        4.630337846156546,
        1.4234371107496835
    };

    private static final double[] TAIL_DENOMINATOR = {
        1.0507500716444169E-9,
        0.0005475938084995345,
        0.015198666563616457,
        0.14810397642748008,
        0.6897673349851,
        1.6763848301838038,
        2.053191626637759,
        1.0
    };

    private static final double[] FAR_NUMERATOR = {
        2.0103343992922881E-7,
        2.7115555687434876E-5,
        0.0012426609473880784,
        0.026532189526576124,
        0.29656057182850487,
        1.7848265399172913,
        5.463784911164114,
        6.657904643501103
    };

    private static final double[] FAR_DENOMINATOR = {
        2.0442631033899397E-15,
        1.421511758316446E-7,
        1.8463183175100548E-5,
        0.0007868691311456133,
        0.014875361290850615,
        0.1369298809227358,
        0.599832206555888,
        1.0
    };

    private Noise() {}

    /** A number between 0 and 1, never one of them, of the first 52 of 64 random bits. */
    static double uniform(int first, int second) {
        long bits = Integer.toUnsignedLong(first) << 20 | second >>> 12;
        return (bits + 0.5) * 0x1p-52;
    }

    /** {@code -log(-log u)}. */
    static double gumbel(double u) {
        return -StrictMath.log(-StrictMath.log(u));
    }

    /** {@code softplus(h) + 0.01}; softplus to about 1e-16 of its sum with that. */
    static double deviation(double h) {
        double rest = StrictMath.log(2 + StrictMath.expm1(-Math.abs(h)));
        return Math.max(h, 0) + rest + LEAST_DEVIATION;
    }

    /**
     * The x that a standard normal number is below with probability p, to about 1e-16 of itself:
     * algorithm AS 241 (Wichura 1988, "The percentage points of the normal distribution"), PPND16.
     */
    static double normal(double p) {
        double q = p - 0.5;
        if (Math.abs(q) <= 0.425) {
            double r = 0.180625 - q * q;
            return q * polynomial(MIDDLE_NUMERATOR, r) / polynomial(MIDDLE_DENOMINATOR, r);
        }
        double r = StrictMath.sqrt(-StrictMath.log(q < 0 ? p : 1 - p));
        double x =
                r <= 5
                        ? polynomial(TAIL_NUMERATOR, r - 1.6)
                                / polynomial(TAIL_DENOMINATOR, r - 1.6)
                        : polynomial(FAR_NUMERATOR, r - 5) / polynomial(FAR_DENOMINATOR, r - 5);
        return q < 0 ? -x : x;
    }

    /** By Horner's rule. */
    private static double polynomial(double[] coefficients, double r) {
        double sum = coefficients[0];
        for (int i = 1; i < coefficients.length; i++) {
            sum = sum * r + coefficients[i];
        }
        return sum;
    }
}
