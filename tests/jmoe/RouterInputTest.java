package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.InputTransform;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.RouterWeights;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;

/** Layers whose routers read something else than x. */
final class RouterInputTest {
    private static final int TOKENS = 6;
    private static final int HIDDEN = 16;
    private static final int DIRECTIONS = 3;
    private static final InputTransform JITTER = new InputTransform.Jitter(11, 0.2);
    private static final InputTransform COSINE = new InputTransform.Cosine(1e-12);

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

    /** Of one type of token for each list of transforms. */
    private static MoeConfig config(int experts, List<List<InputTransform>> transforms) {
        List<RouterConfig> routers = new ArrayList<>();
        List<Integer> intermediates = new ArrayList<>();
        for (int type = 0; type < transforms.size(); type++) {
            RouterConfig rule =
                    new RouterConfig(
                            experts,
                            1,
                            Score.SIGMOID,
                            new Selection.TopK(),
                            experts == 1 ? new Normalisation.Sum(0) : new Normalisation.None(),
                            1,
                            false,
                            null,
                            transforms.size() == 1 ? RouterConfig.ALL_TOKENS : type,
                            List.of(),
                            transforms.get(type));
            routers.add(rule);
            intermediates.add(8);
        }
        return new MoeConfig(
                "transformed",
                HIDDEN,
                HIDDEN,
                experts,
                0,
                Activation.SWIGLU,
                routers,
                intermediates,
                8,
                true,
                1);
    }

    private static MoeWeights weights(
            Arena arena, MoeConfig config, @Nullable Tensor projection, double length) {
        List<RouterWeights> routers = new ArrayList<>();
        List<ExpertWeights> experts = new ArrayList<>();
        for (RouterConfig rule : config.routers()) {
            boolean cosine = rule.inputTransforms().contains(COSINE);
            Tensor ofType = cosine ? projection : null;
            long inputs = ofType == null ? HIDDEN : ofType.dim(1);
            Tensor weight = random(arena, 3, 1, config.numExperts(), inputs);
            for (long i = 0; cosine && i < weight.numElements(); i++) {
                weight.setDouble(i, length * weight.getDouble(i));
            }
            routers.add(new RouterWeights(weight, null, null, null, null, ofType, null));
            experts.add(bank(arena, config.numExperts()));
        }
        Tensor gate = random(arena, 6, 1, 1, HIDDEN);
        return new MoeWeights(routers, experts, bank(arena, 1), gate, null, null, null);
    }

    private static ExpertWeights bank(Arena arena, int experts) {
        return new ExpertWeights(
                random(arena, 1, experts, 16, HIDDEN),
                random(arena, 2, experts, HIDDEN, 8),
                null,
                null,
                Activation.SWIGLU);
    }

    private static Tensor types(Arena arena) {
        Tensor types = Tensor.allocate(arena, DType.I32, TOKENS);
        for (int token = 0; token < TOKENS; token++) {
            types.setInt(token, token % 3 - 1);
        }
        return types;
    }

    private static boolean same(Tensor got, Tensor want) {
        return got.data().mismatch(want.data()) < 0;
    }

