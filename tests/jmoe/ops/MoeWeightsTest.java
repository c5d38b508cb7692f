package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.List;

final class MoeWeightsTest {
    private static final Arena ARENA = Arena.ofAuto();
    private static final int H = 6;

    private static MoeConfig config(int expertHidden, int shared, boolean sharedGated) {
        return new MoeConfig(
                "test",
                H,
                expertHidden,
                3,
                0,
                Activation.SWIGLU,
                List.of(RouterConfig.softmaxTopK(3, 2, true)),
                List.of(5),
                shared,
                sharedGated,
                1);
    }

    private static Tensor f32(long... shape) {
        return Tensor.allocate(ARENA, DType.F32, shape);
    }

    private static ExpertWeights bank(int experts, int hidden, int intermediate) {
        return new ExpertWeights(
                f32(experts, 2L * intermediate, hidden),
                f32(experts, hidden, intermediate),
                null,
                null,
                Activation.SWIGLU);
    }

    private static MoeWeights weights(
            ExpertWeights experts,
            @Nullable ExpertWeights shared,
            @Nullable Tensor sharedGate,
            @Nullable Tensor latentIn,
            @Nullable Tensor latentOut) {
        RouterWeights router = new RouterWeights(f32(1, 3, H), null, null);
        return new MoeWeights(
                List.of(router), List.of(experts), shared, sharedGate, latentIn, latentOut, null);
    }

    private static void assertRefused(MoeWeights weights, MoeConfig config, String message) {
        assertThatThrownBy(() -> weights.requireMatch(config))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(message);
    }

    @Test
    void requireMatch_acceptsWhatTheConfigurationSays() {
        assertThatCode(
                        () -> {
                            weights(bank(3, H, 5), null, null, null, null)
                                    .requireMatch(config(H, 0, false));
                            weights(bank(3, H, 5), bank(1, H, 4), f32(1, 1, H), null, null)
                                    .requireMatch(config(H, 4, true));
                            weights(bank(3, 2, 5), null, null, f32(1, 2, H), f32(1, H, 2))
                                    .requireMatch(config(2, 0, false));
                        })
                .doesNotThrowAnyException();
    }

    @Test
    void requireMatch_comparesScalesOfExperts() {
        for (int experts = 3; experts < 5; experts++) {
            RouterWeights router = new RouterWeights(f32(1, 3, H), null, null, f32(experts), null);
            MoeWeights weights =
                    new MoeWeights(
                            List.of(router), List.of(bank(3, H, 5)), null, null, null, null, null);
            if (experts == 3) {
                weights.requireMatch(config(H, 0, false));
            } else {
                assertRefused(
                        weights, config(H, 0, false), "expertScale: expected [3], got F32 [4]");
            }
        }
    }

    @Test
    void requireMatch_namesWhatDiffers() {
        MoeConfig plain = config(H, 0, false);
        assertRefused(
                weights(bank(4, H, 5), null, null, null, null),
                plain,
                "numExperts: expected 3 as in the configuration, got 4");
        assertRefused(
                weights(bank(3, H, 7), null, null, null, null),
                plain,
                "intermediate: expected 5 as in the configuration, got 7");
        assertRefused(
                weights(bank(3, H, 5), bank(1, H, 4), null, null, null),
                plain,
                "shared intermediate: expected 0 as in the configuration, got 4");
        assertRefused(
                weights(bank(3, H, 5), bank(1, H, 4), null, null, null),
                config(H, 4, true),
                "sharedGate: expected 1 as in the configuration, got 0");
        assertRefused(
                weights(bank(3, H, 5), null, null, f32(1, H, H), null),
                plain,
                "latentOut: expected 1 as in the configuration, got 0");
        assertRefused(
                weights(bank(3, 2, 5), null, null, f32(1, 2, 7), f32(1, H, 2)),
                config(2, 0, false),
                "latentIn: expected [1, 2, 6], got F32 [1, 2, 7]");
        assertRefused(
                weights(bank(3, 2, 5), null, null, null, null),
                config(2, 0, false),
                "expertHidden without latent projections: expected 6 as in the configuration, got"
                        + " 2");
        MoeWeights none = new MoeWeights(List.of(), List.of(), null, null, null, null, null);
        assertRefused(none, plain, "routers: expected 1 as in the configuration, got 0");
    }
}
