package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.cuda.Tile.Family;
import jmoe.cuda.TileCost.Work;

import org.assertj.core.data.Percentage;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** What the model says of published shapes, on an H200 where nothing else is said. */
final class TileCostTest {
    private static final CudaDevice H200 =
            new CudaDevice(
                    0,
                    "H200",
                    90,
                    132,
                    141L << 30,
                    50L << 20,
                    1_980_000_000L,
                    4_800_000_000_000L,
                    false);
    private static final CudaDevice A100 =
            new CudaDevice(
                    0,
                    "A100",
                    80,
                    108,
                    80L << 30,
                    40L << 20,
                    1_410_000_000L,
                    2_039_000_000_000L,
                    false);

    private final TileCost cost = new TileCost(H200);

    /** Tokens, experts, slots of a token, columns and inputs of gate and up. */
    @ParameterizedTest(name = "{0} T={1}")
    @CsvSource({
        "OLMoE-1B-7B, 1, 64, 8, 2048, 2048",
        "OLMoE-1B-7B, 64, 64, 8, 2048, 2048",
        "Qwen3-30B-A3B, 1, 128, 8, 1536, 2048",
        "Qwen3-30B-A3B, 64, 128, 8, 1536, 2048",
        "Mixtral-8x7B, 1, 8, 2, 28672, 4096",
        "Mixtral-8x7B, 32, 8, 2, 28672, 4096",
        "DeepSeek-V3, 1, 256, 8, 4096, 7168",
        "DeepSeek-V3, 512, 256, 8, 4096, 7168"
    })
    void fewRowsPerExpert_takeTheSmallestTile(
            String model, long tokens, long experts, long topK, long columns, long inputs) {
        Work gateUp = new Work(tokens * topK, experts, columns, inputs, true);
        Work down = new Work(tokens * topK, experts, inputs, columns / 2, false);
        for (Work work : new Work[] {gateUp, down}) {
            assertThat(cost.cheapest(Family.SM90, work)).isEqualTo(Tile.SM90_64X128);
            assertThat(cost.cheapest(Family.MMA, work)).isIn(Tile.MMA_16, Tile.MMA_64);
        }
    }

    @ParameterizedTest(name = "{0} T={1}")
    @CsvSource({
        "OLMoE-1B-7B, 4096, 64, 8, 2048, 2048",
        "Qwen3-30B-A3B, 4096, 128, 8, 1536, 2048",
        "Qwen3-30B-A3B, 32768, 128, 8, 1536, 2048",
        "Mixtral-8x7B, 4096, 8, 2, 28672, 4096",
        "DeepSeek-V3, 8192, 256, 8, 4096, 7168"
    })
    void manyRowsPerExpert_takeTheLargestTile(
            String model, long tokens, long experts, long topK, long columns, long inputs) {
        Work gateUp = new Work(tokens * topK, experts, columns, inputs, true);
        Work down = new Work(tokens * topK, experts, inputs, columns / 2, false);
        for (Work work : new Work[] {gateUp, down}) {
            assertThat(cost.cheapest(Family.SM90, work)).isEqualTo(Tile.SM90_128X256);
            assertThat(cost.cheapest(Family.MMA, work)).isEqualTo(Tile.MMA_128);
        }
    }

    /** Where a long epilogue would be a large part of the tile, and its rows are few. */
    @Test
    void fewInputs_hideTheEpilogue() {
        Work work = new Work(64 * 2048, 64, 4096, 256, false);
        assertThat(cost.cheapest(Family.SM90, work)).isEqualTo(Tile.SM90_64X256);
    }

    /** A router has few columns: large tiles would leave most of the device without work. */
    @ParameterizedTest
    @CsvSource({"1", "64", "1024", "4096"})
    void fewColumns_takeSmallTiles(long tokens) {
        Work router = new Work(tokens, 1, 64, 2048, false);
        assertThat(cost.cheapest(Family.SM90, router)).isEqualTo(Tile.SM90_64X128);
        assertThat(cost.cheapest(Family.MMA, router)).isNotEqualTo(Tile.MMA_128);
    }

