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

    /**
     * With a bias scores are compared as F32, and so are sums of two: logits near the end of the
     * sigmoid, many of which have the same one, go by the lower id where they do.
     */
    @Test
    default void route_ordersScoresAsF32() {
        Selection groups = new Selection.GroupLimited(8, 3, RouterConfig.GroupScore.TOP2_SUM);
        for (Score score : List.of(Score.SIGMOID, Score.SOFTMAX)) {
            for (Selection selection : List.of(new Selection.TopK(), groups)) {
                for (int numExperts : new int[] {64, 320}) {
                    RouterConfig config =
                            new RouterConfig(
                                    numExperts,
                                    6,
                                    score,
                                    selection,
                                    new Normalisation.Sum(1e-20),
                                    2.5,
                                    false,
                                    null,
                                    RouterConfig.ALL_TOKENS);
                    route(config, 9, Logits.NORMAL, 0.0, null);
                    assertAsTheOracle(config);
                }
            }
        }
    }

    private void assertAsTheOracle(RouterConfig config) {
        try (Arena arena = Arena.ofConfined()) {
            int numExperts = config.numExperts();
            Tensor logits = Cases.normal(arena, DType.F32, 11, 12, numExperts);
            for (long i = 0; i < logits.numElements(); i++) {
                logits.setDouble(i, 12 + logits.getDouble(i));
            }
            Tensor bias = Tensor.allocate(arena, DType.F32, numExperts);
            for (int e = 0; e < numExperts; e++) {
                bias.setDouble(e, e % 3 * 1e-6);
            }
            RouteOracle oracle = new RouteOracle(logits, config, bias, null);
            Routing routing = Routing.allocate(arena, 12, 6, numExperts);
            backend().route(logits, config, new RouteInputs(bias, null), routing);
            for (int slot = 0; slot < 12 * 6; slot++) {
                assertThat(routing.topkIds().getInt(slot))
                        .as("slot %d of %s", slot, config)
                        .isEqualTo(oracle.ids[slot / 6][slot % 6]);
            }
        }
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
