package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Capacity.Priority;
import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;

/**
 * {@link Kernels#route} against the reference and against {@link RouteOracle}, over the rules and
 * all they can be combined with.
 */
interface RouteContract extends Contract {
    /** Candidates closer than this are not decided the same way by F32 and double. */
    double DECIDED = 0x1p-21;

    /** Those that are combined with everything; the others are in {@link RouteScoreContract}. */
    List<Score> SCORES = List.of(Score.SOFTMAX, Score.SIGMOID);

    /** Every way to normalise. */
    List<Normalisation> NORMALISATIONS =
            List.of(
                    new Normalisation.None(),
                    new Normalisation.Sum(0),
                    new Normalisation.Sum(1e-20),
                    new Normalisation.Sum(1e-3),
                    new Normalisation.ClampedSum(1e-12),
                    new Normalisation.ClampedSum(0.9),
                    new Normalisation.PNorm(1),
                    new Normalisation.PNorm(2),
                    new Normalisation.PNorm(3.5));

    /** Every way to bound the tokens of an expert; 0 tokens included. */
    List<Capacity> CAPACITIES =
            List.of(
                    new Capacity(new CapacityLimit.Tokens(2), Priority.POSITION, false),
                    new Capacity(new CapacityLimit.Tokens(0), Priority.POSITION, true),
                    new Capacity(new CapacityLimit.Fraction(0.1), Priority.PROBABILITY, false),
                    new Capacity(new CapacityLimit.Fraction(0.3), Priority.PROBABILITY, true),
                    new Capacity(new CapacityLimit.Tokens(5), Priority.PROBABILITY, true),
                    new Capacity(new CapacityLimit.Fraction(0.04), Priority.POSITION, true));

    /** Every way to select K of E that is possible. */
    static List<Selection> selections() {
        return List.of(
                new Selection.TopK(),
                new Selection.GroupLimited(4, 2, GroupScore.MAX),
                new Selection.GroupLimited(4, 2, GroupScore.TOP2_SUM),
                new Selection.GroupLimited(8, 3, GroupScore.TOP2_SUM),
                new Selection.GroupLimited(1, 1, GroupScore.MAX),
                new Selection.GroupLimited(16, 5, GroupScore.TOP2_SUM),
                new Selection.ProductKeys(4));
    }

