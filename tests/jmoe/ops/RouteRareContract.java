package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;

/**
 * The rules of few models against the reference and {@link RareOracle}. They are computed in
 * double, so that only sums in another order may decide in another way.
 */
interface RouteRareContract extends Contract {
    /** Candidates and sums closer than this may be decided by how they were rounded. */
    double DECIDED_IN_DOUBLE = 0x1p-40;

    Normalisation NONE = new Normalisation.None();
    Normalisation SUM = new Normalisation.Sum(0);

    /** Softmax scores among 16 experts, in every way that is about more than K. */
    static List<RouterConfig> rareRules() {
        return List.of(
                rule(4, new Selection.OnePerGroup(4, Scope.GLOBAL), NONE),
                rule(4, new Selection.OnePerGroup(4, Scope.GLOBAL), SUM),
                rule(1, new Selection.OnePerGroup(1, Scope.LOCAL), NONE),
                rule(8, new Selection.OnePerGroup(8, Scope.LOCAL), SUM),
                rule(16, new Selection.OnePerGroup(16, Scope.LOCAL), new Normalisation.PNorm(2)),
                rule(4, new Selection.GroupLimited(4, 2, GroupScore.TOP_SHARE_SUM), SUM),
                rule(6, new Selection.GroupLimited(4, 2, GroupScore.TOP_SHARE_SUM), NONE),
                rule(4, new Selection.GroupLimited(8, 4, GroupScore.TOP_SHARE_SUM), NONE),
                rule(16, new Selection.TopP(0.7, 1), NONE),
                rule(3, new Selection.TopP(0.9, 2), SUM),
                rule(5, new Selection.TopP(1e9, 1), new Normalisation.ClampedSum(0.5)),
                rule(2, new Selection.TopP(1e-9, 1), new Normalisation.Sum(1e-3)),
                rule(8, new Selection.EntropyK(1.9, 1), SUM),
                rule(16, new Selection.EntropyK(5.3, 2), NONE),
                rule(4, new Selection.EntropyK(0, 3), SUM),
                rule(4, new Selection.TwoLevel(4, 2, 2), NONE),
                rule(4, new Selection.TwoLevel(4, 2, 2), SUM),
                rule(6, new Selection.TwoLevel(4, 3, 2), SUM),
                rule(16, new Selection.TwoLevel(2, 2, 8), SUM),
                rule(4, new Selection.TopK(), SUM),
                rule(4, new Selection.GroupLimited(4, 2, GroupScore.TOP2_SUM), NONE),
                rule(4, new Selection.GroupLimited(4, 2, GroupScore.MAX), SUM));
    }

    private static RouterConfig rule(int topK, Selection selection, Normalisation normalisation) {
        return rule(16, topK, Score.SOFTMAX, selection, normalisation);
    }

