package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.ExpertWeights;
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
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;

/**
 * Replays of layers whose tokens get their experts together: the tokens that fill up the captured
 * batch are absent, and change nothing.
 */
final class CapturedRulesTest {
    private static final int MAX_TOKENS = 70;
    private static final int[] COUNTS = {70, 1, 0, 65, 7};
    private static final int EXPERTS = 6;
    private static final int HIDDEN = 16;

    private static final List<RouterConfig> RULES =
            List.of(
                    rule(3, new Selection.ExpertChoice(1.5), null),
                    rule(2, new Selection.Sinkhorn(1e-4, 20), null),
                    rule(1, new Selection.BalancedAssignment(0.05), null),
                    rule(2, new Selection.TopK(), moving(new Overflow.NextChoice(2))),
                    rule(2, new Selection.TopP(0.4, 1), moving(new Overflow.Ring(3))));

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty());
    }

    private static Capacity moving(Overflow overflow) {
        return new Capacity(new CapacityLimit.Tokens(9), Priority.PROBABILITY, true)
                .withOverflow(overflow);
    }

    private static RouterConfig rule(int topK, Selection selection, @Nullable Capacity capacity) {
        return new RouterConfig(
                EXPERTS,
                topK,
                Score.SOFTMAX,
                selection,
                new Normalisation.None(),
                1.5,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    private static Tensor random(Arena arena, int seed, DType dtype, long... shape) {
        SplittableRandom random = new SplittableRandom(seed);
        Tensor tensor = Tensor.allocate(arena, dtype, shape);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextGaussian() / 2);
        }
        return tensor;
    }

    private static MoeLayer layer(Arena arena, RouterConfig rule, Kernels kernels) {
        MoeConfig config =
                new MoeConfig(
                        "together",
                        HIDDEN,
                        HIDDEN,
                        EXPERTS,
                        0,
                        Activation.SWIGLU,
                        List.of(rule),
                        List.of(8),
                        0,
                        false,
                        1);
        ExpertWeights experts =
                new ExpertWeights(
                        random(arena, 1, DType.BF16, EXPERTS, 16, HIDDEN),
                        random(arena, 2, DType.BF16, EXPERTS, HIDDEN, 8),
                        null,
                        null,
                        Activation.SWIGLU);
        RouterWeights router =
                new RouterWeights(
                        random(arena, 3, DType.BF16, 1, EXPERTS, HIDDEN), null, null, null, null);
        List<RouterWeights> routers = List.of(router);
        return new MoeLayer(
                config,
                new MoeWeights(routers, List.of(experts), null, null, null, null, null),
                kernels);
    }

    @ParameterizedTest
    @MethodSource("backends")
    void replay_ofTokensRoutedTogether_givesTheBitsOfForward(Backend backend) {
        for (RouterConfig rule : RULES) {
            try (Arena arena = Arena.ofShared();
                    Kernels kernels = backend.open(2);
                    MoeLayer layer = layer(arena, rule, kernels);
                    CapturedLayer captured = layer.capture(MAX_TOKENS, DType.F32, DType.F32);
                    Workspace workspace = layer.workspace(MAX_TOKENS, DType.F32)) {
                for (int tokens : COUNTS) {
                    check(arena, kernels, layer, captured, workspace, tokens);
                }
            }
        }
    }

    private static void check(
            Arena arena,
            Kernels kernels,
            MoeLayer layer,
            CapturedLayer captured,
            Workspace workspace,
            int tokens) {
        Tensor x = random(arena, tokens, DType.F32, tokens, HIDDEN);
        Tensor want = random(arena, 8, DType.F32, tokens, HIDDEN);
        layer.forward(x, want, workspace);
        kernels.copy(random(arena, 9, DType.F32, MAX_TOKENS, HIDDEN), captured.x());
        kernels.copy(x, captured.x().slice(0, tokens));
        captured.replay(tokens);
        Tensor got = random(arena, 9, DType.F32, tokens, HIDDEN);
        kernels.copy(captured.y().slice(0, tokens), got);
        String name = layer.config().routers() + ", " + tokens + " tokens";
        assertThat(got.data().mismatch(want.data())).as(name).isEqualTo(-1);
        Workspace results = captured.workspace();
        assertThat(results.topkIds().data().mismatch(workspace.topkIds().data()))
                .as("ids of %s", name)
                .isEqualTo(-1);
    }
}
