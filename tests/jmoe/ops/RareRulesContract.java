package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** The rules of few models on numbers small enough to be worked out by hand. */
interface RareRulesContract extends Contract {
    /** Logits of a softmax whose shares are these over their sum. */
    private static double[] logs(double... shares) {
        double[] z = new double[shares.length];
        for (int e = 0; e < z.length; e++) {
            z[e] = Math.log(shares[e]);
        }
        return z;
    }

    private static RouterConfig rule(
            int experts,
            int topK,
            Selection selection,
            boolean renormalise,
            @Nullable Capacity capacity) {
        return new RouterConfig(
                experts,
                topK,
                Score.SOFTMAX,
                selection,
                renormalise ? new Normalisation.Sum(0) : new Normalisation.None(),
                1,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    @Test
    default void route_onePerGroup_comesInTheOrderOfTheGroups() {
        double[] z = logs(1, 2, 4, 1, 1, 1);
        Selection global = new Selection.OnePerGroup(3, Scope.GLOBAL);
        assertRouted(rule(6, 3, global, false, null), z, ids(1, 2, 4), 0.2, 0.4, 0.1);
        Selection local = new Selection.OnePerGroup(3, Scope.LOCAL);
        assertRouted(rule(6, 3, local, false, null), z, ids(1, 2, 4), 2 / 3.0, 0.8, 0.5);
    }

    /** A NaN spoils the softmax that it is in, and is only chosen where there is nothing else. */
    @Test
    default void route_onePerGroup_confinesNanToItsSoftmax() {
        double nan = Double.NaN;
        double[] z = {nan, 0, 3, 3, nan, nan, 1 / 0.0, 0};
        Selection local = new Selection.OnePerGroup(4, Scope.LOCAL);
        assertRouted(rule(8, 4, local, false, null), z, ids(1, 2, 4, 6), nan, 0.5, nan, nan);
        Selection global = new Selection.OnePerGroup(4, Scope.GLOBAL);
        assertRouted(rule(8, 4, global, false, null), z, ids(1, 2, 4, 6), nan, nan, nan, nan);
    }

    @Test
    default void route_judgesGroupsByTheirShareOfK() {
        // Sums of the best two, and of all three: the first group wins, then the second.
        double[] z = logs(8, 1, 1, 4, 4, 4);
        Selection two = new Selection.GroupLimited(2, 1, GroupScore.TOP2_SUM);
        assertThat(routedIds(rule(6, 3, two, false, null), z)).containsExactly(0, 1, 2);
        Selection share = new Selection.GroupLimited(2, 1, GroupScore.TOP_SHARE_SUM);
        assertThat(routedIds(rule(6, 3, share, false, null), z)).containsExactly(3, 4, 5);
        assertThat(routedIds(rule(6, 2, share, false, null), z)).containsExactly(0, 1);
    }

    /** The expert that reaches p is the last; what comes after has neither id nor weight. */
    @Test
    default void route_topP_takesTheShortestRun() {
        double[] z = logs(1, 4, 1, 2);
        Selection p = new Selection.TopP(0.6, 1);
        assertRouted(rule(4, 4, p, false, null), z, ids(1, 3, -1, -1), 0.5, 0.25, 0, 0);
        assertRouted(rule(4, 4, p, true, null), z, ids(1, 3, -1, -1), 2 / 3.0, 1 / 3.0, 0, 0);
        Selection first = new Selection.TopP(0.01, 1);
        assertRouted(rule(4, 2, first, false, null), z, ids(1, -1), 0.5, 0);
        Selection all = new Selection.TopP(5, 1);
        assertRouted(rule(4, 3, all, false, null), z, ids(1, 3, 0), 0.5, 0.25, 0.125);
        // Four equal shares are 1/4 to the last bit: two of them reach one half.
        Selection half = new Selection.TopP(0.5, 1);
        double[] equal = {7, 7, 7, 7};
        assertRouted(rule(4, 4, half, false, null), equal, ids(0, 1, -1, -1), 0.25, 0.25, 0, 0);
    }

    @Test
    default void route_topP_takesNanForTheLeastNumberOnly() {
        double nan = Double.NaN;
        double[] z = {nan, 2, nan, nan};
        Selection one = new Selection.TopP(5, 1);
        assertRouted(rule(4, 4, one, true, null), z, ids(1, -1, -1, -1), 1, 0, 0, 0);
        Selection two = new Selection.TopP(5, 2);
        assertRouted(rule(4, 4, two, true, null), z, ids(1, 0, -1, -1), nan, nan, 0, 0);
        assertRouted(rule(4, 4, one, false, null), z, ids(1, -1, -1, -1), nan, 0, 0, 0);
    }

    @Test
    default void route_entropyK_growsWithTheUncertainty() {
        // log 4 nats; log 1; and what an infinite logit leaves of it.
        Selection rule = new Selection.EntropyK(1.5, 1);
        RouterConfig config = rule(4, 4, rule, true, null);
        double third = 1 / 3.0;
        assertRouted(config, new double[4], ids(0, 1, 2, -1), third, third, third, 0);
        double none = Double.NEGATIVE_INFINITY;
        assertRouted(config, new double[] {none, none, 5, none}, ids(2, -1, -1, -1), 1, 0, 0, 0);
        double nan = Double.NaN;
        double[] infinite = {1 / 0.0, 1, nan, 1 / 0.0};
        assertRouted(config, infinite, ids(0, 3, -1, -1), nan, nan, 0, 0);
        // log 4 in bits is 2, whatever the sum is rounded to.
        RouterConfig bits = rule(4, 4, new Selection.EntropyK(1 / Math.log(2), 1), true, null);
        assertRouted(bits, new double[4], ids(0, 1, -1, -1), 0.5, 0.5, 0, 0);
        RouterConfig least = rule(4, 3, new Selection.EntropyK(0, 2), true, null);
        assertRouted(least, new double[4], ids(0, 1, -1), 0.5, 0.5, 0);
    }

    @Test
    default void route_twoLevel_weighsGroupsAndTheirExperts() {
        // Groups of 5, 2 and 3: the best expert is in the second of the two that are kept.
        double[] z = logs(2, 2, 1, 1, 1, 0.1, 0, 3, 0);
        z[5] = Double.NEGATIVE_INFINITY;
        Selection two = new Selection.TwoLevel(3, 2, 2);
        double whole = 10;
        assertRouted(
                rule(9, 4, two, false, null),
                z,
                ids(0, 1, 7, 6),
                2 / whole,
                2 / whole,
                3 / whole,
                0);
        assertRouted(
                rule(9, 4, two, true, null),
                z,
                ids(0, 1, 7, 6),
                5 / 8.0 * 0.5,
                5 / 8.0 * 0.5,
                3 / 8.0,
                0);
    }

    @Test
    default void route_withInactiveExperts_behavesAsIfTheyWereNotThere() {
        double nan = Double.NaN;
        double[] z = logs(4, 1, 2, 1);
        z[0] = nan;
        try (Arena arena = Arena.ofConfined()) {
            RouteInputs inputs = RouteInputs.NONE.withActiveExperts(flags(arena, 0, 1, 1, 1));
            RouterConfig best = rule(4, 2, new Selection.TopK(), false, null);
            assertRouted(best, inputs, z, ids(2, 1), 0.5, 0.25);
            RouteInputs one = RouteInputs.NONE.withActiveExperts(flags(arena, 0, 0, 0, -1));
            assertRouted(best, one, z, ids(3, -1), 1, 0);
            Selection groups = new Selection.OnePerGroup(2, Scope.LOCAL);
            assertRouted(rule(4, 2, groups, false, null), one, z, ids(-1, 3), 0, 1);
            Selection levels = new Selection.TwoLevel(2, 2, 1);
            assertRouted(rule(4, 2, levels, true, null), one, z, ids(3, -1), 1, 0);
            RouteInputs none = RouteInputs.NONE.withActiveExperts(flags(arena, 0, 0, 0, 0));
            assertRouted(best, none, z, ids(-1, -1), 0, 0);
        }
    }

    /** Behind the factor and the sum; what a capacity drops stays 0, and a NaN one NaN. */
    @Test
    default void route_scalesWeightsOfExpertsLast() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor scale = Tensor.allocate(arena, DType.F32, 3);
            for (int e = 0; e < 3; e++) {
                scale.setDouble(e, new double[] {-2, 10, 0.5}[e]);
            }
            RouteInputs inputs = RouteInputs.NONE.withExpertScale(scale);
            RouterConfig sum = rule(3, 2, new Selection.TopK(), true, null);
            assertRouted(sum, inputs, logs(1, 3, 0.1), ids(1, 0), 7.5, -0.5);
            RouterConfig mixer = rule(3, 2, new Selection.SparseMixer(0), false, null);
            assertRouted(mixer, inputs, new double[] {5, 4, 3}, ids(0, 1), -2, 10);
            RouterConfig keys = rule(4, 1, new Selection.ProductKeys(2), true, null);
            Tensor four = Tensor.allocate(arena, DType.F32, 4);
            four.setDouble(2, 3);
            RouteInputs ofKeys = RouteInputs.NONE.withExpertScale(four);
            assertRouted(keys, ofKeys, new double[] {0, 1, 1, 0}, ids(2), 3);
            Capacity nobody =
                    new Capacity(new CapacityLimit.Tokens(0), Capacity.Priority.POSITION, false);
            RouterConfig dropped = rule(3, 2, new Selection.TopK(), true, nobody);
            Routing routing = routed(arena, dropped, inputs, logs(1, 3, 0.1));
            assertThat(routing.topkWeights().getDouble(0)).isZero();
            assertThat(routing.topkIds().getInt(0)).isEqualTo(1);
        }
    }