    @Tag("broad")
    @ParameterizedTest
    @MethodSource("selections")
    default void route_combinesRules(Selection selection) {
        int tokens = 17;
        int experts = 16;
        int topK = 4;
        for (Score score : SCORES) {
            for (int n = 0; n < NORMALISATIONS.size(); n++) {
                Normalisation normalisation = NORMALISATIONS.get(n);
                double factor = n % 2 == 0 ? 1 : 2.5;
                RouterConfig plain = config(experts, topK, score, selection, normalisation, factor);
                boolean sums = selection instanceof Selection.ProductKeys;
                route(plain, tokens, Logits.NORMAL, null, null);
                if (!sums) {
                    route(plain, tokens, Logits.NORMAL, 0.3, null);
                }
                for (Capacity capacity : CAPACITIES) {
                    route(with(plain, capacity, -1), tokens, Logits.NORMAL, null, null);
                }
                route(with(plain, null, 1), tokens, Logits.NORMAL, null, 3);
                Capacity two = CAPACITIES.getFirst();
                route(with(plain, two, 0), tokens, Logits.NORMAL, null, 2);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void route_overCases(Cases.Case c) {
        Normalisation sum = new Normalisation.Sum(0);
        Selection best = new Selection.TopK();
        RouterConfig softmax = config(c.numExperts(), c.topK(), Score.SOFTMAX, best, sum, 1);
        route(softmax, c.tokens(), Logits.NORMAL, null, null);
        route(softmax, c.tokens(), Logits.TIES, null, null);
        RouterConfig sigmoid = config(c.numExperts(), c.topK(), Score.SIGMOID, best, sum, 1);
        route(sigmoid, c.tokens(), Logits.NORMAL, null, null);
    }

    @Tag("broad")
    @Test
    default void route_withManyExperts() {
        int[][] sizes = {
            {1, 1}, {5, 5}, {31, 3}, {33, 32}, {97, 6}, {256, 8}, {512, 10}, {1023, 32}, {2048, 32}
        };
        for (int[] size : sizes) {
            for (Score score : SCORES) {
                for (int n = 0; n < 2; n++) {
                    RouterConfig config =
                            config(
                                    size[0],
                                    size[1],
                                    score,
                                    new Selection.TopK(),
                                    NORMALISATIONS.get(n),
                                    1);
                    route(config, 5, Logits.NORMAL, null, null);
                    route(config, 5, Logits.TIES, null, null);
                }
            }
        }
        // DeepSeek-V3: 256 experts in 8 groups of which 4 stay, with a selection bias.
        Selection deepseek = new Selection.GroupLimited(8, 4, GroupScore.TOP2_SUM);
        Normalisation sum = new Normalisation.Sum(1e-20);
        RouterConfig v3 = config(256, 8, Score.SIGMOID, deepseek, sum, 2.5);
        route(v3, 33, Logits.NORMAL, 0.2, null);
        // Eight values of E = 2048 with a bias, whose ties the lower id wins.
        RouterConfig biased = config(2048, 32, Score.SIGMOID, new Selection.TopK(), sum, 1);
        route(biased, 2, Logits.TIES, 0.0, null);
    }

    @Test
    default void route_bySparseMixer() {
        for (double jitter : new double[] {0.01, 0.1, 0.5}) {
            for (int experts : new int[] {2, 16, 60}) {
                RouterConfig config =
                        config(
                                experts,
                                2,
                                Score.SOFTMAX,
                                new Selection.SparseMixer(jitter),
                                new Normalisation.None(),
                                1);
                for (Logits kind : new Logits[] {Logits.NORMAL, Logits.TIES, Logits.ALL_EQUAL}) {
                    route(config, 33, kind, null, null);
                }
            }
        }
    }

    @Test
    default void route_byProductKeys() {
        int[][] sizes = {{1, 1}, {2, 4}, {3, 2}, {17, 8}, {32, 8}, {32, 32}};
        for (int[] size : sizes) {
            for (Score score : SCORES) {
                for (Normalisation normalisation : NORMALISATIONS.subList(0, 2)) {
                    Selection keys = new Selection.ProductKeys(size[0]);
                    int experts = size[0] * size[0];
                    RouterConfig config = config(experts, size[1], score, keys, normalisation, 1);
                    route(config, 7, Logits.NORMAL, null, null);
                    route(config, 7, Logits.TIES, null, null);
                    route(config, 7, Logits.ALL_EQUAL, null, null);
                }
            }
        }
    }

    /** A quarter of a million experts: the reference and the oracle sum up all of them. */
    @Tag("broad")
    @Test
    default void route_byProductKeys_ofManyKeys() {
        Selection keys = new Selection.ProductKeys(512);
        for (Logits kind : new Logits[] {Logits.NORMAL, Logits.TIES}) {
            RouterConfig config =
                    config(512 * 512, 8, Score.SOFTMAX, keys, new Normalisation.Sum(0), 1);
            route(config, kind == Logits.NORMAL ? 2 : 1, kind, null, null);
        }
    }

    /** NaN, infinities and extremes. */
    @Tag("broad")
    @ParameterizedTest
    @EnumSource(
            value = Logits.class,
            names = {"SOME_NAN", "ALL_NAN", "INFINITE", "HUGE"})
    default void route_withSpecialLogits_agreesWithOracle(Logits kind) {
        for (Score score : SCORES) {
            for (Normalisation normalisation : NORMALISATIONS.subList(0, 2)) {
                for (int topK : new int[] {1, 4, 16}) {
                    RouterConfig config =
                            config(16, topK, score, new Selection.TopK(), normalisation, 1);
                    route(config, 33, kind, null, null);
                }
                Selection groups = new Selection.GroupLimited(4, 2, GroupScore.MAX);
                route(config(16, 4, score, groups, normalisation, 1), 33, kind, null, null);
                if (kind != Logits.HUGE) { // whose scores underflow, which precisions do not share
                    routeByScore(score, normalisation, kind);
                }
            }
        }
    }

    private void routeByScore(Score score, Normalisation normalisation, Logits kind) {
        RouterConfig best = config(16, 4, score, new Selection.TopK(), normalisation, 1);
        route(best, 33, kind, 0.3, null);
        route(
                with(
                        best,
                        new Capacity(new CapacityLimit.Fraction(0.2), Priority.PROBABILITY, false),
                        -1),
                33,
                kind,
                null,
                null);
        Selection sum = new Selection.GroupLimited(4, 2, GroupScore.TOP2_SUM);
        RouterConfig groups = config(16, 4, score, sum, normalisation, 1);
        route(groups, 33, kind, null, null);
        route(groups, 33, kind, 0.3, null);
    }

    private static RouterConfig config(
            int experts,
            int topK,
            Score score,
            Selection selection,
            Normalisation normalisation,
            double factor) {
        return new RouterConfig(
                experts,
                topK,
                score,
                selection,
                normalisation,
                factor,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    private static RouterConfig with(RouterConfig c, @Nullable Capacity capacity, int tokenType) {
        return new RouterConfig(
                c.numExperts(),
                c.topK(),
                c.score(),
                c.selection(),
                c.normalisation(),
                c.factor(),
                c.weightOnInput(),
                capacity,
                tokenType);
    }

    /** A token of negative type is absent, whichever tokens a router serves. */
    @Test
    default void route_leavesOutAbsentTokens() {
        Normalisation sum = new Normalisation.Sum(0);
        List<Selection> rules =
                List.of(
                        new Selection.TopK(),
                        new Selection.GroupLimited(4, 2, GroupScore.TOP2_SUM),
                        new Selection.ProductKeys(4));
        for (Selection rule : rules) {
            RouterConfig config = config(16, 4, Score.SIGMOID, rule, sum, 1);
            for (int absent : new int[] {-1, -3}) {
                route(config, 9, Logits.NORMAL, null, absent);
                route(with(config, null, 0), 9, Logits.NORMAL, null, absent);
                route(with(config, null, 1), 9, Logits.NORMAL, null, absent);
            }
            for (Capacity capacity : CAPACITIES) {
                route(with(config, capacity, -1), 9, Logits.NORMAL, null, -1);
            }
        }
        Selection mixer = new Selection.SparseMixer(0.1);
        RouterConfig two = config(16, 2, Score.SOFTMAX, mixer, new Normalisation.None(), 1);
        route(two, 9, Logits.NORMAL, null, -1);
    }

    /**
     * Routes and compares; token types count 0, 1, ... up to the given number; of a negative
     * number, every other one is that and the others are 0.
     */
    default void route(
            RouterConfig config,
            int tokens,
            Logits kind,
            @Nullable Double biasScale,
            @Nullable Integer numTypes) {
        String name = "%s T=%d logits %s bias %s".formatted(config, tokens, kind, biasScale);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, config.numLogits());
            Cases.logits(logits, kind, config.numExperts() * 31L + config.topK());
            Tensor bias = null;
            if (biasScale != null) {
                bias = Cases.normal(arena, DType.F32, 7, config.numExperts());
                for (int e = 0; e < config.numExperts(); e++) {
                    bias.setDouble(e, biasScale * bias.getDouble(e));
                }
            }
            Tensor types = null;
            if (numTypes != null) {
                types = Tensor.allocate(arena, DType.I32, tokens);
                for (int t = 0; t < tokens; t++) {
                    types.setInt(t, numTypes < 0 ? t % 2 * numTypes : t % numTypes);
                }
            }
            RouteOracle oracle = new RouteOracle(logits, config, bias, types);
            assertThat(oracle.margin()).as("the case itself, %s", name).isGreaterThan(DECIDED);
            Routing want = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
            RouteInputs inputs = new RouteInputs(bias, types);
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
