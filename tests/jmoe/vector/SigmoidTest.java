package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;

import org.junit.jupiter.api.Test;

import java.util.Arrays;
import java.util.Random;

class SigmoidTest {
    private static final float[] SPECIAL = {
        0f,
        -0f,
        Float.MIN_VALUE,
        -Float.MIN_VALUE,
        Float.MIN_NORMAL,
        0.34657359f,
        0.34657362f,
        -87.33655f,
        -87.33654f,
        -103.97207f,
        -103.97208f,
        -108f,
        -109f,
        88.72283f,
        88.72284f,
        Float.MAX_VALUE,
        -Float.MAX_VALUE,
        Float.POSITIVE_INFINITY,
        Float.NaN
    };

    /** All exponents and signs, each with many mantissas; and the whole interesting range. */
    private static float[] samples() {
        Random random = new Random(1);
        float[] x = new float[512 * 64 + (1 << 17)];
        int i = 0;
        for (int high = 0; high < 512; high++) {
            for (int k = 0; k < 64; k++) {
                int mantissa = k == 0 ? 0 : k == 1 ? 0x7fffff : random.nextInt(1 << 23);
                x[i++] = Float.intBitsToFloat((high << 23) | mantissa);
            }
        }
        while (i < x.length) {
            x[i++] = random.nextFloat() * 220 - 120;
        }
        System.arraycopy(SPECIAL, 0, x, x.length - SPECIAL.length, SPECIAL.length);
        return x;
    }

    private static float[] product(float[] x, float slope, float factor) {
        float[] result = new float[x.length];
        Arrays.fill(result, factor);
        Sigmoid.product(x, 0, slope, result, 0, x.length);
        return result;
    }

    private static float product(float x, float slope, float factor) {
        float[] all = new float[Lanes.COUNT];
        Arrays.fill(all, x);
        return product(all, slope, factor)[Lanes.COUNT - 1];
    }

    @Test
    void product_isAccurateOverAllExponents() {
        float[] x = samples();
        float[] silu = product(x, 1, 1);
        for (int i = 0; i < x.length; i++) {
            assertClose(x[i], 1, silu[i], 3);
        }
    }

    @Test
    void product_isAccurateWhereTheSigmoidVanishes() {
        for (float x = -60; x >= -260; x -= 0.37f) {
            for (float factor : new float[] {1e-20f, 7, 1e20f, 3e38f, Float.MAX_VALUE}) {
                assertClose(x, factor, product(x, 1, factor), 4);
            }
        }
    }

    /** With any finite factor the product is 0 there, but only a sigmoid of 0 makes it NaN. */
    @Test
    void product_withAnInfiniteFactorIsThatOfTheFormulaInDouble() {
        float infinity = Float.POSITIVE_INFINITY;
        for (float x : new float[] {-1, -150.5f, -199, -201, -709.78265f, -709.7827f, -1000}) {
            Float want = x > -709.7827f ? -infinity : Float.NaN;
            assertThat(product(x, 1, infinity)).as("x = %s", x).isEqualTo(want);
            assertThat(product(x, 1, Float.MAX_VALUE)).as("x = %s", x).isNotNaN();
        }
    }

    @Test
    void product_hasTheLimitsOfTheFormula() {
        float infinity = Float.POSITIVE_INFINITY;
        assertThat(product(infinity, 1, 1)).isEqualTo(infinity);
        assertThat(product(-infinity, 1, 1)).isNaN();
        assertThat(product(Float.NaN, 1, 1)).isNaN();
        assertThat(product(1, 1, Float.NaN)).isNaN();
        assertThat(product(-Float.MAX_VALUE, 1, Float.MAX_VALUE)).isZero();
        assertThat(product(-Float.MAX_VALUE, 1, infinity)).isNaN();
        assertThat(product(Float.MAX_VALUE, 1, 2)).isEqualTo(infinity);
        assertThat(product(0, 1, 5)).isZero();
    }

    @Test
    void product_appliesTheSlope() {
        for (float x = -20; x <= 20; x += 0.3f) {
            double want = 3 * x / (1 + Math.exp(-1.702 * x));
            float got = product(x, 1.702f, 3);
            // The slope and its product with x are rounded before the exponential magnifies both.
            assertThat(Math.abs(got - want))
                    .as("x = %s", x)
                    .isLessThan((4 + Math.abs(1.702 * x)) * Math.ulp((float) want));
        }
    }

    @Test
    void gate_isTheSigmoidTimesTheFactor() {
        float[] x = samples();
        for (float factor : new float[] {1, 3e38f}) {
            float[] got = new float[x.length];
            Arrays.fill(got, factor);
            Sigmoid.gate(x, 0, got, 0, x.length);
            for (int i = 0; i < x.length; i++) {
                double want = factor / (1 + Math.exp(-(double) x[i]));
                float rounded = (float) want;
                assertThat(
                                Float.compare(got[i], rounded) == 0
                                        || Math.abs(got[i] - want) < 4 * Math.ulp(rounded))
                        .as("x = %s, factor = %s: got %s, expected %s", x[i], factor, got[i], want)
                        .isTrue();
            }
        }
    }

    private static void assertClose(float x, float factor, float got, double ulps) {
        // The formula itself is inf / inf far below, where the result is 0.
        double want = x < -700 && x > -1e39 ? -0.0 : x / (1 + Math.exp(-(double) x)) * factor;
        float rounded = (float) want;
        boolean close =
                Float.compare(got, rounded) == 0
                        || (Math.abs(got - want) < ulps * Math.ulp(rounded)
                                && Float.isInfinite(got) == Float.isInfinite(rounded));
        if (!close) {
            fail("x = %s, factor = %s: got %s, expected %s".formatted(x, factor, got, want));
        }
    }
}
