package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import tools.jackson.databind.JsonNode;

import java.util.SplittableRandom;

/** What wgmma does: where it finds its operands and which thread gets which result. */
final class ConformanceWgmmaTest {
    private static final int LAST_STEP = 3;
    private static final int SWIZZLE_128 = 1;

    /** Four of the listed descriptors have a bit between the fields, which nothing reads. */
    private static final long DESCRIPTOR_FIELDS = 0xc000_3fff_3fff_3fffL;

    private static Probes probes;

    private static void open() {
        Emulator.requireDevice();
        Probes.require(Probes.HOPPER);
        if (probes == null) {
            probes = new Probes();
        }
    }

    @BeforeAll
    static void forget() {
        probes = null;
    }

    @AfterAll
    static void close() {
        ConformanceReport.write();
        if (probes != null) {
            probes.close();
        }
    }

    /** Without any device: that the tiles of these tests agree with the tables. */
    @Test
    void tiles_lieWhereTheDescriptorsSay() {
        JsonNode tiles = Table.of("descriptors").get("tiles");
        assertThat(tiles.size()).isGreaterThan(60);
        for (JsonNode tile : tiles) {
            boolean kMajor = tile.get("major").asString().equals("K");
            int elementBytes = tile.get("elem_bytes").asInt();
            int rows = tile.get("mma_mn").asInt();
            int depth = tile.get("mma_k").asInt();
            for (JsonNode sample : tile.get("samples_mn_k_byteoffset")) {
                int row = sample.get(0).asInt();
                int k = sample.get(1).asInt();
                JsonNode fields = descriptor(tile, row / rows, k / depth);
                assertThat(
                                SharedTile.offset(
                                        kMajor,
                                        fields.get("mode").asInt(),
                                        elementBytes,
                                        fields.get("start").asInt(),
                                        fields.get("lbo").asInt(),
                                        fields.get("sbo").asInt(),
                                        row % rows,
                                        k % depth))
                        .as("%s: row %d, k %d", tile.get("name").asString(), row, k)
                        .isEqualTo(sample.get(2).asInt());
            }
        }
    }

    private static JsonNode descriptor(JsonNode tile, int block, int step) {
        for (JsonNode fields : tile.get("descriptors")) {
            if (fields.get("mn").asInt() == block && fields.get("k").asInt() == step) {
                long bits =
                        SharedTile.descriptor(
                                fields.get("start").asInt(),
                                fields.get("lbo").asInt(),
                                fields.get("sbo").asInt(),
                                fields.get("mode").asInt());
                long listed =
                        Long.parseUnsignedLong(fields.get("desc_at_0").asString().substring(2), 16);
                assertThat(bits).isEqualTo(listed & DESCRIPTOR_FIELDS);
                return fields;
            }
        }
        throw new AssertionError(tile.get("name") + " has no block " + block + ", " + step);
    }

    @Test
    void widths_areAllThere() {
        open();
        for (int width = 8; width <= 256; width += 8) {
            multiply("bf16_n" + width, SWIZZLE_128, LAST_STEP);
        }
    }

    @ParameterizedTest
    @CsvSource({"0, 0", "0, 3", "1, 0", "1, 1", "2, 0", "2, 3", "3, 0", "3, 3"})
    void swizzles_areUndone(int mode, int step) {
        open();
        for (String form : new String[] {"", "_ta", "_tb", "_ta_tb"}) {
            multiply("bf16_n64" + form, mode, step);
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "bf16_n128_tb",
                "f16_n64",
                "f16_n64_ta_tb",
                "tf32_n64",
                "e4m3_n64",
                "e4m3_n128",
                "s8_n64",
                "s8_n128",
                "bf16_n64_registers",
                "bf16_n64_tb_registers",
                "f16_n64_registers",
                "tf32_n64_registers",
                "e4m3_n64_registers",
                "s8_n64_registers"
            })
    void types_multiplyWhatTheTablesSay(String form) {
        open();
        multiply(form, SWIZZLE_128, LAST_STEP);
    }

    private static void multiply(String form, int mode, int step) {
        SplittableRandom random = new SplittableRandom(1);
        WgmmaCase wgmma =
                new WgmmaCase(form, mode, step, element -> element.code(random.nextInt(-3, 4)));
        wgmma.drawAccumulators(() -> random.nextInt(-100, 101));
        String name = "wgmma_" + form + ", swizzle " + mode + ", step " + step;
        ConformanceReport.exact(
                name, 4, wgmma.perThread(), wgmma.expected(true), wgmma.run(probes, true));
        ConformanceReport.exact(
                name + ", overwriting",
                4,
                wgmma.perThread(),
                wgmma.expected(false),
                wgmma.run(probes, false));
    }

    @ParameterizedTest
    @ValueSource(strings = {"bf16_n8", "f16_n64", "tf32_n64", "e4m3_n64"})
    void sums_roundWithinBounds(String form) {
        open();
        SplittableRandom random = new SplittableRandom(2);
        WgmmaCase wgmma =
                new WgmmaCase(form, SWIZZLE_128, 0, element -> element.code(random.nextLong()));
        wgmma.drawAccumulators(() -> (float) random.nextDouble(-1, 1));
        byte[] got = wgmma.run(probes, true);
        ConformanceReport.recorded("wgmma_" + form, 4, wgmma.perThread(), got);
        ConformanceReport.observe("wgmma_" + form, "largest_error", wgmma.largestError(got));
        assertThat(wgmma.largestError(got)).isLessThanOrEqualTo(Element.in(form).tolerance());
    }
}
