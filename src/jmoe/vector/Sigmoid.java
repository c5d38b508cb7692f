package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.ASHR;
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
    static final float LOG2_E = 0x1.715476p+0f;

    /** ln 2 in two parts; the first has trailing zeros, so that n times it is exact. */
    static final float LN2_HIGH = 0x1.62e4p-1f;

    static final float LN2_LOW = 0x1.7f7d1cp-20f;

    /** Adding it rounds to an integer, which is then found in the low bits. */
    static final float ROUNDER = 0x1.8p23f;

    static final int ROUNDER_BITS = Float.floatToRawIntBits(ROUNDER);

    /** Below this the sigmoid is 0, as where e^-z overflows in double; matters beside infinity. */
    static final float ZERO_BELOW = -709.78265f;

    /** From here on down the result rounds to 0: times -z and the largest F32, e^z is no F32. */
    static final float LOWEST = -200;

    /** Times this power of two, e^r is still far from subnormal. */
    static final int NORMAL_POWER = -100;

    /** Of the series of e^r, by power. */
    static final float C7 = 1 / 5040f;

    static final float C6 = 1 / 720f;
    static final float C5 = 1 / 120f;
    static final float C4 = 1 / 24f;
    static final float C3 = 1 / 6f;
    static final float C2 = 1 / 2f;

    private Sigmoid() {}

    /**
     * Computes {@code factor = x sigmoid(slope x) factor} from some index on; with a slope of 1 the
     * error is below 4 ulp, whatever the factor.
     *
     * @param x arguments
     * @param from index of the first
     * @param slope of the sigmoid, at least 1
     * @param factor other factors, overwritten
     * @param at index of the first
     * @param count elements, whole vectors
     */
    static void product(float[] x, int from, float slope, float[] factor, int at, int count) {
        product(x, from, slope, true, factor, at, count);
    }

    /**
     * Computes {@code factor = sigmoid(x) factor} from some index on.
     *
     * @param x arguments
     * @param from index of the first
     * @param factor other factors, overwritten
     * @param at index of the first
     * @param count elements, whole vectors
     */
    static void gate(float[] x, int from, float[] factor, int at, int count) {
        product(x, from, 1, false, factor, at, count);
    }

    /**
     * Both. One method without parts that return vectors: the JVM may compile such parts by
     * themselves, and then allocates what they return.
     */
    private static void product(
            float[] x, int from, float slope, boolean timesX, float[] factor, int at, int count) {
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        VectorMask<Float> isFactor = Lanes.FLOATS.maskAll(timesX);
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector argument = FloatVector.fromArray(Lanes.FLOATS, x, from + i);
            FloatVector z = argument.mul(slope);
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

            // 2^n = low middle high, as one power may be subnormal.
            IntVector n = rounded.reinterpretAsInts().sub(ROUNDER_BITS);
            IntVector most = n.max(NORMAL_POWER);
            FloatVector low = most.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
            low = low.blend(0, z.compare(LT, ZERO_BELOW));
            IntVector rest = n.sub(most);
            IntVector half = rest.lanewise(ASHR, 1);
            FloatVector middle = half.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
            FloatVector high = rest.sub(half).add(127).lanewise(LSHL, 23).reinterpretAsFloats();

            // Where low is not all of 2^n, e is lost beside 1 anyway.
            FloatVector divisor = mantissa.mul(low).add(1);
            VectorMask<Float> negative = z.compare(LT, 0);
            // The first power comes before all else, so that the largest argument does not
            // overflow, the last ones after the factor, so that only the result can be subnormal.
            one.blend(argument, isFactor)
                    .mul(one.blend(low, negative))
                    .mul(one.blend(mantissa, negative))
                    .div(divisor)
                    .mul(FloatVector.fromArray(Lanes.FLOATS, factor, at + i))
                    .mul(one.blend(middle, negative))
                    .mul(one.blend(high, negative))
                    .intoArray(factor, at + i);
        }
    }
}
