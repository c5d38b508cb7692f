package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.cuda.DecodeCost.Deal;

import org.assertj.core.data.Percentage;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What the model says of published shapes, on an H200 where nothing else is said. */
final class DecodeCostTest {
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

    /** What 85 % of the pins move in a nanosecond. */
    private static final double REACHED = 0.85 * 4800;

    private static final DecodeWork OLMOE = layer(64, 8, 2048, 1024, 0);
    private static final DecodeWork QWEN3 = layer(128, 8, 2048, 768, 0);
    private static final DecodeWork DEEPSEEK = layer(256, 8, 7168, 2048, 2048);
    private static final DecodeWork MIXTRAL = layer(8, 2, 4096, 14336, 0);

    private final DecodeCost cost = new DecodeCost(H200);

    private static DecodeWork layer(
            int experts, int topK, long hidden, long intermediate, long shared) {
        return new DecodeWork(1, topK, experts, hidden, intermediate, true, shared, false);
    }

    /** Experts, slots of a token, hidden, intermediate, that of the shared expert. */
    @ParameterizedTest(name = "{0}")
    @CsvSource({
        "OLMoE-1B-7B, 64, 8, 2048, 1024, 0",
        "Qwen3-30B-A3B, 128, 8, 2048, 768, 0",
        "DeepSeek-V3, 256, 8, 7168, 2048, 2048",
        "Mixtral-8x7B, 8, 2, 4096, 14336, 0"
    })
    void publishedLayers_decodeUpTo128Tokens(
            String model, int experts, int topK, long hidden, long intermediate, long shared) {
        DecodeWork layer = layer(experts, topK, hidden, intermediate, shared);
        for (long tokens : new long[] {1, 2, 4, 8, 16, 32, 64, 128}) {
            DecodeWork work = layer.withTokens(tokens);
            assertThat(cost.decodes(work)).as("%s, %d tokens", model, tokens).isTrue();
            // Neither path can be faster than memory, and the model is sure of no more than this.
            double bytes = bytes(work);
            assertThat(cost.decodeNanos(work)).isBetween(bytes / REACHED, 1.25 * bytes / REACHED);
            assertThat(cost.largeNanos(work)).isGreaterThan(0.97 * cost.decodeNanos(work));
        }
    }

    private static double bytes(DecodeWork work) {
        double columns = work.activeExperts() * work.intermediate() + work.sharedIntermediate();
        return 2.0 * 3 * work.hidden() * columns;
    }

    /** The fewer the tokens, the more of the large path's time are its launches. */
    @Test
    void gain_isLargestForOneToken() {
        for (DecodeWork layer : new DecodeWork[] {OLMOE, QWEN3}) {
            double one = cost.largeNanos(layer) / cost.decodeNanos(layer);
            DecodeWork many = layer.withTokens(64);
            assertThat(one).isGreaterThan(1.1);
            assertThat(cost.largeNanos(many) / cost.decodeNanos(many)).isLessThan(one);
        }
    }

    /** Many slots and little to stream: the one block that sums the last columns is what counts. */
    @Test
    void manySlotsOfSmallExperts_takeTheLargePath() {
        DecodeWork work = layer(8, 8, 512, 256, 0).withTokens(128);
        assertThat(cost.decodes(work)).isFalse();
        assertThat(cost.decodes(work.withTokens(1))).isTrue();
    }

    /** Computed by hand from the sentences of the model. */
    @Test
    void nanos_areThoseOfTheSentences() {
        // 8 experts of 24 column tiles each in one turn of 264 blocks, nothing split.
        double units = 8 * 24;
        double gateUp = units * 64 * 2048 * 2 / REACHED + 200;
        // 8 of 32 column tiles, in one turn as well.
        double down = 8 * 32 * 64 * 768 * 2 / REACHED + 200;
        double parts = 8 * 2048 * 4;
        double stored = 2 * parts / (46.6 * 1.98 * 132);
        double summed = parts / 32 / (128 * 16 * 16 / 800.0);
        double want = 2 * 1500 + gateUp + down + stored + summed;
        assertThat(cost.gateUpDeal(QWEN3)).isEqualTo(new Deal(4, 4));
        assertThat(cost.downDeal(QWEN3)).isEqualTo(new Deal(2, 1));
        assertThat(cost.decodeNanos(QWEN3)).isCloseTo(want, within(1e-6));
    }