    /** Computed by hand from the sentences of the model. */
    @Test
    void nanos_areThoseOfThePipes() {
        // One group, 1024 x 4096 outputs: 8 x 16 tiles on 132 multiprocessors, in one turn.
        Work work = new Work(1024, 1, 4096, 4096, false);
        double matrixUnits = 2.0 * 128 * 256 * 4096 / 4096 + 1300;
        double share = (1 + 0.5 / 8) / 2;
        double l2 = (128 + 256 * share) * 4096 * 2 / 46.6;
        double bytes = 2.0 * (4096.0 * 4096 + 1024 * (4096 + 4096));
        double memory = bytes / (0.85 * 4.8e12) * 1.98e9;
        double cycles =
                Math.pow(Math.pow(matrixUnits, 4) + Math.pow(l2, 4) + Math.pow(memory, 4), 0.25);
        assertThat(cost.nanos(Tile.SM90_128X256, work)).isCloseTo(cycles / 1.98, within(1e-6));
    }

    /** 2 of 8 experts of Mixtral: 470 MB of weights, at 85 % of 4.8 TB/s. */
    @Test
    void nanos_ofOneToken_areThoseOfTheWeights() {
        Work work = new Work(2, 8, 28672, 4096, true);
        double want = 2.0 * 28672 * 4096 * 2 / (0.85 * 4.8e12) * 1e9;
        assertThat(cost.nanos(Tile.SM90_64X128, work))
                .isCloseTo(want, Percentage.withPercentage(5));
    }

    /** 8 experts of 4096 rows each, at 4096 operations per cycle and multiprocessor. */
    @Test
    void nanos_ofManyRows_areThoseOfTheMatrixUnits() {
        Work work = new Work(32768, 8, 28672, 4096, true);
        double want = 2.0 * 32768 * 28672 * 4096 / (4096 * 132 * 1.98);
        assertThat(cost.nanos(Tile.SM90_128X256, work))
                .isGreaterThan(want)
                .isCloseTo(want, Percentage.withPercentage(12));
    }

    @ParameterizedTest
    @EnumSource
    void nanos_growWithEverySize(Tile tile) {
        Work work = new Work(1000, 8, 1024, 1024, false);
        double nanos = cost.nanos(tile, work);
        assertThat(nanos).isPositive();
        assertThat(cost.nanos(tile, new Work(4000, 8, 1024, 1024, false))).isGreaterThan(nanos);
        assertThat(cost.nanos(tile, new Work(1000, 32, 1024, 1024, false))).isGreaterThan(nanos);
        assertThat(cost.nanos(tile, new Work(1000, 8, 4096, 1024, false))).isGreaterThan(nanos);
        assertThat(cost.nanos(tile, new Work(1000, 8, 1024, 4096, false))).isGreaterThan(nanos);
    }

    @ParameterizedTest
    @EnumSource
    void nanos_ofNothing_areNone(Tile tile) {
        assertThat(cost.nanos(tile, new Work(0, 8, 1024, 1024, false))).isZero();
        assertThat(cost.nanos(tile, new Work(7, 8, 0, 1024, false))).isZero();
        assertThat(cost.nanos(tile, new Work(7, 8, 1024, 0, false))).isNotNaN();
    }

    /** On a device with a smaller ratio of operations to bytes, large tiles begin later. */
    @Test
    void cheapest_dependsOnTheDevice() {
        Work work = new Work(512 * 8, 64, 2048, 2048, true);
        assertThat(cost.cheapest(Family.MMA, work)).isEqualTo(Tile.MMA_128);
        assertThat(new TileCost(A100).cheapest(Family.MMA, work)).isEqualTo(Tile.MMA_64);
    }

    /** Drivers of virtual devices answer 0. */
    @Test
    void cheapest_ofADeviceThatSaysNothing() {
        TileCost unknown = new TileCost(new CudaDevice(0, "any", 90, 132, 1, 1, 0, 0, false));
        Work few = new Work(8, 64, 2048, 2048, true);
        assertThat(unknown.cheapest(Family.SM90, few)).isEqualTo(Tile.SM90_64X128);
        Work many = new Work(32768, 8, 28672, 4096, true);
        assertThat(unknown.cheapest(Family.SM90, many)).isEqualTo(Tile.SM90_128X256);
    }

    @Test
    void labels_leadBackToTiles() {
        for (Tile tile : Tile.values()) {
            assertThat(Tile.labelled(tile.label())).isEqualTo(tile);
            assertThat(Tile.of(tile.family())).contains(tile);
        }
        assertThat(Tile.labelled("32")).isNull();
    }
}
