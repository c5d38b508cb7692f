package jmoe.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Against an oracle that knows nothing of bit tricks: the values of all codes come from their
 * definition, and the nearest is found by comparing with the exact midpoint of two neighbours.
 */
final class FloatsTest {
    /** A 16-bit type. */
    enum Half {
        F16(5, 10, DType.F16),
        BF16(8, 7, DType.BF16);

        final int mantissaBits;
        final int exponentBits;
        final DType dtype;

        /** Values of the codes 0 to infinity; infinity as the number that would come next. */
        final double[] values;

        Half(int exponentBits, int mantissaBits, DType dtype) {
            this.exponentBits = exponentBits;
            this.mantissaBits = mantissaBits;
            this.dtype = dtype;
            this.values = new double[infinity() + 1];
            Arrays.setAll(values, this::magnitude);
        }

        int infinity() {
            return ((1 << exponentBits) - 1) << mantissaBits;
        }

        /** (1.m) 2^(e - bias), or (0.m) 2^(1 - bias), as IEEE 754 defines it. */
        private double magnitude(int code) {
            int bias = (1 << (exponentBits - 1)) - 1;
            int exponent = code >> mantissaBits;
            double mantissa = (code & ((1 << mantissaBits) - 1)) / (double) (1 << mantissaBits);
            return exponent == 0
                    ? mantissa * Math.pow(2, 1 - bias)
                    : (1 + mantissa) * Math.pow(2, exponent - bias);
        }

        /** Nearest code, of two equally near ones the even. */
        short nearest(double value) {
            int sign = Double.doubleToRawLongBits(value) < 0 ? 0x8000 : 0;
            double magnitude = Math.abs(value);
            int at = Arrays.binarySearch(values, magnitude);
            if (at < 0) {
                int above = -at - 1;
                if (above > infinity()) {
                    at = infinity();
                } else {
                    double midpoint = values[above - 1] + (values[above] - values[above - 1]) / 2;
                    boolean up = magnitude > midpoint || magnitude == midpoint && above % 2 == 0;
                    at = up ? above : above - 1;
                }
            }
            return (short) (sign | at);
        }

        float widen(short code) {
            return this == F16 ? Floats.f16ToFloat(code) : Floats.bf16ToFloat(code);
        }

        short round(float value) {
            return this == F16 ? Floats.floatToF16(value) : Floats.floatToBf16(value);
        }

        short round(double value) {
            return this == F16 ? Floats.doubleToF16(value) : Floats.doubleToBf16(value);
        }
    }

