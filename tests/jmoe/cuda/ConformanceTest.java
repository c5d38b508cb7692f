package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.tensor.Floats;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import tools.jackson.databind.JsonNode;

import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.function.DoubleUnaryOperator;
import java.util.function.IntUnaryOperator;

/** What the instructions of a warp do: every lane's result, on the emulator or on a GPU. */
final class ConformanceTest {
    private static final int LANES = 32;
    private static final int ADA = 89;
    private static final int SAMPLES = 1 << 16;
    private static final int APPROXIMATED = 1 << 10;

    private static Probes probes;

    @BeforeAll
    static void open() {
        Emulator.requireDevice();
        probes = new Probes();
    }

    @AfterAll
    static void close() {
        ConformanceReport.write();
        if (probes != null) {
            probes.close();
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"x1", "x2", "x4", "x1_trans", "x2_trans", "x4_trans"})
    void ldmatrix_distributesRows(String form) {
        JsonNode table = Table.of("ldmatrix_stmatrix").get("ldmatrix_" + form);
        int halfwords = table.get("halfwords").asInt();
        int[] rows = Table.ints(table.get("address_lane"));
        int[] elements = Table.ints(table.get("element"));
        short[] in = distinct(LANES * 8);
        short[] expected = new short[LANES * halfwords];
        for (int i = 0; i < expected.length; i++) {
            expected[i] = in[8 * rows[i] + elements[i]];
        }
        byte[] got =
                probes.run(
                        "probe_ldmatrix",
                        "probe_ldmatrix_" + form,
                        Words.bytes(in),
                        2 * expected.length);
        ConformanceReport.exact("ldmatrix_" + form, 2, halfwords, Words.bytes(expected), got);
    }

    @ParameterizedTest
    @ValueSource(strings = {"x1", "x2", "x4", "x1_trans", "x2_trans", "x4_trans"})
    void stmatrix_collectsRows(String form) {
        Probes.require(Probes.HOPPER);
        JsonNode table = Table.of("ldmatrix_stmatrix").get("stmatrix_" + form);
        int halfwords = table.get("halfwords").asInt();
        int[] rows = Table.ints(table.get("address_lane"));
        int[] elements = Table.ints(table.get("element"));
        short[] in = distinct(LANES * halfwords);
        short[] expected = new short[LANES * 8];
        Arrays.fill(expected, (short) -1);
        for (int i = 0; i < in.length; i++) {
            expected[8 * rows[i] + elements[i]] = in[i];
        }
        byte[] got =
                probes.run(
                        "probe_stmatrix",
                        "probe_stmatrix_" + form,
                        Words.bytes(in),
                        2 * expected.length);
        ConformanceReport.exact("stmatrix_" + form, 2, 8, Words.bytes(expected), got);
    }

    private static short[] distinct(int count) {
        short[] values = new short[count];
        for (int i = 0; i < count; i++) {
            values[i] = (short) (0x1000 + i);
        }
        return values;
    }

