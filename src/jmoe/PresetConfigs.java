package jmoe;

import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.CapacityLimit.Rounding;
import jmoe.ops.LogitTransform;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;

import org.jspecify.annotations.Nullable;

import java.util.List;

/** Layers and rules as the rows of {@link PresetTable} and the other tables write them. */
final class PresetConfigs {
    private static final Normalisation GUARDED_SUM = new Normalisation.Sum(1e-20);
    static final Normalisation NONE = new Normalisation.None();
    static final Normalisation SUM = new Normalisation.Sum(0);
    static final Normalisation ERNIE_SUM = new Normalisation.ClampedSum(1e-12);
    static final Selection TOP = new Selection.TopK();
    static final int ALL_TOKENS = RouterConfig.ALL_TOKENS;

    private PresetConfigs() {}

    static MoeConfig swiglu(
            String family, int hidden, int intermediate, int sharedExperts, RouterConfig router) {
        int shared = sharedExperts * intermediate;
        return layer(family, hidden, intermediate, shared, router, Activation.SWIGLU);
    }

    /** Without a shared expert. */
    static MoeConfig plain(
            String family,
            Activation.Kind kind,
            int hidden,
            int intermediate,
            RouterConfig router) {
        return layer(family, hidden, intermediate, 0, router, Activation.of(kind));
    }

    static MoeConfig relu(String family, int hidden, int intermediate, RouterConfig router) {
        return plain(family, Activation.Kind.RELU, hidden, intermediate, router);
    }

    static MoeConfig gptOss(int numExperts) {
        RouterConfig router = softmax(numExperts, 4, SUM);
        return layer("gpt_oss", 2880, 2880, 0, router, Activation.clampedSwiglu(7));
    }

    private static MoeConfig layer(
            String family,
            int hidden,
            int intermediate,
            int shared,
            RouterConfig router,
            Activation activation) {
        return config(
                family, hidden, activation, List.of(router), List.of(intermediate), shared, false);
    }

    static MoeConfig gatedShared(
            String family, int hidden, int intermediate, int shared, RouterConfig router) {
        List<Integer> widths = List.of(intermediate);
        return config(family, hidden, Activation.SWIGLU, List.of(router), widths, shared, true);
    }

    static MoeConfig ernieVision(int hidden, List<Integer> widths, int sharedExperts, int topK) {
        List<RouterConfig> routers =
                List.of(
                        router(Score.SOFTMAX, 64, topK, TOP, ERNIE_SUM, 1, null, 0),
                        router(Score.SOFTMAX, 64, topK, TOP, ERNIE_SUM, 1, null, 1));
        int shared = sharedExperts * widths.getFirst();
        return config("ernie4_5_vl_moe", hidden, Activation.SWIGLU, routers, widths, shared, false);
    }

    private static MoeConfig config(
            String family,
            int hidden,
            Activation activation,
            List<RouterConfig> routers,
            List<Integer> intermediates,
            int sharedIntermediate,
            boolean sharedGated) {
        return new MoeConfig(
                family,
                hidden,
                hidden,
                routers.getFirst().numExperts(),
                0,
                activation,
                routers,
                intermediates,
                sharedIntermediate,
                sharedGated,
                1);
    }

    static RouterConfig softmax(int numExperts, int topK, Normalisation normalisation) {
        return router(Score.SOFTMAX, numExperts, topK, TOP, normalisation, 1, null, ALL_TOKENS);
    }

    /** Each expert takes {@code factor} times its fair share of the tokens. */
    static RouterConfig limited(
            int numExperts, int topK, Normalisation normalisation, double factor) {
        CapacityLimit limit = new CapacityLimit.Factor(factor, Rounding.MESH);
        return limited(numExperts, topK, normalisation, limit);
    }

    /** The same with another rounding. */
    static RouterConfig limited(
            int numExperts, int topK, Normalisation normalisation, CapacityLimit limit) {
        Capacity capacity = new Capacity(limit, Priority.POSITION, false);
        return router(Score.SOFTMAX, numExperts, topK, TOP, normalisation, 1, capacity, ALL_TOKENS);
    }

    /** At least two tokens instead of four: Switch-XXL and Switch-C. */
    static CapacityLimit atLeastTwo(double factor) {
        return new CapacityLimit.Factor(factor, Rounding.MESH, 2, 1);
    }

    static RouterConfig sigmoid(int numExperts, int topK, double factor) {
        return router(Score.SIGMOID, numExperts, topK, TOP, GUARDED_SUM, factor, null, ALL_TOKENS);
    }

    static RouterConfig deepseekV2() {
        Selection groups = new Selection.GroupLimited(8, 3, GroupScore.MAX);
        return router(Score.SOFTMAX, 160, 6, groups, NONE, 16, null, ALL_TOKENS);
    }

    static RouterConfig deepseekV3() {
        Selection groups = new Selection.GroupLimited(8, 4, GroupScore.TOP2_SUM);
        return router(Score.SIGMOID, 256, 8, groups, GUARDED_SUM, 2.5, null, ALL_TOKENS);
    }

    static RouterConfig llama4(int numExperts) {
        return new RouterConfig(numExperts, 1, Score.SIGMOID, TOP, NONE, 1, true, null, ALL_TOKENS);
    }

    static RouterConfig sparseMixer() {
        Selection mixer = new Selection.SparseMixer(0.01);
        return router(Score.SOFTMAX, 16, 2, mixer, NONE, 1, null, ALL_TOKENS);
    }

    /** The best of each of eight groups, by a softmax over all. */
    static RouterConfig panguPro() {
        Selection groups = new Selection.OnePerGroup(8, Scope.GLOBAL);
        return router(Score.SOFTMAX, 64, 8, groups, NONE, 1, null, ALL_TOKENS);
    }

    /** Noise of V-MoE has the standard deviation 1 / E. */
    static RouterConfig vmoe(int numExperts, int topK) {
        CapacityLimit limit = new CapacityLimit.Factor(1.05, Rounding.VMOE);
        return limited(numExperts, topK, NONE, limit)
                .withLogitTransforms(List.of(new LogitTransform.FixedNoise(0, 1.0 / numExperts)));
    }

    /** Each head of PEER. */
    static RouterConfig productKeys(int numKeys, int topK) {
        Selection keys = new Selection.ProductKeys(numKeys);
        return router(Score.SOFTMAX, numKeys * numKeys, topK, keys, SUM, 1, null, ALL_TOKENS);
    }

    /** Text and images, each with experts that choose as many tokens as there are in all. */
    static MoeConfig moma(int hidden, int intermediate, int numExperts) {
        Selection choice = new Selection.ExpertChoice(1);
        List<RouterConfig> routers =
                List.of(
                        router(Score.SIGMOID, numExperts, numExperts, choice, NONE, 1, null, 0),
                        router(Score.SIGMOID, numExperts, numExperts, choice, NONE, 1, null, 1));
        List<Integer> widths = List.of(intermediate, intermediate);
        return config("moma", hidden, Activation.SWIGLU, routers, widths, 0, false);
    }

    private static RouterConfig router(
            Score score,
            int numExperts,
            int topK,
            Selection selection,
            Normalisation normalisation,
            double factor,
            @Nullable Capacity capacity,
            int tokenType) {
        return new RouterConfig(
                numExperts,
                topK,
                score,
                selection,
                normalisation,
                factor,
                false,
                capacity,
                tokenType);
    }
}
