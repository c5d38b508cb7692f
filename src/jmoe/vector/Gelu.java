package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.FMA;
import static jdk.incubator.vector.VectorOperators.GT;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LT;

import static jmoe.vector.Sigmoid.C2;
import static jmoe.vector.Sigmoid.C3;
import static jmoe.vector.Sigmoid.C4;
import static jmoe.vector.Sigmoid.C5;
import static jmoe.vector.Sigmoid.C6;
import static jmoe.vector.Sigmoid.C7;
import static jmoe.vector.Sigmoid.LN2_HIGH;
import static jmoe.vector.Sigmoid.LN2_LOW;
import static jmoe.vector.Sigmoid.LOG2_E;
import static jmoe.vector.Sigmoid.LOWEST;
import static jmoe.vector.Sigmoid.NORMAL_POWER;
import static jmoe.vector.Sigmoid.ROUNDER;
import static jmoe.vector.Sigmoid.ROUNDER_BITS;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;

import jmoe.ops.Activation;

/**
 * Products with gelu(x) = x Phi(x), and with its approximation by tanh. Both need a power of e that
 * is far below the smallest F32 where the product with the factor is not; it is computed and
 * multiplied as {@link Sigmoid} says, and its exponent has a second part for what does not fit in
 * one F32: e^z is off by as much of itself as z is in units.
 *
 * <p>The tail of the normal distribution is Phi(-a) = e^(-a^2 / 2) R(a), where R falls slowly from
 * 1/2 towards 0.4 / a. As in M. M. Shepherd and J. G. Laframboise 1981, "Chebyshev Approximation of
 * (1 + 2x) exp(x^2) erfc x in 0 &le; x &lt; oo", (a + 4) R(a) is a polynomial of t = (a - 4) / (a +
 * 4); the one here was fitted for a from 0 to 20 and is off by at most 2e-8 of itself. Phi(a) is 1
 * - Phi(-a) for positive a.
 */
final class Gelu {
    /** From here on e^(-a^2 / 2) is e^{@link Sigmoid#LOWEST}, and below. */
    private static final float FARTHEST = 20;

    /** Below this Phi is 0, as the smallest double is more; matters beside infinity. */
    private static final float ZERO_BELOW = -38.485283f;

    /** Of (a + 4) R(a), by power of t. */
    private static final float T0 = 0x1.82b4bcp-1f;

    private static final float T1 = -0x1.373e3ap-1f;
    private static final float T2 = 0x1.8c6da2p-2f;
    private static final float T3 = -0x1.7e0008p-3f;
    private static final float T4 = 0x1.eecdbp-5f;
    private static final float T5 = -0x1.ed09eap-8f;
    private static final float T6 = -0x1.ca16a6p-9f;
    private static final float T7 = 0x1.9be6b4p-10f;
    private static final float T8 = 0x1.3a89c6p-13f;
    private static final float T9 = -0x1.3aaca8p-13f;

    private static final double TANH_SLOPE = 2 * Math.sqrt(2 / Math.PI);
    private static final double TANH_CUBE = TANH_SLOPE * Activation.GELU_TANH_CUBE;

    /** The exponent of the approximation is a (slope + cube a^2), each constant in two parts. */
    private static final float SLOPE = (float) TANH_SLOPE;

    private static final float SLOPE_LOW = (float) (TANH_SLOPE - SLOPE);
    private static final float CUBE = (float) TANH_CUBE;
    private static final float CUBE_LOW = (float) (TANH_CUBE - CUBE);

    /** Far beyond where the sigmoid is 0 or 1, and not so far that a^3 overflows. */
    private static final float TANH_FARTHEST = 100;

    private Gelu() {}

