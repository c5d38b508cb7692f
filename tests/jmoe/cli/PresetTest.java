package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;

final class PresetTest {
    @Test
    void names_areUnique() {
        assertThat(Preset.all().stream().map(Preset::name)).doesNotHaveDuplicates();
        assertThat(Preset.of(Preset.DEFAULT).config().hidden()).isEqualTo(2048);
        assertThatThrownBy(() -> Preset.of("olmoe"))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("--preset: expected")
                .hasMessageContaining("got olmoe");
    }

    @Test
    void weightBytes_areThoseOfThePublishedModels() {
        assertThat(Preset.of("olmoe-1b-7b").weightBytes(DType.BF16))
                .isEqualTo(2L * 3 * 64 * 1024 * 2048 + 2L * 64 * 2048);
        assertThat(Preset.of("deepseek-v2-lite").weightBytes(DType.F32))
                .isEqualTo(4L * (3 * 66 * 1408 * 2048 + 64 * 2048));
        // Not gated: two matrices.
        assertThat(Preset.of("switch-base-128").weightBytes(DType.F16))
                .isEqualTo(2L * 2 * 128 * 3072 * 768 + 2L * 128 * 768);
        assertThat(Preset.of("ernie-4.5-vl-28b").weightBytes(DType.BF16))
                .isEqualTo(2L * 3 * 2560 * (64 * (1536 + 512) + 2 * 1536) + 2L * 2 * 64 * 2560);
    }

    @Test
    void halved_stopsWhereTheRuleNeedsMore() {
        Preset preset = Preset.of("deepseek-v3");
        int last = 0;
        for (Preset next = preset; next != null; next = next.halved()) {
            RouterConfig router = next.config().routers().getFirst();
            assertThat(router.numExperts()).isEqualTo(next.config().numExperts());
            last = router.numExperts();
        }
        // Four of eight groups must hold eight experts.
        assertThat(last).isEqualTo(16);
        assertThat(Preset.of("jetmoe-8b").halved().halved().config().numExperts()).isEqualTo(2);
        assertThat(Preset.of("jetmoe-8b").halved().halved().halved()).isNull();
    }

    @Test
    void halved_keepsEachExpertsShareOfTheTokens() {
        Preset preset = Preset.of("switch-base-128");
        assertThat(limit(preset)).isEqualTo(20);
        assertThat(limit(preset.halved())).isEqualTo(40);
    }

    private static long limit(Preset preset) {
        RouterConfig router = preset.config().routers().getFirst();
        return router.capacity().limit(router, 1280);
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "BF16", "I8"})
    void weights_haveNoZerosAndTheRightSize(DType type) {
        Preset preset = Preset.of("qwen1.5-moe-a2.7b");
        while (preset.halved() != null) {
            preset = preset.halved();
        }
        try (Arena arena = Arena.ofShared()) {
            MoeWeights weights = RandomLayer.weights(preset, type, arena);
            weights.requireMatch(preset.config());
            Tensor gateUp = weights.experts().getFirst().gateUp();
            double squares = 0;
            for (long i = 0; i < gateUp.numElements(); i++) {
                double value = gateUp.getDouble(i);
                if (value == 0) {
                    throw new AssertionError("zero at " + i);
                }
                squares += value * value;
            }
            assertThat(squares / gateUp.numElements() * 2048).isBetween(0.95, 1.05);
        }
    }

    @Test
    void fill_isTheSameForAnySizeAndDiffersBetweenSeeds() {
        try (Arena arena = Arena.ofShared()) {
            Tensor large = Tensor.allocate(arena, DType.F32, (1 << 21) + 3);
            Tensor small = Tensor.allocate(arena, DType.F32, 6);
            Tensor other = Tensor.allocate(arena, DType.F32, 6);
            RandomLayer.fill(large, 1, 7);
            RandomLayer.fill(small, 1, 7);
            RandomLayer.fill(other, 1, 8);
            for (long i = 0; i < small.numElements(); i++) {
                assertThat(small.getFloat(i)).isEqualTo(large.getFloat(i));
            }
            assertThat(other.data().mismatch(small.data())).isNotNegative();
            assertThat(large.getFloat((1 << 21) + 2)).isNotZero();
        }
    }

    @Test
    void weights_haveTheBiasesOfTheModel() {
        Preset gptOss = smallest("gpt-oss-20b");
        Preset jetmoe = smallest("jetmoe-8b");
        try (Arena arena = Arena.ofShared()) {
            MoeWeights weights = RandomLayer.weights(gptOss, DType.BF16, arena);
            weights.requireMatch(gptOss.config());
            assertThat(weights.experts().getFirst().gateUpBias()).isNotNull();
            assertThat(weights.experts().getFirst().downBias()).isNotNull();
            assertThat(weights.routers().getFirst().bias()).isNotNull();
            assertThat(weights.routers().getFirst().selectionBias()).isNull();
            assertThat(weights.outputBias()).isNull();
            assertThat(RandomLayer.weights(jetmoe, DType.BF16, arena).outputBias()).isNotNull();
        }
    }

    private static Preset smallest(String name) {
        Preset preset = Preset.of(name);
        for (Preset next = preset; next != null; next = next.halved()) {
            preset = next;
        }
        return preset;
    }
}
