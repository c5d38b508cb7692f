package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import jmoe.MoeLayer;
import jmoe.Preset;
import jmoe.Preset.Bias;
import jmoe.Presets;
import jmoe.Workspace;
import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.Set;

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

    private static Preset small(Set<Bias> biases) {
        MoeConfig config =
                new MoeConfig(
                        "small",
                        6,
                        6,
                        4,
                        0,
                        Activation.SWIGLU,
                        List.of(RouterConfig.softmaxTopK(4, 2, true)),
                        List.of(5),
                        0,
                        false,
                        1);
        return new Preset("small", config, biases);
    }

    @Test
    void weights_haveFactorsOfExpertsAboutOne() {
        Preset preset = small(Set.of(Bias.EXPERT_SCALE));
        try (Arena arena = Arena.ofShared()) {
            MoeWeights weights = RandomLayer.weights(preset, DType.F32, arena);
            weights.requireMatch(preset.config());
            Tensor scale = weights.routers().getFirst().expertScale();
            for (int expert = 0; expert < 4; expert++) {
                assertThat(scale.getFloat(expert)).isBetween(0.3F, 1.7F).isNotEqualTo(1);
            }
            assertThat(preset.parameters())
                    .isEqualTo(small(Set.of()).parameters() + scale.numElements());
            Tensor routed =
                    RandomLayer.routers(preset, DType.F32, 0, arena).getFirst().expertScale();
            assertThat(routed).isNotNull();
        }
    }

    /** y = sum w relu(W x + b), with nothing behind it. */
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "I8"})
    void weights_ofOneMapLeaveTheActivationAsItIs(DType type) {
        Preset preset = Presets.of("survey4-demo").halved().halved();
        int hidden = preset.config().hidden();
        try (Arena arena = Arena.ofShared();
                ReferenceKernels kernels = new ReferenceKernels()) {
            MoeWeights weights = RandomLayer.weights(preset, type, arena);
            Tensor x = RandomLayer.tokens(1, hidden, 1, arena);
            Tensor y = Tensor.allocate(arena, DType.F32, 1, hidden);
            double[] want = new double[hidden];
            try (MoeLayer layer = new MoeLayer(preset.config(), weights, kernels);
                    Workspace workspace = layer.workspace(1)) {
                layer.forward(x, y, workspace);
                ExpertWeights bank = weights.experts().getFirst();
                for (int k = 0; k < 2; k++) {
                    int expert = workspace.topkIds().getInt(k);
                    for (int i = 0; i < hidden; i++) {
                        double sum = bank.gateUpBias().getDouble((long) expert * hidden + i);
                        for (int j = 0; j < hidden; j++) {
                            long at = ((long) expert * hidden + i) * hidden + j;
                            sum += bank.gateUp().getDouble(at) * x.getDouble(j);
                        }
                        want[i] += workspace.topkWeights().getDouble(k) * Math.max(sum, 0);
                    }
                }
            }
            for (int i = 0; i < hidden; i++) {
                assertThat(y.getDouble(i)).isCloseTo(want[i], within(2e-6));
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "I8"})
    void weights_ofNarrowExpertsGiveTheirOutputsAndZeros(DType type) {
        Preset preset = Presets.of("survey2-demo");
        try (Arena arena = Arena.ofShared();
                ReferenceKernels kernels = new ReferenceKernels()) {
            MoeWeights weights = RandomLayer.weights(preset, type, arena);
            Tensor x = RandomLayer.tokens(3, 10, 1, arena);
            Tensor y = Tensor.allocate(arena, DType.F32, 3, 10);
            try (MoeLayer layer = new MoeLayer(preset.config(), weights, kernels);
                    Workspace workspace = layer.workspace(3)) {
                layer.forward(x, y, workspace);
            }
            for (int i = 0; i < y.numElements(); i++) {
                if (i % 10 < 2) {
                    assertThat(y.getFloat(i)).isNotZero();
                } else {
                    assertThat(y.getFloat(i)).isZero();
                }
            }
        }
    }

    @Test
    void weights_ofNeuronsAreRefused() {
        try (Arena arena = Arena.ofShared()) {
            assertThatThrownBy(() -> RandomLayer.weights(Presets.of("peer-1m"), DType.F32, arena))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "preset: expected experts of two matrices, got the neurons of peer-1m;"
                                    + " PeerLayer runs them");
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
