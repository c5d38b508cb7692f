package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LT;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;

/**
 * Products with sigmoid(z) = 1 / (1 + e^-z), from operations that round as IEEE 754 says, so that
 * every execution mode gives the same bits. {@code lanewise(EXP)} is not used: its intrinsic and
 * its fallback differ.
 *
 * <p>With e = exp(-|z|), sigmoid(z) is 1 / (1 + e), or e / (1 + e) for negative z. Here -|z| = n ln
 * 2 + r with |r| at most ln(2) / 2, and e = 2^n e^r with the series of e^r up to a remainder below
 * 0.1 ulp. Subnormal results are kept; infinities and NaN come out as from the formula.
 */
final class Sigmoid {
    private static final float LOG2_E = 0x1.715476p+0f;

    /** ln 2 in two parts; the first has trailing zeros, so that n times it is exact. */
    private static final float LN2_HIGH = 0x1.62e4p-1f;

    private static final float LN2_LOW = 0x1.7f7d1cp-20f;

    /** Adding it rounds to an integer, which is then found in the low bits. */
    private static final float ROUNDER = 0x1.8p23f;

    private static final int ROUNDER_BITS = Float.floatToRawIntBits(ROUNDER);

    /** Below this the sigmoid counts as 0; times -z it is 1e-63, no F32. */
    private static final float LOWEST = -150;

    /** Times this power of two, e^r is still far from subnormal. */
    private static final int NORMAL_POWER = -100;

    private static final float C7 = 1 / 5040f;
    private static final float C6 = 1 / 720f;
    private static final float C5 = 1 / 120f;
    private static final float C4 = 1 / 24f;
    private static final float C3 = 1 / 6f;
    private static final float C2 = 1 / 2f;

    private Sigmoid() {}

    /**
     * Computes {@code scale = x sigmoid(slope x) scale}; with a slope of 1 the error is below 4
     * ulp. One method without parts that return vectors: the JVM may compile such parts by
     * themselves, and then allocates what they return.
     *
     * @param x factors
     * @param slope of the sigmoid
     * @param scale other factors, overwritten
     * @param count elements, whole vectors
     */
    static void product(float[] x, float slope, float[] scale, int count) {
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector factor = FloatVector.fromArray(Lanes.FLOATS, x, i);
            FloatVector z = factor.mul(slope);
            FloatVector exponent = z.abs().neg().max(LOWEST);
            FloatVector rounded = exponent.fma(LOG2_E, ROUNDER);
            FloatVector multiple = rounded.sub(ROUNDER);
            FloatVector r =
                    multiple.lanewise(FMA, -LN2_LOW, multiple.lanewise(FMA, -LN2_HIGH, exponent));
            FloatVector series = r.fma(C7, C6);
            series = series.lanewise(FMA, r, C5);
            series = series.lanewise(FMA, r, C4);
            series = series.lanewise(FMA, r, C3);
            series = series.lanewise(FMA, r, C2);
            FloatVector mantissa = series.lanewise(FMA, r.mul(r), r).add(1);

            // 2^n = low high, as one power may be subnormal.
            IntVector n = rounded.reinterpretAsInts().sub(ROUNDER_BITS);
            IntVector most = n.max(NORMAL_POWER);
            FloatVector low = most.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
            low = low.blend(0, z.compare(LT, LOWEST));
            FloatVector high = n.sub(most).add(127).lanewise(LSHL, 23).reinterpretAsFloats();

            FloatVector divisor = mantissa.mul(low).mul(high).add(1);
            VectorMask<Float> negative = z.compare(LT, 0);
            // The last power comes after the scale, so that only the result can be subnormal.
            factor.mul(one.blend(mantissa, negative))
                    .div(divisor)
                    .mul(one.blend(low, negative))
                    .mul(FloatVector.fromArray(Lanes.FLOATS, scale, i))
                    .mul(one.blend(high, negative))
                    .intoArray(scale, i);
        }
    }
}
