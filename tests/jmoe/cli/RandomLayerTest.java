package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.Preset;
import jmoe.Presets;
import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;

final class RandomLayerTest {
    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "BF16", "I8"})
    void weights_haveNoZerosAndTheRightSize(DType type) {
        Preset preset = Presets.of("qwen1.5-moe-a2.7b");
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
        Preset preset = Presets.of(name);
        for (Preset next = preset; next != null; next = next.halved()) {
            preset = next;
        }
        return preset;
    }

    @ParameterizedTest
    @ValueSource(strings = {"jetmoe-8b", "gpt-oss-20b", "moonlight-16b", "qwen1.5-moe-a2.7b"})
    void parameters_areTheElementsOfAllTensors(String name) {
        Preset preset = smallest(name);
        try (Arena arena = Arena.ofShared()) {
            MoeWeights weights = RandomLayer.weights(preset, DType.BF16, arena);
            long elements = elements(weights.sharedGate()) + elements(weights.outputBias());
            for (RouterWeights router : weights.routers()) {
                elements += elements(router.weight()) + elements(router.bias());
                elements += elements(router.selectionBias());
            }
            for (ExpertWeights bank : weights.experts()) {
                elements += elements(bank);
            }
            ExpertWeights shared = weights.shared();
            elements += shared == null ? 0 : elements(shared);
            assertThat(preset.parameters()).isEqualTo(elements);
            int idle = preset.config().numExperts() - preset.config().topK();
            long expert = elements(weights.experts().getFirst()) / preset.config().numExperts();
            assertThat(preset.activeParameters()).isEqualTo(elements - idle * expert);
        }
    }

    private static long elements(ExpertWeights bank) {
        return elements(bank.gateUp())
                + elements(bank.down())
                + elements(bank.gateUpBias())
                + elements(bank.downBias());
    }

    private static long elements(@Nullable Tensor tensor) {
        return tensor == null ? 0 : tensor.numElements();
    }
}
