package jmoe.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.util.Random;

class QuantisationTest {
    /** The smallest F32 number. */
    private static final double TINY = Float.MIN_VALUE;

    private static Tensor tensor(Arena arena, DType dtype, double... values) {
        Tensor tensor = Tensor.allocate(arena, dtype, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setDouble(i, values[i]);
        }
        return tensor;
    }

    private static long[] codes(Tensor quantised) {
        long[] codes = new long[(int) quantised.numElements()];
        for (int i = 0; i < codes.length; i++) {
            codes[i] = quantised.getLong(i);
        }
        return codes;
    }

    @Test
    void of_givesEachRowItsScale() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = tensor(arena, DType.F32, 1, -2, 0.5, 0, 0, -0.0, 254, 3, -254);
            Tensor quantised = Quantisation.of(weight.reshape(3, 1, 3), arena);
            assertThat(quantised.describe()).isEqualTo("scaled I8 [3, 1, 3]");
            assertThat(codes(quantised)).containsExactly(64, -127, 32, 0, 0, 0, 127, 2, -127);
            assertThat(quantised.scale().shape()).containsExactly(3, 1);
            assertThat(quantised.scale().getFloat(0)).isEqualTo(2f / 127f);
            assertThat(quantised.scale().getFloat(1)).isZero();
            assertThat(quantised.scale().getFloat(2)).isEqualTo(2);
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "BF16", "F64"})
    void of_breaksTiesToEven(DType dtype) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = tensor(arena, dtype, 127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 63.5);
            assertThat(codes(Quantisation.of(weight, arena)))
                    .containsExactly(127, 0, 2, 2, 0, -2, -2, 64);
        }
    }

    /** Factors below the smallest normal number have few bits, and the nearest may be 0. */
    @ParameterizedTest
    @CsvSource({
        "1, 1, 1",
        "60, 1, 60",
        "127, 1, 127",
        "180, 2, 90",
        "181, 2, 90",
        "254, 2, 127",
        "300, 3, 100",
        "1000000, 7874, 127"
    })
    void of_subnormalRow_keepsCodesInRange(int largest, int scale, int code) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = tensor(arena, DType.F32, largest * TINY, -largest * TINY, 0);
            Tensor quantised = Quantisation.of(weight, arena);
            assertThat(quantised.scale().getDouble(0)).isEqualTo(scale * TINY);
            assertThat(codes(quantised)).containsExactly(code, -code, 0);
        }
    }

    @Test
    void of_extremes() {
        try (Arena arena = Arena.ofConfined()) {
            double max = Float.MAX_VALUE;
            Tensor large = Quantisation.of(tensor(arena, DType.F32, max, -max, max / 4), arena);
            assertThat(codes(large)).containsExactly(127, -127, 32);
            Tensor tiny = Quantisation.of(tensor(arena, DType.F64, 1e-60, -1e-300), arena);
            assertThat(codes(tiny)).containsExactly(0, 0);
            assertThat(Quantisation.of(Tensor.allocate(arena, DType.F32, 2, 0), arena).shape())
                    .containsExactly(2, 0);
            assertThat(Quantisation.of(Tensor.allocate(arena, DType.F32, 0, 2), arena).shape())
                    .containsExactly(0, 2);
        }
    }

    @ParameterizedTest
    @CsvSource({
        "F32, NaN, NaN",
        "F16, Infinity, Infinity",
        "BF16, -Infinity, -Infinity",
        "F64, 1e39, 1.0E39"
    })
    void of_namesTheRowThatIsNotFinite(DType dtype, double value, String text) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = tensor(arena, dtype, new double[40]);
            weight.setDouble(27, value);
            weight.setDouble(33, Double.NaN);
            assertThatThrownBy(() -> Quantisation.of(weight.reshape(2, 4, 5), arena))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "weight: expected finite F32 numbers, got %s in row 5 of %s [2, 4, 5]",
                            text, dtype);
        }
    }

    @Test
    void of_refusesWhatIsNoWeight() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor quantised = Quantisation.of(tensor(arena, DType.F32, 1, 2), arena);
            for (Tensor wrong :
                    new Tensor[] {
                        quantised,
                        Tensor.allocate(arena, DType.I8, 2),
                        Tensor.allocate(arena, DType.F32)
                    }) {
                assertThatThrownBy(() -> Quantisation.of(wrong, arena))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(
                                "weight: expected F32, F16, BF16 or F64 [.., inputs], got "
                                        + wrong.describe());
            }
            assertThatThrownBy(() -> Quantisation.of(Tensor.device(64, DType.F32, 2), arena))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("weight: expected host memory");
        }
    }

    @Test
    void quantise_writesItsRowsOnly() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor from = tensor(arena, DType.F32, 9, 9, 127, 1, 2, 254, Double.NaN, 0);
            Tensor to =
                    Quantisation.allocate(
                            (type, shape) -> Tensor.allocate(arena, type, shape), 5, 2);
            to.data().fill((byte) 77);
            assertThat(Quantisation.quantise(from.data(), from.dtype(), 2, to, 1, 3)).isEqualTo(4);
            assertThat(codes(to)).containsExactly(77, 77, 127, 1, 1, 127, 77, 77, 77, 77);
            assertThat(to.scale().getDouble(2)).isEqualTo(2);
            assertThat(to.scale().getDouble(3)).isZero();
            assertThatThrownBy(() ->
                            Quantisation.quantise(from.data(), from.dtype(), 0, to.scale(), 0, 1))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("to: expected scaled I8, got F32 [5]");
        }
    }

    @Property(tries = 500)
    void of_isOffByHalfAStepAtMost(
            @ForAll @IntRange(min = 1, max = 40) int inputs,
            @ForAll @IntRange(min = -46, max = 37) int exponent,
            @ForAll int seed) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = row(arena, inputs, exponent, seed);
            Tensor quantised = Quantisation.of(weight, arena);
            double step = quantised.scale().getDouble(0);
            for (long i = 0; i < inputs; i++) {
                double error = Math.abs(quantised.getDouble(i) - weight.getDouble(i));
                // The largest of all is off by the rounding of the scale, 127 times.
                assertThat(error).isLessThanOrEqualTo(step * (0.5 + 127 * 0x1p-24));
                assertThat(quantised.getLong(i)).isBetween(-127L, 127L);
            }
        }
    }

    @Property(tries = 500)
    void of_quantisedNumbers_givesThemAgain(
            @ForAll @IntRange(min = 1, max = 40) int inputs,
            @ForAll @IntRange(min = -30, max = 37) int exponent,
            @ForAll int seed) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor once = Quantisation.of(row(arena, inputs, exponent, seed), arena);
            Tensor exact = Tensor.allocate(arena, DType.F64, inputs);
            for (long i = 0; i < inputs; i++) {
                exact.setDouble(i, once.getDouble(i));
            }
            Tensor twice = Quantisation.of(exact, arena);
            assertThat(codes(twice)).isEqualTo(codes(once));
            assertThat(twice.scale().getFloat(0)).isEqualTo(once.scale().getFloat(0));
        }
    }

    /** Normal numbers of any size that F32 has, the subnormal among them. */
    private static Tensor row(Arena arena, int inputs, int exponent, int seed) {
        Random random = new Random(seed);
        Tensor row = Tensor.allocate(arena, DType.F32, inputs);
        for (long i = 0; i < inputs; i++) {
            row.setDouble(i, random.nextGaussian() * Math.pow(10, exponent));
        }
        return row;
    }
}