    /** Integers, of which every sum is exact: that shows where each element belongs. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "m16n8k16_bf16",
                "m16n8k16_f16",
                "m16n8k8_bf16",
                "m16n8k8_tf32",
                "m16n8k4_tf32",
                "m16n8k32_s8",
                "m16n8k16_s8",
                "m16n8k32_e4m3"
            })
    void mma_multipliesWhatTheTablesSay(String shape) {
        requireMma(shape);
        SplittableRandom random = new SplittableRandom(1);
        MmaCase mma = new MmaCase(shape, element -> element.code(random.nextInt(-3, 4)));
        mma.drawAccumulators(() -> random.nextInt(-100, 101));
        byte[] got = probes.run("probe_mma", "probe_mma_" + shape, mma.in(), mma.outBytes());
        ConformanceReport.exact("mma_" + shape, 4, MmaCase.RESULTS, mma.expected(), got);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "m16n8k16_bf16",
                "m16n8k16_f16",
                "m16n8k8_bf16",
                "m16n8k8_tf32",
                "m16n8k4_tf32",
                "m16n8k32_e4m3"
            })
    void mma_roundsWithinBounds(String shape) {
        requireMma(shape);
        SplittableRandom random = new SplittableRandom(2);
        MmaCase mma = new MmaCase(shape, element -> element.code(random.nextLong()));
        mma.drawAccumulators(() -> (float) random.nextDouble(-1, 1));
        byte[] got = probes.run("probe_mma", "probe_mma_" + shape, mma.in(), mma.outBytes());
        ConformanceReport.recorded("mma_" + shape, 4, MmaCase.RESULTS, got);
        ConformanceReport.observe("mma_" + shape, "largest_error", mma.largestError(got));
        assertThat(mma.largestError(got)).isLessThanOrEqualTo(Element.in(shape).tolerance());
    }

    private static void requireMma(String shape) {
        Probes.require(shape.endsWith("e4m3") ? ADA : 80);
    }

    @ParameterizedTest
    @ValueSource(ints = {4, 8, 16})
    void cpAsync_copiesAndFillsWithZeros(int bytes) {
        byte[] in = new byte[4 * LANES + 16 * LANES];
        new SplittableRandom(3).nextBytes(in);
        byte[] expected = new byte[16 * LANES];
        Arrays.fill(expected, Probes.UNWRITTEN);
        for (int lane = 0; lane < LANES; lane++) {
            int given = lane % (bytes + 1);
            Words.set(in, 4 * lane, 4, given);
            for (int i = 0; i < bytes; i++) {
                expected[16 * lane + i] = i < given ? in[4 * LANES + 16 * lane + i] : 0;
            }
        }
        byte[] got = probes.run("probe_cp_async", "probe_cp_async_" + bytes, in, expected.length);
        ConformanceReport.exact("cp_async_" + bytes, 1, 16, expected, got);
    }

    /** Which lane is elected is not documented. */
    @Test
    void elect_choosesOneLane() {
        Probes.require(Probes.HOPPER);
        byte[] got = probes.run("probe_barrier", "probe_elect", Words.bytes(77), 4 * LANES);
        int elected = -1;
        int count = 0;
        for (int lane = 0; lane < LANES; lane++) {
            if (Words.at(got, 4, lane) != 0) {
                assertThat(Words.at(got, 4, lane)).isEqualTo(77);
                elected = lane;
                count++;
            }
        }
        assertThat(count).isEqualTo(1);
        ConformanceReport.observe("elect", "lane", elected);
    }

    /** The steps stand in the probe. */
    @Test
    void mbarrier_completesPhases() {
        Probes.require(Probes.HOPPER);
        byte[] expected = Words.bytes(1, 0, 0, 0, 1, 0, 1, 1, 0);
        for (int count : new int[] {2, 5, 1000}) {
            byte[] got =
                    probes.run(
                            "probe_barrier", "probe_mbarrier", Words.bytes(count), expected.length);
            ConformanceReport.exact("mbarrier of " + count, 4, 9, expected, got);
        }
    }

    @Test
    void halves_becomeFloats() {
        short[] codes = new short[SAMPLES];
        for (int i = 0; i < SAMPLES; i++) {
            codes[i] = (short) i;
        }
        int[] pairs = new int[SAMPLES / 2];
        for (int i = 0; i < pairs.length; i++) {
            pairs[i] = i | ~i << 16;
        }
        for (String type : new String[] {"f16", "bf16"}) {
            IntUnaryOperator convert =
                    code ->
                            Float.floatToRawIntBits(
                                    type.equals("f16")
                                            ? Floats.f16ToFloat((short) code)
                                            : Floats.bf16ToFloat((short) code));
            int[] expected = new int[SAMPLES];
            Arrays.setAll(expected, convert);
            compareFloats(
                    type + "_to_f32",
                    expected,
                    convert(type + "_to_f32", Words.bytes(codes), SAMPLES, 4));
            int[] unpacked = new int[2 * pairs.length];
            Arrays.setAll(
                    unpacked, i -> convert.applyAsInt(pairs[i / 2] >>> (i % 2 == 0 ? 0 : 16)));
            compareFloats(
                    type + "x2_to_f32",
                    unpacked,
                    convert(type + "x2_to_f32", Words.bytes(pairs), pairs.length, 8));
        }
    }

    /** NaN has many codes, and which one comes out is not documented for all instructions. */
    private static void compareFloats(String probe, int[] expected, byte[] got) {
        int[] comparable = expected.clone();
        for (int i = 0; i < expected.length; i++) {
            int bits = (int) Words.at(got, 4, i);
            if (Float.isNaN(Float.intBitsToFloat(expected[i]))
                    && Float.isNaN(Float.intBitsToFloat(bits))) {
                comparable[i] = bits;
            }
        }
        ConformanceReport.exact(probe, 4, 1, Words.bytes(comparable), got);
    }