    /** The second token is absent, the second expert inactive, and its scale nobody's. */
    @Test
    default void route_scalesWhatAbsencesLeave() {
        double[] z = new double[16];
        System.arraycopy(logs(2, 9, 1, 1), 0, z, 0, 4);
        System.arraycopy(logs(1, 2, 3, 4), 0, z, 4, 4);
        System.arraycopy(logs(1, 50, 1, 6), 0, z, 8, 4);
        System.arraycopy(logs(1, Double.NaN, 4, 3), 0, z, 12, 4);
        Capacity one = new Capacity(new CapacityLimit.Tokens(1), Capacity.Priority.POSITION, false);
        Selection best = new Selection.TopK();
        Selection groups = new Selection.OnePerGroup(2, Scope.GLOBAL);
        Selection p = new Selection.TopP(0.6, 1);
        int[] ofBest = ids(0, 2, -1, -1, 3, 0, 2, 3);
        int[] ofGroups = ids(0, 2, -1, -1, 0, 3, 0, 2);
        int[] ofP = ids(0, 2, -1, -1, 3, -1, 2, 3);
        try (Arena arena = Arena.ofConfined()) {
            Tensor scale = Tensor.allocate(arena, DType.F32, 4);
            for (int e = 0; e < 4; e++) {
                scale.setDouble(e, new double[] {2, Double.NaN, -1, 0}[e]);
            }
            RouteInputs inputs =
                    new RouteInputs(null, flags(arena, 0, -1, 2, 0))
                            .withActiveExperts(flags(arena, 1, 0, 1, 1))
                            .withExpertScale(scale);
            RouterConfig plain = rule(4, 2, best, false, null);
            assertRouted(plain, inputs, z, ofBest, 1, -0.25, 0, 0, 0, 0.25, -0.5, 0);
            RouterConfig bounded = rule(4, 2, best, false, one);
            assertRouted(bounded, inputs, z, ofBest, 1, 0, 0, 0, 0, 0, -0.5, 0);
            RouterConfig perGroup = rule(4, 2, groups, false, null);
            assertRouted(perGroup, inputs, z, ofGroups, 1, -0.25, 0, 0, 0.25, 0, 0.25, -0.5);
            RouterConfig run = rule(4, 2, p, false, null);
            assertRouted(run, inputs, z, ofP, 1, -0.25, 0, 0, 0, 0, -0.5, 0);
        }
    }

