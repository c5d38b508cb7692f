package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import jmoe.tensor.DType;
import jmoe.tensor.Floats;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

class HalfFloatsTest {
    private static final int CODES = 1 << 16;

    /** All codes, read as whole vectors (from 0) and as a tail (one by one). */
    private static void assertWidensAllCodes(DType dtype) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment codes = arena.allocate(2L * CODES);
            for (int code = 0; code < CODES; code++) {
                codes.set(JAVA_SHORT_UNALIGNED, 2L * code, (short) code);
            }
            Elements elements = new Elements(codes, dtype);
            float[] whole = new float[CODES];
            elements.read(0, CODES, whole, 0);
            float[] single = new float[Lanes.COUNT];
            for (int code = 0; code < CODES; code++) {
                elements.read(code, 1, single, 0);
                assertSame(code, bits(single[0]), bits(whole[code]));
                float want =
                        dtype == DType.F16
                                ? Floats.f16ToFloat((short) code)
                                : Floats.bf16ToFloat((short) code);
                boolean bothNaN = Float.isNaN(want) && Float.isNaN(whole[code]);
                assertSame(code, bothNaN ? 0 : bits(whole[code]), bothNaN ? 0 : bits(want));
            }
        }
    }

    /** Without the cost of an assertion object per code. */
    private static void assertSame(Object of, int got, int want) {
        if (got != want) {
            assertThat(got).as("%s", of).isEqualTo(want);
        }
    }

    private static int bits(float value) {
        return Float.floatToRawIntBits(value);
    }

    @Test
    void widenF16_isExactForAllCodes() {
        assertWidensAllCodes(DType.F16);
    }

    @Test
    void widenBf16_isExactForAllCodes() {
        assertWidensAllCodes(DType.BF16);
    }

    @Test
    void read_fillsUpWithZeros() {
        try (Arena arena = Arena.ofConfined()) {
            for (DType dtype : new DType[] {DType.F32, DType.F16, DType.BF16}) {
                int count = 2 * Lanes.COUNT + 1;
                MemorySegment data = arena.allocate(dtype.numBytes(count) + 1).asSlice(1);
                data.fill((byte) 0x11);
                float[] to = new float[3 * Lanes.COUNT + 2];
                Arrays.fill(to, 7);
                new Elements(data, dtype).read(0, count, to, 1);
                assertThat(to[0]).isEqualTo(7f);
                for (int i = 0; i < 3 * Lanes.COUNT; i++) {
                    assertThat(to[1 + i] == 0).isEqualTo(i >= count);
                }
                assertThat(to[to.length - 1]).isEqualTo(7f);
            }
        }
    }

    /** Every code, every midpoint between neighbours, and the floats on both sides of each. */
    private static void assertRounds(DType dtype) {
        float[] values = new float[Lanes.padded(8 * CODES)];
        int count = 0;
        for (int code = 0; code < CODES; code++) {
            float value = widen(dtype, code);
            float next = widen(dtype, code + 1);
            float middle = value + (next - value) / 2;
            for (float v : new float[] {value, middle}) {
                values[count++] = v;
                values[count++] = Math.nextUp(v);
                values[count++] = Math.nextDown(v);
            }
            // Beyond the largest number of the type.
            values[count++] = value * 2;
            values[count++] = value * 1.5f;
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(2L * count);
            Elements elements = new Elements(out, dtype);
            elements.write(values.clone(), 0, count, 0);
            MemorySegment one = arena.allocate(2);
            for (int i = 0; i < count; i++) {
                float v = Float.isNaN(values[i]) ? Float.NaN : values[i];
                short want = dtype == DType.F16 ? Floats.floatToF16(v) : Floats.floatToBf16(v);
                assertSame(v, out.get(JAVA_SHORT_UNALIGNED, 2L * i), want);
                float[] single = new float[Lanes.COUNT];
                single[0] = values[i];
                new Elements(one, dtype).write(single, 0, 1, 0);
                assertSame(v, one.get(JAVA_SHORT_UNALIGNED, 0), want);
            }
        }
    }

    private static float widen(DType dtype, int code) {
        return dtype == DType.F16
                ? Floats.f16ToFloat((short) code)
                : Floats.bf16ToFloat((short) code);
    }

    @Test
    void narrowF16_roundsToNearestEven() {
        assertRounds(DType.F16);
    }

    @Test
    void narrowBf16_roundsToNearestEven() {
        assertRounds(DType.BF16);
    }

    @Test
    void write_makesEveryNaNCanonicalAndKeepsToItsElements() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(12);
            out.fill((byte) 0x22);
            float[] from = new float[Lanes.COUNT];
            from[0] = Float.intBitsToFloat(0xffc0_1234);
            new Elements(out, DType.F32).write(from, 0, 1, 1);
            assertThat(new Elements(out, DType.F32).getInt(0)).isEqualTo(0x2222_2222);
            assertThat(new Elements(out, DType.F32).getInt(1)).isEqualTo(0x7fc0_0000);
            assertThat(new Elements(out, DType.F32).getInt(2)).isEqualTo(0x2222_2222);
        }
    }
}
