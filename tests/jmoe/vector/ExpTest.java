package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;

import jdk.incubator.vector.FloatVector;

import org.junit.jupiter.api.Test;

import java.util.Random;

class ExpTest {
    private static final float[] SPECIAL = {
        0f,
        -0f,
        Float.MIN_VALUE,
        -Float.MIN_VALUE,
        Float.MIN_NORMAL,
        1f,
        -1f,
        0.34657359f,
        0.34657362f,
        -87.33655f,
        -87.33654f,
        -103.27893f,
        -103.97207f,
        -103.97208f,
        -104f,
        -120f,
        -121f,
        88.72283f,
        88.72284f,
        89f,
        1e10f,
        -1e10f,
        Float.MAX_VALUE,
        -Float.MAX_VALUE,
        Float.POSITIVE_INFINITY,
        Float.NEGATIVE_INFINITY,
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

    @Test
    void exp_isWithinOneUlp() {
        float[] x = samples();
        for (int i = 0; i < x.length; i += Lanes.COUNT) {
            float[] got = Exp.exp(FloatVector.fromArray(Lanes.FLOATS, x, i)).toArray();
            for (int lane = 0; lane < Lanes.COUNT; lane++) {
                assertClose("exp", x[i + lane], got[lane], Math.exp(x[i + lane]), 1);
            }
        }
    }

    @Test
    void exp_hasTheRightLimits() {
        assertThat(exp(Float.POSITIVE_INFINITY)).isEqualTo(Float.POSITIVE_INFINITY);
        assertThat(exp(Float.NEGATIVE_INFINITY)).isEqualTo(0f);
        assertThat(exp(Float.NaN)).isNaN();
        assertThat(exp(0)).isEqualTo(1f);
        assertThat(exp(-0f)).isEqualTo(1f);
        assertThat(exp(88.72284f)).isEqualTo(Float.POSITIVE_INFINITY);
        assertThat(exp(88.72283f)).isFinite();
        assertThat(exp(-103.97207f)).isEqualTo(Float.MIN_VALUE);
        assertThat(exp(-103.97209f)).isEqualTo(0f);
    }

    @Test
    void sigmoidTimes_isSiluWithinThreeUlp() {
        float[] x = samples();
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        for (int i = 0; i < x.length; i += Lanes.COUNT) {
            FloatVector z = FloatVector.fromArray(Lanes.FLOATS, x, i);
            float[] got = Exp.sigmoidTimes(z, z, one).toArray();
            for (int lane = 0; lane < Lanes.COUNT; lane++) {
                double z1 = x[i + lane];
                // The formula itself is inf / inf below -709, where the result is 0.
                double want =
                        z1 < -700 && z1 > Double.NEGATIVE_INFINITY
                                ? -0.0
                                : z1 / (1 + Math.exp(-z1));
                if (z1 > Double.NEGATIVE_INFINITY || Double.isNaN(z1)) {
                    assertClose("silu", x[i + lane], got[lane], want, 3);
                }
            }
        }
    }

    @Test
    void sigmoidTimes_isSigmoidWithinThreeUlp() {
        float[] x = samples();
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        for (int i = 0; i < x.length; i += Lanes.COUNT) {
            float[] got =
                    Exp.sigmoidTimes(one, FloatVector.fromArray(Lanes.FLOATS, x, i), one).toArray();
            for (int lane = 0; lane < Lanes.COUNT; lane++) {
                double want = 1 / (1 + Math.exp(-(double) x[i + lane]));
                assertClose("sigmoid", x[i + lane], got[lane], want, 3);
            }
        }
    }

    @Test
    void sigmoidTimes_isAccurateWhereTheSigmoidVanishes() {
        for (float z = -60; z >= -125; z -= 0.37f) {
            for (float scale : new float[] {1e-20f, 7, 1e20f, 3e38f}) {
                double want = (double) z * scale / (1 + Math.exp(-(double) z));
                FloatVector zs = FloatVector.broadcast(Lanes.FLOATS, z);
                FloatVector scales = FloatVector.broadcast(Lanes.FLOATS, scale);
                float got = Exp.sigmoidTimes(zs, zs, scales).lane(0);
                // Below -120 the result is flushed, as small as it would be with a scale of 1.
                assertClose("swiglu", z, got, z < -120 ? -0.0 : want, 4);
            }
        }
        FloatVector lowest = FloatVector.broadcast(Lanes.FLOATS, -Float.MAX_VALUE);
        assertThat(Exp.sigmoidTimes(lowest, lowest, lowest.neg()).lane(0)).isZero();
    }

    private static float exp(float x) {
        return Exp.exp(FloatVector.broadcast(Lanes.FLOATS, x)).lane(0);
    }

    private static void assertClose(String what, float x, float got, double want, double ulps) {
        float rounded = (float) want;
        boolean close =
                Float.compare(got, rounded) == 0 || Math.abs(got - want) < ulps * Math.ulp(rounded);
        if (!close || Float.isInfinite(got) != Float.isInfinite(rounded)) {
            fail("%s(%s) = %s, expected %s".formatted(what, x, got, want));
        }
    }
}