    private static RouterConfig rule(
            int experts, int topK, Score score, Selection selection, Normalisation normalisation) {
        return new RouterConfig(
                experts,
                topK,
                score,
                selection,
                normalisation,
                1.5,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    @Tag("broad")
    @ParameterizedTest
    @MethodSource("rareRules")
    default void route_byRareRule(RouterConfig config) {
        for (Logits kind : Logits.values()) {
            boolean sums = config.judgesGroupsBySum();
            // Sums of equal scores in another order, and scores that underflow, decide nothing.
            if (sums && (kind == Logits.TIES || kind == Logits.HUGE)) {
                continue;
            }
            compareRare(config, 9, kind, false, 0);
            compareRare(config, 9, kind, false, 3);
            if (kind != Logits.HUGE) {
                compareRare(config, 9, kind, true, 0);
                compareRare(config, 9, kind, true, 2);
            }
        }
        compareRare(config, 9, Logits.NORMAL, false, 1);
        compareRare(config, 0, Logits.NORMAL, false, 0);
    }

    /** No softmax, which is what all scores are of in the rules above. */
    @Tag("broad")
    @Test
    default void route_byRareRule_withScoresOfTheirOwn() {
        List<RouterConfig> rules =
                rareRules().stream()
                        .filter(c -> !(c.selection() instanceof Selection.TwoLevel))
                        .filter(c ->
                                !(c.selection() instanceof Selection.OnePerGroup o)
                                        || o.scope() == Scope.GLOBAL)
                        .toList();
        for (RouterConfig softmax : rules) {
            for (Score score : List.of(Score.SIGMOID, Score.SQRT_SOFTPLUS, Score.NONE)) {
                // Logits may sum to nearly nothing, by which nobody should divide.
                Normalisation normalisation = score == Score.NONE ? NONE : softmax.normalisation();
                RouterConfig config =
                        rule(16, softmax.topK(), score, softmax.selection(), normalisation);
                compareRare(config, 7, Logits.NORMAL, false, 0);
                compareRare(config, 7, Logits.NORMAL, true, 3);
                compareRare(config, 7, Logits.SOME_NAN, true, 0);
            }
        }
    }

    @Tag("broad")
    @Test
    default void route_byRareRule_ofAnySize() {
        int[][] sizes = {{1, 1}, {2, 1}, {33, 3}, {80, 8}, {1000, 40}, {2048, 64}};
        for (int[] size : sizes) {
            int experts = size[0];
            int topK = size[1];
            int groups = experts % topK == 0 ? topK : 1;
            List<Selection> selections =
                    List.of(
                            new Selection.TopK(),
                            new Selection.TopP(0.6, 1),
                            new Selection.EntropyK(1.7, 1),
                            new Selection.TwoLevel(groups, 1, Math.min(topK, experts / groups)),
                            new Selection.OnePerGroup(groups, Scope.LOCAL));
            for (Selection selection : selections) {
                int k =
                        switch (selection) {
                            case Selection.OnePerGroup o -> groups;
                            case Selection.TwoLevel t -> t.perGroup();
                            default -> topK;
                        };
                RouterConfig config = rule(experts, k, Score.SOFTMAX, selection, SUM);
                compareRare(config, 3, Logits.NORMAL, false, 2);
                compareRare(config, 2, Logits.NORMAL, true, 0);
            }
        }
        // Pangu Pro MoE: 64 experts in 8 groups, a softmax over all of them.
        Selection pangu = new Selection.OnePerGroup(8, Scope.GLOBAL);
        compareRare(rule(64, 8, Score.SOFTMAX, pangu, NONE), 129, Logits.NORMAL, false, 0);
        compareRare(rule(64, 8, Score.SOFTMAX, pangu, NONE), 129, Logits.TIES, false, 0);
    }

    /**
     * Routes and compares; every n-th expert is inactive, none with n = 0, all with n = 1. With
     * inactive experts weights are scaled as well.
     */
    private void compareRare(
            RouterConfig config, int tokens, Logits kind, boolean biased, int inactive) {
        String name =
                "%s T=%d logits %s bias %s inactive %d"
                        .formatted(config, tokens, kind, biased, inactive);
        int experts = config.numExperts();
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, experts);
            Cases.logits(logits, kind, experts * 31L + config.topK());
            RouteInputs inputs = RouteInputs.NONE;
            if (biased) {
                Tensor bias = Cases.normal(arena, DType.F32, 7, experts);
                for (int e = 0; e < experts; e++) {
                    bias.setDouble(e, 0.1 * bias.getDouble(e));
                }
                inputs = inputs.withSelectionBias(bias);
            }
            if (inactive > 0) {
                Tensor active = Tensor.allocate(arena, DType.I32, experts);
                for (int e = 0; e < experts; e++) {
                    active.setInt(e, e % inactive == inactive - 1 ? 0 : e - 5 == 0 ? 7 : e - 5);
                }
                inputs =
                        inputs.withActiveExperts(active)
                                .withExpertScale(Cases.normal(arena, DType.F32, 8, experts));
            }
            RareOracle oracle = new RareOracle(logits, config, inputs);
            assertThat(oracle.margin())
                    .as("the case itself, %s", name)
                    .isGreaterThan(DECIDED_IN_DOUBLE);
            Routing want = Routing.allocate(arena, tokens, config.topK(), experts);
            reference.route(logits, config, inputs, want);
            Poisoned ids = Poisoned.allocate(arena, DType.I32, tokens, config.topK());
            Poisoned weights = Poisoned.allocate(arena, DType.F32, tokens, config.topK());
            Routing got =
                    new Routing(
                            ids.tensor(),
                            weights.tensor(),
                            want.tokensPerExpert(),
                            want.expertOffsets(),
                            want.rowToSlot(),
                            want.slotToRow());
            backend().route(logits, config, inputs, got);
            Routings.compare(name, config, oracle.ids, oracle.weights, want, got);
            ids.assertUntouchedFrom("route", name, tokens);
            weights.assertUntouchedFrom("route", name, tokens);
        }
    }
}