    @ParameterizedTest
    @EnumSource
    void widen_givesValueOfEveryCode(Half half) {
        for (int code = 0; code < 1 << 16; code++) {
            float got = half.widen((short) code);
            int magnitude = code & 0x7fff;
            if (magnitude > half.infinity()) {
                assertThat(got).as("code %x", code).isNaN();
            } else {
                double want = magnitude == half.infinity() ? 1 / 0.0 : half.values[magnitude];
                assertThat((double) got)
                        .as("code %x", code)
                        .isEqualTo(code < 0x8000 ? want : -want);
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void round_givesEveryCodeBack(Half half) {
        for (int code = 0; code < 1 << 16; code++) {
            float value = half.widen((short) code);
            if ((code & 0x7fff) > half.infinity()) {
                assertNan(half, half.round(value), value);
                assertNan(half, half.round((double) value), value);
            } else {
                assertThat(half.round(value)).as("code %x", code).isEqualTo((short) code);
                assertThat(half.round((double) value)).as("code %x", code).isEqualTo((short) code);
            }
        }
    }

    /** A signalling NaN may become quiet, but no NaN may become a number or infinity. */
    private static void assertNan(Half half, short code, float value) {
        assertThat(code & 0x7fff)
                .as("NaN %x", Float.floatToRawIntBits(value))
                .isGreaterThan(half.infinity());
    }

    /** Every midpoint of neighbours, what lies just beside it, and what lies beside that. */
    @ParameterizedTest
    @EnumSource
    void round_ofTiesAndTheirNeighbours_isNearestEven(Half half) {
        for (int code = 0; code < half.infinity(); code++) {
            double low = half.values[code];
            double midpoint = low + (half.values[code + 1] - low) / 2;
            float tie = (float) midpoint;
            assertThat((double) tie).as("ties are floats").isEqualTo(midpoint);
            for (float f :
                    new float[] {
                        tie,
                        Math.nextUp(tie),
                        Math.nextDown(tie),
                        Math.nextUp(Math.nextUp(tie)),
                        Math.nextDown(Math.nextDown(tie)),
                        Math.nextUp((float) low)
                    }) {
                check(half, f);
                check(half, -f);
            }
            // Next to a tie in double: rounding to float first would make it a tie.
            for (double d :
                    new double[] {
                        Math.nextUp(midpoint),
                        Math.nextDown(midpoint),
                        midpoint * (1 + 0x1p-40),
                        midpoint * (1 - 0x1p-40),
                        // Half a unit of float beside the tie: float rounds it to the tie or away.
                        midpoint + Math.ulp(tie) / 2.0,
                        midpoint - Math.ulp(tie) / 2.0,
                        midpoint + Math.ulp(tie) / 4.0,
                        Math.nextUp(low)
                    }) {
                check(half, d);
                check(half, -d);
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void round_ofRandomNumbers_isNearest(Half half) {
        SplittableRandom random = new SplittableRandom(1);
        for (int i = 0; i < 1_000_000; i++) {
            float f = Float.intBitsToFloat(random.nextInt());
            double d = Double.longBitsToDouble(random.nextLong());
            // Uniform bits of a double rarely have an exponent that a 16-bit type can hold.
            double near = f * (1 + random.nextDouble() * 0x1p-20);
            if (!Float.isNaN(f)) {
                check(half, f);
                check(half, near);
            }
            if (!Double.isNaN(d)) {
                check(half, d);
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void round_atTheEdges(Half half) {
        double largest = half.values[half.infinity() - 1];
        double threshold = largest + (half.values[half.infinity()] - largest) / 2;
        for (double d :
                new double[] {
                    0,
                    Float.MIN_VALUE,
                    Float.MIN_NORMAL,
                    Double.MIN_VALUE,
                    Double.MIN_NORMAL,
                    half.values[1] / 2,
                    Math.nextUp(half.values[1] / 2),
                    Math.nextDown(half.values[1] / 2),
                    largest,
                    threshold,
                    Math.nextDown(threshold),
                    Math.nextUp(threshold),
                    Float.MAX_VALUE,
                    Math.nextUp((double) Float.MAX_VALUE),
                    0x1p128,
                    Double.MAX_VALUE,
                    1 / 0.0
                }) {
            check(half, d);
            check(half, -d);
            check(half, (float) d);
            check(half, (float) -d);
        }
        assertThat(half.round(threshold)).isEqualTo((short) half.infinity());
        assertThat(half.round(Math.nextDown(threshold))).isEqualTo((short) (half.infinity() - 1));
        assertThat(half.round(-0.0)).isEqualTo((short) 0x8000);
        assertThat(half.round(-0.0f)).isEqualTo((short) 0x8000);
    }

    @ParameterizedTest
    @EnumSource
    void round_ofNan_staysNan(Half half) {
        for (int payload = 1; payload > 0 && payload < 1 << 23; payload = payload * 3 + 1) {
            for (int sign : new int[] {0, 1 << 31}) {
                float f = Float.intBitsToFloat(sign | 0x7f80_0000 | payload);
                assertNan(half, half.round(f), f);
                assertNan(half, half.round((double) f), f);
                long bits = (long) sign << 32 | 0x7ff0_0000_0000_0000L | payload;
                assertNan(half, half.round(Double.longBitsToDouble(bits)), f);
            }
        }
        assertNan(half, half.round(Float.intBitsToFloat(0x7fff_ffff)), Float.NaN);
        assertNan(half, half.round(Float.intBitsToFloat(0xffff_ffff)), Float.NaN);
    }

    private static void check(Half half, float value) {
        short got = half.round(value);
        if (got != half.nearest(value)) {
            assertThat(got).as("%s of float %a", half, value).isEqualTo(half.nearest(value));
        }
    }

    private static void check(Half half, double value) {
        short got = half.round(value);
        if (got != half.nearest(value)) {
            assertThat(got).as("%s of double %a", half, value).isEqualTo(half.nearest(value));
        }
    }

    /** All pairs, from and to the middle of odd addresses, with nothing written beside the run. */
    @Test
    void convert_ofAllPairs_roundsOnceAndOnlyWithinTheRun() {
        List<DType> types = List.of(DType.F64, DType.F32, DType.F16, DType.BF16);
        double[] values = {
            0,
            -0.0,
            1,
            -1 / 3.0,
            Math.PI,
            65519.99,
            65520,
            1e-7,
            0x1p-25,
            -0x1.8p-25,
            3e38,
            -1e300,
            1e-45,
            1 + 0x1p-11 + 0x1p-40,
            1 + 0x1p-8 + 0x1p-40,
            1 / 0.0,
            -1 / 0.0,
            Double.NaN
        };
        int n = values.length;
        for (DType from : types) {
            for (DType to : types) {
                try (Arena arena = Arena.ofConfined()) {
                    Tensor source = Tensor.of(arena.allocate(8 * (n + 9)).asSlice(1), from, n + 5);
                    Tensor target = Tensor.of(arena.allocate(8 * (n + 9)).asSlice(3), to, n + 5);
                    for (int i = 0; i < n + 5; i++) {
                        source.setDouble(i, i < 3 || i >= 3 + n ? 77 : values[i - 3]);
                        target.setDouble(i, 5);
                    }
                    Floats.convert(source.data(), from, 3, target.data(), to, 2, n);
                    for (int i = 0; i < n + 5; i++) {
                        double got = target.getDouble(i);
                        double want =
                                i < 2 || i >= 2 + n ? 5 : rounded(to, source.getDouble(i + 1));
                        assertThat(Double.doubleToLongBits(got))
                                .as("%s to %s, element %d: %s", from, to, i, got)
                                .isEqualTo(Double.doubleToLongBits(want));
                    }
                }
            }
        }
    }

    private static double rounded(DType dtype, double value) {
        if (Double.isNaN(value)) {
            return value;
        }
        return switch (dtype) {
            case F16 -> Half.F16.widen(Half.F16.nearest(value));
            case BF16 -> Half.BF16.widen(Half.BF16.nearest(value));
            case F32 -> (float) value;
            default -> value;
        };
    }

    @Test
    void convert_outsideOfSegments_isRejected() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor a = Tensor.allocate(arena, DType.F32, 8);
            Tensor b = Tensor.allocate(arena, DType.BF16, 8);
            assertThatThrownBy(() ->
                            Floats.convert(a.data(), DType.F32, 4, b.data(), DType.BF16, 0, 5))
                    .isInstanceOf(IndexOutOfBoundsException.class);
            assertThatThrownBy(() ->
                            Floats.convert(a.data(), DType.F32, 0, b.data(), DType.BF16, 4, 5))
                    .isInstanceOf(IndexOutOfBoundsException.class);
            Floats.convert(a.data(), DType.F32, 8, b.data(), DType.BF16, 8, 0);
            assertThatThrownBy(
                            () -> Floats.convert(a.data(), DType.F32, 0, b.data(), DType.I16, 0, 1))
                    .isInstanceOf(UnsupportedOperationException.class)
                    .hasMessageContaining("I16");
        }
    }
}
