package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.LogitTransform;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;

/** A layer whose router has noise, from step to step. */
final class RouterNoiseTest {
    private static final int TOKENS = 5;
    private static final int EXPERTS = 6;
    private static final int HIDDEN = 16;
    private static final List<LogitTransform> TRANSFORMS =
            List.of(
                    new LogitTransform.LearnedNoise(11),
                    new LogitTransform.Temperature(2),
                    new LogitTransform.GumbelNoise(12, 0.5));

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty());
    }

    private static Tensor random(Arena arena, int seed, long... shape) {
        SplittableRandom random = new SplittableRandom(seed);
        Tensor tensor = Tensor.allocate(arena, DType.BF16, shape);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextGaussian() / 4);
        }
        return tensor;
    }

    private static MoeConfig config(List<LogitTransform> transforms) {
        return new MoeConfig(
                "noisy",
                HIDDEN,
                HIDDEN,
                EXPERTS,
                0,
                Activation.SWIGLU,
                List.of(RouterConfig.softmaxTopK(EXPERTS, 2, true).withLogitTransforms(transforms)),
                List.of(8),
                0,
                false,
                1);
    }

    private static MoeWeights weights(Arena arena, boolean withNoise) {
        ExpertWeights experts =
                new ExpertWeights(
                        random(arena, 1, EXPERTS, 16, HIDDEN),
                        random(arena, 2, EXPERTS, HIDDEN, 8),
                        null,
                        null,
                        Activation.SWIGLU);
        RouterWeights router =
                new RouterWeights(
                        random(arena, 3, 1, EXPERTS, HIDDEN),
                        null,
                        null,
                        null,
                        withNoise ? random(arena, 4, 1, EXPERTS, HIDDEN) : null);
        return new MoeWeights(List.of(router), List.of(experts), null, null, null, null, null);
    }

    /** Logits and output of a pass, one behind the other. */
    private static Tensor pass(Arena arena, MoeLayer layer, Tensor x, Workspace workspace) {
        Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
        layer.forward(x, y, workspace);
        return both(arena, workspace, y);
    }

    private static Tensor both(Arena arena, Workspace workspace, Tensor y) {
        Tensor both = Tensor.allocate(arena, DType.F32, TOKENS * (EXPERTS + HIDDEN));
        both.slice(0, TOKENS * EXPERTS).data().copyFrom(workspace.routerLogits().data());
        both.slice(TOKENS * EXPERTS, TOKENS * HIDDEN).data().copyFrom(y.data());
        return both;
    }

    private static boolean same(Tensor got, Tensor want) {
        return got.data().mismatch(want.data()) < 0;
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_drawsAnotherNoiseForEachStep(Backend backend) {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2);
                MoeLayer plain = new MoeLayer(config(List.of()), weights(arena, true), kernels);
                MoeLayer layer = new MoeLayer(config(TRANSFORMS), weights(arena, true), kernels);
                Workspace ofPlain = plain.workspace(TOKENS, DType.BF16);
                Workspace workspace = layer.workspace(TOKENS, DType.BF16)) {
            Tensor x = random(arena, 5, TOKENS, HIDDEN);
            Tensor first = pass(arena, layer, x, workspace);
            assertThat(same(pass(arena, plain, x, ofPlain), first)).isFalse();
            assertThat(same(pass(arena, layer, x, workspace), first)).isTrue();
            workspace.setNoiseStep(-1);
            assertThat(same(pass(arena, layer, x, workspace), first)).isFalse();
            workspace.setNoiseStep(0);
            assertThat(same(pass(arena, layer, x, workspace), first)).isTrue();
        }
    }

    @ParameterizedTest
    @MethodSource("backends")
    void replay_hasTheNoiseOfTheStep(Backend backend) {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2);
                MoeLayer layer = new MoeLayer(config(TRANSFORMS), weights(arena, true), kernels);
                Workspace workspace = layer.workspace(TOKENS, DType.BF16);
                CapturedLayer captured = layer.capture(TOKENS, DType.BF16, DType.BF16)) {
            Tensor x = random(arena, 5, TOKENS, HIDDEN);
            kernels.copy(x, captured.x());
            for (int step : new int[] {0, 7, 1, 0}) {
                workspace.setNoiseStep(step);
                Tensor y = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
                layer.forward(x, y, workspace);
                Tensor logits = workspace.routerLogits().copy(arena);
                captured.workspace().setNoiseStep(step);
                captured.replay(TOKENS);
                Tensor replayed = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
                kernels.copy(captured.y(), replayed);
                assertThat(same(captured.workspace().routerLogits(), logits)).isTrue();
                assertThat(same(replayed, y)).isTrue();
            }
        }
    }

    @Test
    void layer_refusesARuleWhoseNoiseHasNoWeights() {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = Backend.REFERENCE.open()) {
            MoeWeights without = weights(arena, false);
            assertThatThrownBy(() -> new MoeLayer(config(TRANSFORMS), without, kernels))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith(
                            "noiseWeight: expected F32, F16 or BF16 [1, 6, 16] because the rule has"
                                    + " LearnedNoise, got none");
        }
    }
}