    /** With one expert of weight 1, nothing but the logits may change. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_showsJitterToNoExpert(Backend backend) {
        MoeConfig plain = config(1, List.of(List.of()));
        MoeConfig jittered = config(1, List.of(List.of(JITTER)));
        for (DType rowType : List.of(DType.F32, DType.BF16)) {
            try (Arena arena = Arena.ofShared();
                    Kernels kernels = backend.open(2);
                    MoeLayer without =
                            new MoeLayer(plain, weights(arena, plain, null, 1), kernels);
                    MoeLayer layer =
                            new MoeLayer(jittered, weights(arena, jittered, null, 1), kernels);
                    Workspace ofPlain = without.workspace(TOKENS, rowType);
                    Workspace workspace = layer.workspace(TOKENS, rowType)) {
                Tensor x = random(arena, 5, TOKENS, HIDDEN);
                Tensor want = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                without.forward(x, want, ofPlain);
                Tensor before = x.copy(arena);
                layer.forward(x, y, workspace);
                for (long i = 0; i < y.numElements(); i++) {
                    assertThat(y.getFloat(i)).isCloseTo(want.getFloat(i), within(1e-6f));
                }
                assertThat(same(x, before)).isTrue();
                assertThat(same(workspace.routerLogits(), ofPlain.routerLogits())).isFalse();
                long bytes = layer.workspaceBytes(TOKENS, rowType);
                assertThat(bytes).isGreaterThanOrEqualTo(without.workspaceBytes(TOKENS, rowType));
            }
        }
    }

    /** Logits are cosines, however long the embeddings of experts were. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_takesCosinesOfAnyLength(Backend backend) {
        MoeConfig config = config(5, List.of(List.of(COSINE)));
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2)) {
            for (Tensor projection : new Tensor[] {null, random(arena, 4, 1, DIRECTIONS, HIDDEN)}) {
                Tensor x = random(arena, 5, TOKENS, HIDDEN);
                Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                Tensor first = null;
                for (double length : new double[] {1, 1024}) {
                    MoeWeights weights = weights(arena, config, projection, length);
                    try (MoeLayer layer = new MoeLayer(config, weights, kernels);
                            Workspace workspace = layer.workspace(TOKENS)) {
                        assertThat(layer.workspaceBytes(TOKENS)).isEqualTo(workspace.numBytes());
                        layer.forward(x, y, workspace);
                        Tensor logits = workspace.routerLogits().copy(arena);
                        for (long i = 0; i < logits.numElements(); i++) {
                            assertThat(logits.getDouble(i)).isBetween(-1 - 1e-6, 1 + 1e-6);
                        }
                        first = first == null ? logits : first;
                        assertThat(same(logits, first)).isTrue();
                    }
                }
            }
        }
    }

    /** One router of each kind, absent tokens between them; replays follow the step. */
    @ParameterizedTest
    @MethodSource("backends")
    void replay_hasTheInputOfTheStep(Backend backend) {
        MoeConfig config = config(5, List.of(List.of(JITTER), List.of(JITTER, COSINE)));
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2)) {
            Tensor projection = random(arena, 4, 1, DIRECTIONS, HIDDEN);
            MoeWeights weights = weights(arena, config, projection, 1);
            try (MoeLayer layer = new MoeLayer(config, weights, kernels);
                    Workspace workspace = layer.workspace(TOKENS, DType.BF16);
                    CapturedLayer captured = layer.capture(TOKENS, DType.BF16, DType.BF16)) {
                Tensor x = random(arena, 5, TOKENS, HIDDEN);
                Tensor types = types(arena);
                kernels.copy(x, captured.x());
                kernels.copy(types, captured.tokenTypes());
                Tensor first = null;
                for (int step : new int[] {0, 7, -1, 0}) {
                    workspace.setNoiseStep(step);
                    Tensor y = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
                    layer.forward(x, types, y, workspace);
                    captured.workspace().setNoiseStep(step);
                    captured.replay(TOKENS);
                    Tensor replayed = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
                    kernels.copy(captured.y(), replayed);
                    assertThat(same(replayed, y)).isTrue();
                    Tensor weightsOfStep = workspace.topkWeights().copy(arena);
                    Tensor ids = workspace.topkIds();
                    assertThat(same(captured.workspace().topkWeights(), weightsOfStep)).isTrue();
                    assertThat(same(captured.workspace().topkIds(), ids)).isTrue();
                    for (int token = 0; token < TOKENS; token++) {
                        assertThat(ids.getInt(token) < 0).isEqualTo(types.getInt(token) < 0);
                    }
                    first = first == null ? weightsOfStep : first;
                    assertThat(same(weightsOfStep, first)).isEqualTo(step == 0);
                }
            }
        }
    }

    @Test
    void layer_refusesProjectionsOfOtherSizes() {
        MoeConfig plain = config(5, List.of(List.of(JITTER)));
        MoeConfig cosine = config(5, List.of(List.of(COSINE)));
        try (Arena arena = Arena.ofShared();
                Kernels kernels = Backend.REFERENCE.open()) {
            Tensor projection = random(arena, 4, 1, DIRECTIONS, HIDDEN);
            MoeWeights projecting = weights(arena, cosine, projection, 1);
            assertThatThrownBy(() -> new MoeLayer(plain, projecting, kernels))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith(
                            "projection: expected none because the rule has no Cosine, got BF16");
            Tensor narrow = random(arena, 4, 1, DIRECTIONS, HIDDEN - 1);
            MoeWeights wrong = weights(arena, cosine, narrow, 1);
            assertThatThrownBy(() -> new MoeLayer(cosine, wrong, kernels))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("projection: expected [1, 3, 16], got BF16");
        }
    }

    /** What a backend has rearranged cannot be normalised any more, nor told from what was. */
    @Test
    void layer_refusesToNormaliseWhatIsPrepared() {
        MoeConfig config = config(5, List.of(List.of(COSINE)));
        try (Arena arena = Arena.ofShared();
                Kernels kernels = Backend.VECTOR.open(1);
                MoeLayer layer = new MoeLayer(config, weights(arena, config, null, 1), kernels)) {
            assertThatThrownBy(() -> new MoeLayer(config, layer.weights(), kernels))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith(
                            "weight: expected row-major elements because the rule has a Cosine, got"
                                    + " F32 [1, 5, 16] in the form of a backend; normalise");
        }
    }
}
