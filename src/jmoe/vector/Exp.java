package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.FMA;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LT;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;

/**
 * The exponential and the sigmoid from operations that round as IEEE 754 says, so that every
 * execution mode gives the same bits. {@code lanewise(EXP)} is not used: its intrinsic and its
 * fallback differ.
 *
 * <p>x = n ln 2 + r with |r| at most ln(2) / 2 and a remainder of the series below 0.1 ulp; the
 * result is 2^n e^r. Subnormal results are kept, rounded once; overflow gives infinity, exp(-inf) =
 * 0, NaN stays NaN.
 */
final class Exp {
    private static final float LOG2_E = 0x1.715476p+0f;

    /** ln 2 in two parts; the first has trailing zeros, so that n times it is exact. */
    private static final float LN2_HIGH = 0x1.62e4p-1f;

    private static final float LN2_LOW = 0x1.7f7d1cp-20f;

    /** Adding it rounds to an integer, which is then found in the low bits. */
    private static final float ROUNDER = 0x1.8p23f;

    private static final int ROUNDER_BITS = Float.floatToRawIntBits(ROUNDER);

    /** Results are infinite above and, times any |x|, zero below. */
    private static final float HIGHEST = 89;

    private static final float LOWEST = -120;

    /** Times this power of two, e^r is still far from subnormal. */
    private static final int NORMAL_POWER = -100;

    private static final float C7 = 1 / 5040f;
    private static final float C6 = 1 / 720f;
    private static final float C5 = 1 / 120f;
    private static final float C4 = 1 / 24f;
    private static final float C3 = 1 / 6f;
    private static final float C2 = 1 / 2f;

    private Exp() {}

    /** e^x; error below 1 ulp. */
    static FloatVector exp(FloatVector x) {
        FloatVector bounded = x.max(LOWEST).min(HIGHEST);
        FloatVector rounded = bounded.fma(LOG2_E, ROUNDER);
        IntVector n = rounded.reinterpretAsInts().sub(ROUNDER_BITS);
        IntVector half = n.lanewise(ASHR, 1);
        return mantissa(bounded, rounded).mul(power(half)).mul(power(n.sub(half)));
    }

    /**
     * factor sigmoid(z) scale, where sigmoid(z) = 1 / (1 + e^-z); error below 4 ulp, with |factor|
     * at most |z| or 1 also where sigmoid(z) itself would be subnormal or 0.
     */
    static FloatVector sigmoidTimes(FloatVector factor, FloatVector z, FloatVector scale) {
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        VectorMask<Float> negative = z.compare(LT, 0);
        FloatVector bounded = z.abs().neg().max(LOWEST);
        FloatVector rounded = bounded.fma(LOG2_E, ROUNDER);
        IntVector n = rounded.reinterpretAsInts().sub(ROUNDER_BITS);
        IntVector most = n.max(NORMAL_POWER);
        FloatVector mantissa = mantissa(bounded, rounded);
        FloatVector low = power(most).blend(0, z.compare(LT, LOWEST));
        FloatVector high = power(n.sub(most));
        FloatVector divisor = mantissa.mul(low).mul(high).add(1);
        // The last powers of two come after the scale, so that only the result can be subnormal.
        return factor.mul(one.blend(mantissa, negative))
                .div(divisor)
                .mul(one.blend(low, negative))
                .mul(scale)
                .mul(one.blend(high, negative));
    }

    /** e^r for the rest r of x after the rounded multiple of ln 2. */
    private static FloatVector mantissa(FloatVector x, FloatVector rounded) {
        FloatVector n = rounded.sub(ROUNDER);
        FloatVector r = n.lanewise(FMA, -LN2_LOW, n.lanewise(FMA, -LN2_HIGH, x));
        FloatVector series = r.fma(C7, C6);
        series = series.lanewise(FMA, r, C5);
        series = series.lanewise(FMA, r, C4);
        series = series.lanewise(FMA, r, C3);
        series = series.lanewise(FMA, r, C2);
        return series.lanewise(FMA, r.mul(r), r).add(1);
    }

    /** 2^n for n from -126 to 127. */
    private static FloatVector power(IntVector n) {
        return n.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
    }
}