    @Test
    void activeExperts_areThoseThatAnyTokenChooses() {
        assertThat(OLMOE.activeExperts()).isCloseTo(8, within(1e-12));
        assertThat(OLMOE.withTokens(2).activeExperts())
                .isCloseTo(64 * (1 - 0.875 * 0.875), within(1e-12));
        assertThat(MIXTRAL.withTokens(128).activeExperts())
                .isCloseTo(8, Percentage.withPercentage(1e-9));
    }

    /** 576 units of 917 KB leave a third turn of 48 blocks, which halves make short. */
    @Test
    void slicesAreSplit_whereFewUnitsAreLeftOver() {
        assertThat(DEEPSEEK.gateUp().routed().units(14) + DEEPSEEK.gateUp().shared().units(14))
                .isEqualTo(576);
        assertThat(cost.gateUpDeal(DEEPSEEK)).isEqualTo(new Deal(7, 7));
    }

    /** One block with all inputs of a large shared expert would be the last by far. */
    @Test
    void slicesOfALargeSharedExpert_areSplit() {
        DecodeWork work = layer(60, 4, 2048, 1408, 5632 * 4);
        Deal deal = cost.downDeal(work);
        assertThat(work.down().shared().unitsPerTile(deal.shared())).isGreaterThan(1);
    }

    /** Where there is so much to do that no turn matters, nothing is stored in between. */
    @ParameterizedTest
    @ValueSource(longs = {16, 64, 128})
    void slicesAreWhole_whereThereAreManyUnits(long tokens) {
        for (DecodeWork layer : new DecodeWork[] {OLMOE, QWEN3, DEEPSEEK}) {
            DecodeWork work = layer.withTokens(tokens);
            assertThat(work.gateUp().routed().unitsPerTile(cost.gateUpDeal(work).routed()))
                    .isEqualTo(1);
            assertThat(work.down().routed().unitsPerTile(cost.downDeal(work).routed()))
                    .isEqualTo(1);
        }
    }

    @Test
    void slices_dependOnInputsAlone() {
        assertThat(DecodeWork.slices(1)).isEqualTo(1);
        assertThat(DecodeWork.slices(512)).isEqualTo(1);
        assertThat(DecodeWork.slices(513)).isEqualTo(2);
        assertThat(DecodeWork.slices(2048)).isEqualTo(4);
        assertThat(DecodeWork.slices(7168)).isEqualTo(14);
    }

    /** Where kernels cannot start early and memory is slower, everything takes longer. */
    @Test
    void nanos_dependOnTheDevice() {
        CudaDevice a100 =
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
        DecodeCost older = new DecodeCost(a100);
        for (DecodeWork work : new DecodeWork[] {OLMOE, QWEN3, DEEPSEEK, MIXTRAL}) {
            assertThat(older.decodeNanos(work)).isGreaterThan(2 * cost.decodeNanos(work));
            assertThat(older.largeNanos(work)).isGreaterThan(cost.largeNanos(work));
        }
        assertThat(DecodeCost.routeNanos(128)).isGreaterThan(DecodeCost.routeNanos(1));
    }

    /** Drivers of virtual devices answer 0. */
    @Test
    void decodes_onADeviceThatSaysNothing() {
        DecodeCost unknown = new DecodeCost(new CudaDevice(0, "any", 90, 132, 1, 1, 0, 0, false));
        assertThat(unknown.decodes(QWEN3)).isTrue();
        assertThat(unknown.decodeNanos(QWEN3)).isFinite();
    }

    /** Scratch of a workspace serves every batch that fits in it. */
    @Test
    void plans_haveRoomForTheirParts() {
        for (DecodeWork layer : new DecodeWork[] {OLMOE, QWEN3, DEEPSEEK, MIXTRAL}) {
            for (long tokens : new long[] {1, 5, 64, 128}) {
                DecodePlan plan = DecodePlan.of(layer.withTokens(tokens), cost);
                assertThat(plan.sharedHidden())
                        .isGreaterThanOrEqualTo(2 * plan.work().slots() * layer.intermediate());
                assertThat(plan.parts() - plan.sharedHidden())
                        .isGreaterThanOrEqualTo(2 * tokens * layer.sharedIntermediate());
                assertThat(plan.sharedParts() - plan.parts())
                        .isGreaterThanOrEqualTo(4 * plan.work().slots() * layer.hidden());
                assertThat(plan.bytes() - plan.sharedParts())
                        .isGreaterThanOrEqualTo(
                                layer.sharedIntermediate() == 0 ? 0 : 4 * tokens * layer.hidden());
                assertThat(plan.downArrivals()).isEqualTo(layer.hidden() / 64);
            }
        }
    }
}
