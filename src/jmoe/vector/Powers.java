package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;
import static jdk.incubator.vector.VectorOperators.IS_NAN;
import static jdk.incubator.vector.VectorOperators.LSHL;

import jdk.incubator.vector.DoubleVector;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorSpecies;

/**
 * A token's {@code exp(z_e - max_e z_e)} over all experts, in double and from operations that round
 * as IEEE 754 says, so that every execution mode gives the same bits. 0 for NaN, and at an infinite
 * maximum 1 for all logits that have it. Owned by one worker.
 *
 * <p>The exponent is n ln 2 + r with |r| at most ln(2) / 2; the series of e^r is below 1 ulp off.
 */
final class Powers {
    static final VectorSpecies<Double> DOUBLES =
            VectorSpecies.of(double.class, Lanes.FLOATS.vectorShape());

    private static final double LOG2_E = 0x1.71547652b82fep+0;
    private static final double LN2_HIGH = 0x1.62e42fefa39efp-1;
    private static final double LN2_LOW = 0x1.abc9e3b39803fp-56;

    /** Adding it rounds to an integer, which is then found in the low bits. */
    private static final double ROUNDER = 0x1.8p52;

    private static final long ROUNDER_BITS = Double.doubleToRawLongBits(ROUNDER);

    /** e to this is no longer seen beside 1 nor as F32, but still a normal number. */
    private static final double LOWEST = -700;

    /** 1/13!, 1/12!, ..., 1/2!. */
    private static final double[] SERIES = {
        1 / 6227020800.0,
        1 / 479001600.0,
        1 / 39916800.0,
        1 / 3628800.0,
        1 / 362880.0,
        1 / 40320.0,
        1 / 5040.0,
        1 / 720.0,
        1 / 120.0,
        1 / 24.0,
        1 / 6.0,
        1 / 2.0
    };

    /** The token's logits, then zeros up to whole vectors. */
    final float[] row;

    /** Their powers, then zeros. */
    final double[] powers;

    private final int numExperts;

    Powers(int numExperts) {
        this.numExperts = numExperts;
        row = new float[Lanes.padded(numExperts)];
        powers = new double[row.length];
    }

    boolean serves(int otherExperts) {
        return numExperts == otherExperts;
    }

    void read(Elements all, long token) {
        all.read(token * numExperts, numExperts, row, 0);
    }

    /** Reads the logits of a token and computes their powers. */
    void compute(Elements all, long token) {
        read(all, token);
        float max = Float.NEGATIVE_INFINITY;
        for (int e = 0; e < numExperts; e++) {
            max = row[e] > max ? row[e] : max;
        }
        for (int e = 0; e < numExperts; e++) {
            powers[e] = row[e] == max ? 0 : (double) row[e] - max;
        }
        for (int e = numExperts; e < powers.length; e++) {
            powers[e] = Double.NaN;
        }
        for (int i = 0; i < powers.length; i += DOUBLES.length()) {
            DoubleVector exponent = DoubleVector.fromArray(DOUBLES, powers, i);
            DoubleVector bounded = exponent.max(LOWEST);
            DoubleVector rounded = bounded.lanewise(FMA, LOG2_E, ROUNDER);
            DoubleVector multiple = rounded.sub(ROUNDER);
            DoubleVector r =
                    multiple.lanewise(FMA, -LN2_LOW, multiple.lanewise(FMA, -LN2_HIGH, bounded));
            DoubleVector series = DoubleVector.broadcast(DOUBLES, SERIES[0]);
            for (int c = 1; c < SERIES.length; c++) {
                series = series.lanewise(FMA, r, DoubleVector.broadcast(DOUBLES, SERIES[c]));
            }
            DoubleVector power = series.lanewise(FMA, r.mul(r), r).add(1);
            LongVector n = rounded.reinterpretAsLongs().sub(ROUNDER_BITS);
            LongVector bits = n.add(1023).lanewise(LSHL, 52);
            power.mul(bits.reinterpretAsDoubles())
                    .blend(0, exponent.test(IS_NAN))
                    .intoArray(powers, i);
        }
    }

    /** The sum of the powers, in an order of its own. */
    double sum() {
        double even = 0;
        double odd = 0;
        for (int e = 0; e < powers.length; e += 2) {
            even += powers[e];
            odd += powers[e + 1];
        }
        return even + odd;
    }
}