    /**
     * Computes {@code factor = x Phi(x) factor} from some index on; the error is below 5 ulp,
     * whatever the factor.
     *
     * @param x arguments
     * @param from index of the first
     * @param factor other factors, overwritten
     * @param at index of the first
     * @param count elements, whole vectors
     */
    static void product(float[] x, int from, float[] factor, int at, int count) {
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector argument = FloatVector.fromArray(Lanes.FLOATS, x, from + i);
            FloatVector a = argument.abs().min(FARTHEST);
            FloatVector half = a.mul(0.5f).neg();
            FloatVector exponent = a.mul(half);
            FloatVector rest = a.lanewise(FMA, half, exponent.neg());
            FloatVector rounded = exponent.fma(LOG2_E, ROUNDER);
            FloatVector multiple = rounded.sub(ROUNDER);
            FloatVector r =
                    multiple.lanewise(FMA, -LN2_LOW, multiple.lanewise(FMA, -LN2_HIGH, exponent))
                            .add(rest);
            FloatVector series = r.fma(C7, C6);
            series = series.lanewise(FMA, r, C5);
            series = series.lanewise(FMA, r, C4);
            series = series.lanewise(FMA, r, C3);
            series = series.lanewise(FMA, r, C2);
            FloatVector mantissa = series.lanewise(FMA, r.mul(r), r).add(1);

            IntVector n = rounded.reinterpretAsInts().sub(ROUNDER_BITS);
            IntVector most = n.max(NORMAL_POWER);
            FloatVector low = most.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
            low = low.blend(0, argument.compare(LT, ZERO_BELOW));
            IntVector others = n.sub(most);
            IntVector part = others.lanewise(ASHR, 1);
            FloatVector middle = part.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
            FloatVector high = others.sub(part).add(127).lanewise(LSHL, 23).reinterpretAsFloats();

            // 1 / (a + 4), once more corrected, as the sum was rounded too.
            FloatVector inverse = one.div(a.add(4));
            FloatVector lacking = inverse.neg().lanewise(FMA, a, inverse.fma(-4, 1));
            inverse = inverse.lanewise(FMA, lacking, inverse);
            FloatVector t = inverse.fma(-8, 1);
            FloatVector ratio = t.fma(T9, T8).lanewise(FMA, t, T7).lanewise(FMA, t, T6);
            ratio = ratio.lanewise(FMA, t, T5).lanewise(FMA, t, T4).lanewise(FMA, t, T3);
            ratio = ratio.lanewise(FMA, t, T2).lanewise(FMA, t, T1).lanewise(FMA, t, T0);

            FloatVector tail = mantissa.mul(ratio.mul(inverse));
            VectorMask<Float> negative = argument.compare(LT, 0);
            argument.mul(one.blend(low, negative))
                    .mul(one.sub(tail.mul(low)).blend(tail, negative))
                    .mul(FloatVector.fromArray(Lanes.FLOATS, factor, at + i))
                    .mul(one.blend(middle, negative))
                    .mul(one.blend(high, negative))
                    .intoArray(factor, at + i);
        }
    }

    /**
     * Computes {@code factor = x sigmoid(x (slope + cube x^2)) factor} from some index on, which is
     * {@code x (1 + tanh(z)) / 2 factor}; the error is below 5 ulp, whatever the factor.
     *
     * @param x arguments
     * @param from index of the first
     * @param factor other factors, overwritten
     * @param at index of the first
     * @param count elements, whole vectors
     */
    static void tanhProduct(float[] x, int from, float[] factor, int at, int count) {
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector argument = FloatVector.fromArray(Lanes.FLOATS, x, from + i);
            FloatVector a = argument.abs().min(TANH_FARTHEST);
            FloatVector square = a.mul(a);
            FloatVector squareLow = a.lanewise(FMA, a, square.neg());
            FloatVector cube = square.mul(CUBE);
            FloatVector cubeLow = square.lanewise(FMA, CUBE, cube.neg());
            cubeLow = square.lanewise(FMA, CUBE_LOW, squareLow.lanewise(FMA, CUBE, cubeLow));
            // The sum of both, and what it lacks; Knuth's, as either may be larger.
            FloatVector sum = cube.add(SLOPE);
            FloatVector added = sum.sub(SLOPE);
            FloatVector sumLow = sum.sub(added).neg().add(SLOPE).add(cube.sub(added));
            sumLow = sumLow.add(cubeLow.add(SLOPE_LOW));
            FloatVector z = a.mul(sum);
            FloatVector rest = a.lanewise(FMA, sumLow, a.lanewise(FMA, sum, z.neg()));

            FloatVector exponent = z.neg().max(LOWEST);
            FloatVector rounded = exponent.fma(LOG2_E, ROUNDER);
            FloatVector multiple = rounded.sub(ROUNDER);
            FloatVector r =
                    multiple.lanewise(FMA, -LN2_LOW, multiple.lanewise(FMA, -LN2_HIGH, exponent))
                            .sub(rest);
            FloatVector series = r.fma(C7, C6);
            series = series.lanewise(FMA, r, C5);
            series = series.lanewise(FMA, r, C4);
            series = series.lanewise(FMA, r, C3);
            series = series.lanewise(FMA, r, C2);
            FloatVector mantissa = series.lanewise(FMA, r.mul(r), r).add(1);

            IntVector n = rounded.reinterpretAsInts().sub(ROUNDER_BITS);
            IntVector most = n.max(NORMAL_POWER);
            FloatVector low = most.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
            low = low.blend(0, z.compare(GT, -Sigmoid.ZERO_BELOW));
            IntVector others = n.sub(most);
            IntVector part = others.lanewise(ASHR, 1);
            FloatVector middle = part.add(127).lanewise(LSHL, 23).reinterpretAsFloats();
            FloatVector high = others.sub(part).add(127).lanewise(LSHL, 23).reinterpretAsFloats();

            FloatVector divisor = mantissa.mul(low).add(1);
            VectorMask<Float> negative = argument.compare(LT, 0);
            argument.mul(one.blend(low, negative))
                    .mul(one.blend(mantissa, negative))
                    .div(divisor)
                    .mul(FloatVector.fromArray(Lanes.FLOATS, factor, at + i))
                    .mul(one.blend(middle, negative))
                    .mul(one.blend(high, negative))
                    .intoArray(factor, at + i);
        }
    }
}