    @Test
    void floats_becomeHalvesNearestToThem() {
        int[] bits = floats();
        short[] f16 = new short[bits.length];
        short[] bf16 = new short[bits.length];
        for (int i = 0; i < bits.length; i++) {
            float value = Float.intBitsToFloat(bits[i]);
            f16[i] = Float.isNaN(value) ? 0x7fff : Floats.floatToF16(value);
            bf16[i] = Float.isNaN(value) ? 0x7fff : Floats.floatToBf16(value);
        }
        byte[] in = Words.bytes(bits);
        compareHalves("f32_to_f16", f16, convert("f32_to_f16", in, bits.length, 2));
        compareHalves("f32_to_bf16", bf16, convert("f32_to_bf16", in, bits.length, 2));
        int pairs = bits.length / 2;
        compareHalves("f32_to_f16x2", f16, convert("f32_to_f16x2", in, pairs, 4));
        compareHalves("f32_to_bf16x2", bf16, convert("f32_to_bf16x2", in, pairs, 4));
    }

    private static void compareHalves(String probe, short[] expected, byte[] got) {
        ConformanceReport.exact(probe, 2, 1, Words.bytes(expected), got);
    }

    @Test
    void floats_becomeTf32AwayFromZero() {
        int[] bits = floats();
        int[] expected = new int[bits.length];
        for (int i = 0; i < bits.length; i++) {
            boolean finite = Float.isFinite(Float.intBitsToFloat(bits[i]));
            expected[i] = finite ? bits[i] + 0x1000 & ~0x1fff : bits[i];
        }
        compareFloats(
                "f32_to_tf32", expected, convert("f32_to_tf32", Words.bytes(bits), bits.length, 4));
    }

    /** Any bits, and the middle between any two neighbours of a shorter type. */
    private static int[] floats() {
        SplittableRandom random = new SplittableRandom(4);
        int[] bits = new int[SAMPLES];
        for (int i = 0; i < SAMPLES; i++) {
            int any = random.nextInt();
            bits[i] =
                    switch (i % 4) {
                        case 0 -> any;
                        case 1 -> any & 0xffff0000 | 0x8000;
                        case 2 -> any & 0x87ffe000 | 0x38001000;
                        default -> any & 0x83ffffff | 0x30000000;
                    };
        }
        return bits;
    }

    @ParameterizedTest
    @CsvSource({"exp2, -30, 30, 4e-7", "rcp, 0.01, 100, 2.5e-7", "tanh, -8, 8, 6e-4"})
    void approximations_areAsCloseAsDocumented(
            String name, double from, double to, double tolerance) {
        DoubleUnaryOperator exact =
                switch (name) {
                    case "exp2" -> x -> Math.pow(2, x);
                    case "rcp" -> x -> 1 / x;
                    default -> Math::tanh;
                };
        SplittableRandom random = new SplittableRandom(5);
        int[] bits = new int[APPROXIMATED];
        Arrays.setAll(bits, i -> Float.floatToRawIntBits((float) random.nextDouble(from, to)));
        String probe = name + "_approx";
        byte[] got = convert(probe, Words.bytes(bits), bits.length, 4);
        ConformanceReport.recorded(probe, 4, 1, got);
        double largest = 0;
        for (int i = 0; i < bits.length; i++) {
            double want = exact.applyAsDouble(Float.intBitsToFloat(bits[i]));
            double have = Float.intBitsToFloat((int) Words.at(got, 4, i));
            largest = Math.max(largest, Math.abs(have - want) / Math.abs(want));
        }
        ConformanceReport.observe(probe, "largest_error", largest);
        assertThat(largest).isLessThanOrEqualTo(tolerance);
    }

    private static byte[] convert(String name, byte[] in, int count, int outBytes) {
        long input = probes.upload(in);
        long output = probes.output(count * outBytes);
        probes.run(
                "probe_convert",
                "probe_" + name,
                0,
                (count + 255) / 256,
                1,
                launch -> launch.pointer(input).pointer(output).int32(count));
        return probes.download(output, count * outBytes);
    }
}
