package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;

import jmoe.ops.Activation;
import jmoe.ops.Activation.Kind;
import jmoe.ops.Kernels;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.Random;

/** Against the reference in double, which its own tests hold against a series in many digits. */
class GeluTest {
    private static final float INFINITY = Float.POSITIVE_INFINITY;

    /** All exponents and signs, each with many mantissas; and the whole interesting range. */
    private static float[] samples() {
        Random random = new Random(1);
        float[] x = new float[512 * 32 + (1 << 16)];
        int i = 0;
        for (int high = 0; high < 512; high++) {
            for (int k = 0; k < 32; k++) {
                int mantissa = k == 0 ? 0 : k == 1 ? 0x7fffff : random.nextInt(1 << 23);
                x[i++] = Float.intBitsToFloat((high << 23) | mantissa);
            }
        }
        while (i < x.length) {
            x[i++] = random.nextFloat() * 36 - 20;
        }
        return x;
    }

    private static float[] product(Kind kind, float[] x, float factor) {
        float[] result = new float[x.length];
        Arrays.fill(result, factor);
        if (kind == Kind.GEGLU) {
            Gelu.product(x, 0, result, 0, x.length);
        } else {
            Gelu.tanhProduct(x, 0, result, 0, x.length);
        }
        return result;
    }

    private static float product(Kind kind, float x, float factor) {
        float[] all = new float[Lanes.COUNT];
        Arrays.fill(all, x);
        return product(kind, all, factor)[Lanes.COUNT - 1];
    }

    private static void check(Kind kind, float[] x, float factor) {
        float[] got = product(kind, x, factor);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor gateUp = Tensor.allocate(arena, DType.F32, x.length, 2);
            Tensor offsets = Tensor.allocate(arena, DType.I32, 2);
            offsets.setInt(1, x.length);
            for (int i = 0; i < x.length; i++) {
                gateUp.setDouble(2L * i, x[i]);
                gateUp.setDouble(2L * i + 1, factor);
            }
            Tensor want = Tensor.allocate(arena, DType.F64, x.length, 1);
            reference.swiglu(gateUp, Activation.of(kind), offsets, want);
            for (int i = 0; i < x.length; i++) {
                assertClose(x[i], factor, got[i], want.getDouble(i));
            }
        }
    }

    private static void assertClose(float x, float factor, float got, double want) {
        float rounded = (float) want;
        boolean close =
                Float.compare(got, rounded) == 0
                        || got == 0 && rounded == 0
                        || (Math.abs(got - want) < 5 * Math.ulp(rounded)
                                && Float.isInfinite(got) == Float.isInfinite(rounded));
        if (!close) {
            fail("x = %s, factor = %s: got %s, expected %s".formatted(x, factor, got, want));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"GEGLU", "GEGLU_TANH"})
    void product_isAccurateOverAllExponents(Kind kind) {
        check(kind, samples(), 1);
    }

    @ParameterizedTest
    @EnumSource(names = {"GEGLU", "GEGLU_TANH"})
    void product_isAccurateWhereTheTailVanishes(Kind kind) {
        float[] x = new float[1 << 10];
        for (int i = 0; i < x.length; i++) {
            x[i] = -3 - i * 0.017f;
        }
        for (float factor : new float[] {1e-20f, 7, 1e20f, 3e38f, Float.MAX_VALUE}) {
            check(kind, x, factor);
        }
    }

    /** With any finite factor the product is 0 there, but only a gelu of 0 makes it NaN. */
    @Test
    void product_withAnInfiniteFactorIsThatOfTheFormulaInDouble() {
        for (float x : new float[] {-1, -14.5f, -20.5f, -38.48f}) {
            assertThat(product(Kind.GEGLU, x, INFINITY)).as("x = %s", x).isEqualTo(-INFINITY);
        }
        for (float x : new float[] {-1, -14.5f, -20.5f}) {
            assertThat(product(Kind.GEGLU_TANH, x, INFINITY)).as("x = %s", x).isEqualTo(-INFINITY);
        }
        assertThat(product(Kind.GEGLU, -38.49f, INFINITY)).isNaN();
        assertThat(product(Kind.GEGLU_TANH, -21.5f, INFINITY)).isNaN();
    }

    @ParameterizedTest
    @EnumSource(names = {"GEGLU", "GEGLU_TANH"})
    void product_hasTheLimitsOfTheFormula(Kind kind) {
        assertThat(product(kind, INFINITY, 1)).isEqualTo(INFINITY);
        assertThat(product(kind, -INFINITY, 1)).isNaN();
        assertThat(product(kind, Float.NaN, 1)).isNaN();
        assertThat(product(kind, 1, Float.NaN)).isNaN();
        assertThat(product(kind, -Float.MAX_VALUE, Float.MAX_VALUE)).isZero();
        assertThat(product(kind, -Float.MAX_VALUE, INFINITY)).isNaN();
        assertThat(product(kind, Float.MAX_VALUE, 2)).isEqualTo(INFINITY);
        assertThat(product(kind, 0, 5)).isZero();
    }
}
