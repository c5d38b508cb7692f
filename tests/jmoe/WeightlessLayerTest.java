package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.Random;

/** Layers with null experts. */
final class WeightlessLayerTest {
    private static final int HIDDEN = 24;
    private static final int WIDTH = 16;
    private static final int EXPERTS = 6;
    private static final int NULL_EXPERTS = 2;
    private static final int TOKENS = 13;

    @ParameterizedTest
    @EnumSource(
            value = Backend.class,
            names = {"REFERENCE", "VECTOR"})
    void nullExperts_areExpertsOfZeros(Backend backend) {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open()) {
            Tensor router = normal(arena, 1, 1, EXPERTS, HIDDEN);
            Tensor gateUp = normal(arena, 2, EXPERTS, 2 * WIDTH, HIDDEN);
            Tensor down = normal(arena, 3, EXPERTS, HIDDEN, WIDTH);
            int weighted = EXPERTS - NULL_EXPERTS;
            for (long i = (long) weighted * HIDDEN * WIDTH; i < down.numElements(); i++) {
                down.setDouble(i, 0);
            }
            Tensor x = normal(arena, 4, TOKENS, HIDDEN);
            Tensor zeros = forward(kernels, arena, config(0), router, gateUp, down, x);
            Tensor nulls =
                    forward(
                            kernels,
                            arena,
                            config(NULL_EXPERTS),
                            router,
                            gateUp.slice(0, weighted),
                            down.slice(0, weighted),
                            x);
            for (long i = 0; i < zeros.numElements(); i++) {
                assertThat(nulls.getDouble(i)).isEqualTo(zeros.getDouble(i));
            }
        }
    }

    private static MoeConfig config(int numNullExperts) {
        return new MoeConfig(
                "test",
                HIDDEN,
                HIDDEN,
                EXPERTS - numNullExperts,
                0,
                Activation.SWIGLU,
                List.of(RouterConfig.softmaxTopK(EXPERTS, 2, true)),
                List.of(WIDTH),
                0,
                false,
                1,
                numNullExperts);
    }

    private static Tensor forward(
            Kernels kernels,
            Arena arena,
            MoeConfig config,
            Tensor router,
            Tensor gateUp,
            Tensor down,
            Tensor x) {
        ExpertWeights bank = new ExpertWeights(gateUp, down, null, null, Activation.SWIGLU);
        RouterWeights routerWeights = new RouterWeights(router, null, null);
        MoeWeights weights =
                new MoeWeights(List.of(routerWeights), List.of(bank), null, null, null, null, null);
        Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
        try (MoeLayer layer = new MoeLayer(config, weights, kernels);
                Workspace workspace = layer.workspace(TOKENS)) {
            layer.forward(x, y, workspace);
            assertThat(workspace.tokensPerExpert().numElements())
                    .isEqualTo(EXPERTS - config.numNullExperts());
        }
        return y;
    }

    private static Tensor normal(Arena arena, long seed, long... shape) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, shape);
        Random random = new Random(seed);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextGaussian() / 4);
        }
        return tensor;
    }
}
