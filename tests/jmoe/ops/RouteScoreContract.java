package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.util.List;

/** The scores of {@link Kernels#route} that few models have, with every selection. */
interface RouteScoreContract extends RouteContract {
    @Tag("broad")
    @ParameterizedTest
    @EnumSource(
            value = Score.class,
            names = {"SQRT_SOFTPLUS", "NONE"})
    default void route_byScoresOfFewModels(Score score) {
        for (Selection selection : RouteContract.selections()) {
            for (Normalisation normalisation :
                    List.of(
                            new Normalisation.None(),
                            new Normalisation.PNorm(2),
                            new Normalisation.ClampedSum(0.9))) {
                RouterConfig config = config(score, selection, normalisation, null);
                route(config, 17, Logits.NORMAL, null, null);
                route(config, 17, Logits.NORMAL, 0.3, 2);
                Capacity ranked =
                        new Capacity(
                                new CapacityLimit.Fraction(0.3),
                                Capacity.Priority.PROBABILITY,
                                false);
                route(
                        config(score, selection, normalisation, ranked),
                        17,
                        Logits.NORMAL,
                        null,
                        null);
            }
        }
        RouterConfig sum =
                config(Score.SQRT_SOFTPLUS, new Selection.TopK(), NORMALISATIONS.get(1), null);
        route(sum, 17, Logits.TIES, null, null);
        route(sum, 17, Logits.NORMAL, 0.3, null);
        for (Logits kind : List.of(Logits.SOME_NAN, Logits.ALL_NAN, Logits.INFINITE, Logits.HUGE)) {
            route(
                    config(score, new Selection.TopK(), NORMALISATIONS.get(0), null),
                    9,
                    kind,
                    null,
                    null);
            route(
                    config(score, new Selection.TopK(), NORMALISATIONS.get(1), null),
                    9,
                    kind,
                    null,
                    null);
        }
    }

    private static RouterConfig config(
            Score score, Selection selection, Normalisation normalisation, Capacity capacity) {
        return new RouterConfig(
                16,
                4,
                score,
                selection,
                normalisation,
                1.5,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    /** Neither exp(z) overflows nor is it lost beside 1. */
    @Test
    default void route_bySqrtSoftplus_isExactAtBothEnds() {
        RouterConfig config =
                new RouterConfig(
                        6,
                        6,
                        Score.SQRT_SOFTPLUS,
                        new Selection.TopK(),
                        new Normalisation.None(),
                        1,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        double[] z = {1e4, 100, 0, -60, -150, Double.NEGATIVE_INFINITY};
        double[] want = {100, 10, Math.sqrt(Math.log(2)), Math.exp(-30), Math.exp(-75), 0};
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 1, z.length);
            for (int e = 0; e < z.length; e++) {
                logits.setDouble(e, z[e]);
            }
            Routing routing = Routing.allocate(arena, 1, 6, 6);
            backend().route(logits, config, RouteInputs.NONE, routing);
            for (int k = 0; k < z.length; k++) {
                assertThat(routing.topkIds().getInt(k)).isEqualTo(k);
                assertThat((float) routing.topkWeights().getDouble(k)).isEqualTo((float) want[k]);
            }
        }
    }
}