    /** Empty slots neither queue nor get a weight, whatever is divided by. */
    @Test
    default void route_boundsRulesWithEmptySlots() {
        double[] z = new double[12];
        System.arraycopy(logs(8, 1, 1), 0, z, 0, 3);
        System.arraycopy(logs(7, 2, 1), 0, z, 3, 3);
        System.arraycopy(logs(6, 3, 1), 0, z, 6, 3);
        System.arraycopy(logs(1, 1, 8), 0, z, 9, 3);
        Selection p = new Selection.TopP(0.75, 1);
        Capacity two = new Capacity(new CapacityLimit.Tokens(2), Capacity.Priority.POSITION, true);
        assertBatch(
                rule(3, 2, p, true, two),
                z,
                ids(0, -1, 0, 1, 0, 1, 2, -1),
                1,
                0,
                7 / 9.0,
                2 / 9.0,
                0,
                1,
                1,
                0);
        // By falling best score the third token is last again, and the fourth before the second.
        Capacity ranked =
                new Capacity(new CapacityLimit.Tokens(1), Capacity.Priority.PROBABILITY, false);
        assertBatch(
                rule(3, 2, p, false, ranked),
                z,
                ids(0, -1, 0, 1, 0, 1, 2, -1),
                0.8,
                0,
                0,
                0.2,
                0,
                0,
                0.8,
                0);
    }

    /** The best score of prototypes is the best of all their softmaxes. */
    @Test
    default void route_ranksTokensByTheirBestPrototype() {
        double[] z = new double[8];
        System.arraycopy(logs(6, 4, 5, 5), 0, z, 0, 4);
        System.arraycopy(logs(5, 5, 1, 9), 0, z, 4, 4);
        Selection local = new Selection.OnePerGroup(2, Scope.LOCAL);
        Capacity one =
                new Capacity(new CapacityLimit.Tokens(1), Capacity.Priority.PROBABILITY, false);
        assertBatch(rule(4, 2, local, false, one), z, ids(0, 2, 0, 3), 0, 0.5, 0.5, 0.9);
    }

    private void assertRouted(RouterConfig config, double[] z, int[] ids, double... weights) {
        assertRouted(config, RouteInputs.NONE, z, ids, weights);
    }

    private void assertBatch(RouterConfig config, double[] z, int[] ids, double... weights) {
        assertRouted(config, RouteInputs.NONE, z, ids, weights);
    }

    private void assertRouted(
            RouterConfig config, RouteInputs inputs, double[] z, int[] ids, double... weights) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = routed(arena, config, inputs, z);
            List<Integer> got = new ArrayList<>();
            for (int slot = 0; slot < ids.length; slot++) {
                got.add(routing.topkIds().getInt(slot));
            }
            assertThat(got).as(config.toString()).containsExactly(box(ids));
            Tensor want = Tensor.allocate(arena, DType.F64, weights.length);
            for (int slot = 0; slot < weights.length; slot++) {
                want.setDouble(slot, weights[slot]);
            }
            Tensor flat = routing.topkWeights().reshape(weights.length);
            Tolerance.assertClose("route", config.toString(), flat, want, config.numExperts());
        }
    }

    private List<Integer> routedIds(RouterConfig config, double[] z) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = routed(arena, config, RouteInputs.NONE, z);
            List<Integer> ids = new ArrayList<>();
            for (int k = 0; k < config.topK(); k++) {
                ids.add(routing.topkIds().getInt(k));
            }
            return ids;
        }
    }

    private Routing routed(Arena arena, RouterConfig config, RouteInputs inputs, double[] z) {
        int tokens = z.length / config.numLogits();
        Tensor logits = Tensor.allocate(arena, DType.F32, tokens, config.numLogits());
        for (int i = 0; i < z.length; i++) {
            logits.setDouble(i, z[i]);
        }
        Routing routing = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
        backend().route(logits, config, inputs, routing);
        return routing;
    }

    private static Tensor flags(Arena arena, int... values) {
        Tensor tensor = Tensor.allocate(arena, DType.I32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setInt(i, values[i]);
        }
        return tensor;
    }

    private static int[] ids(int... ids) {
        return ids;
    }

    private static Integer[] box(int[] ids) {
        Integer[] boxed = new Integer[ids.length];
        for (int i = 0; i < ids.length; i++) {
            boxed[i] = ids[i];
        }
        return boxed;
    }
}
