package jmoe.cli;

import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.CapacityLimit.Rounding;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.RouterConfig.Selection;
import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/**
 * The shape and the rules of a published model's MoE layer, without its numbers.
 *
 * @param name as users type it
 * @param config what the layer computes
 * @param biases which biases the layer has
 */
public record Preset(String name, MoeConfig config, Set<Bias> biases) {
    /** Where a layer adds numbers that are not products. */
    public enum Bias {
        /** To the logits. */
        ROUTER,
        /** To the scores, for the selection only. */
        SELECTION,
        /** To both products of every expert. */
        EXPERTS,
        /** To the output of the layer. */
        OUTPUT
    }

    /** What is measured if nobody says otherwise. */
    public static final String DEFAULT = "olmoe-1b-7b";

    private static final Normalisation NONE = new Normalisation.None();
    private static final Normalisation SUM = new Normalisation.Sum(0);
    private static final Normalisation GUARDED_SUM = new Normalisation.Sum(1e-20);
    private static final Normalisation ERNIE_SUM = new Normalisation.ClampedSum(1e-12);
    private static final Selection TOP = new Selection.TopK();
    private static final Activation RELU = Activation.of(Activation.Kind.RELU);
    private static final Activation GPT_OSS = Activation.clampedSwiglu(7);

    private static final List<Preset> ALL =
            List.of(
                    plain("switch-base-128", 768, 3072, limited(128, 1, NONE, 2), RELU),
                    plain("switch-large-128", 1024, 4096, limited(128, 1, NONE, 2), RELU),
                    plain("switch-c-2048", 2080, 6144, limited(2048, 1, NONE, 2), RELU),
                    plain("gshard-600b", 1024, 8192, limited(2048, 2, SUM, 2), RELU),
                    swiglu("mixtral-8x7b", 4096, 14336, 0, softmax(8, 2, SUM)),
                    swiglu("mixtral-8x22b", 6144, 16384, 0, softmax(8, 2, SUM)),
                    swiglu("deepseek-moe-16b", 2048, 1408, 2, softmax(64, 6, NONE)),
                    swiglu("deepseek-v2", 5120, 1536, 2, deepseekV2()),
                    swiglu("deepseek-v2-lite", 2048, 1408, 2, softmax(64, 6, NONE)),
                    swiglu("deepseek-v3", 7168, 2048, 1, deepseekV3(), Bias.SELECTION),
                    qwen2("qwen1.5-moe-a2.7b", 2048, 1408, 5632, softmax(60, 4, NONE)),
                    swiglu("qwen3-30b-a3b", 2048, 768, 0, softmax(128, 8, SUM)),
                    swiglu("qwen3-235b-a22b", 4096, 1536, 0, softmax(128, 8, SUM)),
                    swiglu("olmoe-1b-7b", 2048, 1024, 0, softmax(64, 8, NONE)),
                    gptOss("gpt-oss-20b", softmax(32, 4, SUM)),
                    gptOss("gpt-oss-120b", softmax(128, 4, SUM)),
                    swiglu("dbrx", 6144, 10752, 0, softmax(16, 4, new Normalisation.PNorm(1))),
                    swiglu("llama4-scout", 5120, 8192, 1, llama4(16)),
                    swiglu("llama4-maverick", 5120, 8192, 1, llama4(128)),
                    swiglu("ernie-4.5-21b-a3b", 2560, 1536, 2, ernie(6), Bias.SELECTION),
                    swiglu("ernie-4.5-300b-a47b", 8192, 3584, 0, ernie(8), Bias.SELECTION),
                    ernieVision("ernie-4.5-vl-28b", 2560, List.of(1536, 512), 2, 6),
                    ernieVision("ernie-4.5-vl-424b", 8192, List.of(3584, 1536), 0, 8),
                    swiglu("pangu-ultra-moe-718b", 7680, 2048, 1, sigmoid(256, 8, 2.5)),
                    swiglu("glm-4.5-355b", 5120, 1536, 1, sigmoid(160, 8, 2.5), Bias.SELECTION),
                    swiglu("glm-4.5-air", 4096, 1408, 1, sigmoid(128, 8, 1), Bias.SELECTION),
                    swiglu("glm-4.7", 2048, 1536, 1, sigmoid(64, 4, 1.8), Bias.SELECTION),
                    swiglu("kimi-k2", 7168, 2048, 1, sigmoid(384, 8, 2.827), Bias.SELECTION),
                    swiglu("moonlight-16b", 2048, 1408, 2, sigmoid(64, 6, 2.446), Bias.SELECTION),
                    swiglu("minimax-m1", 6144, 9216, 0, softmax(32, 2, SUM)),
                    swiglu("minimax-m2", 3072, 1536, 0, sigmoid(256, 8, 1), Bias.SELECTION),
                    swiglu("phi-3.5-moe", 4096, 6400, 0, sparseMixer()),
                    swiglu("jetmoe-8b", 2048, 5632, 0, softmax(8, 2, SUM), Bias.OUTPUT),
                    swiglu("granite-3.0-1b-a400m", 1024, 512, 0, softmax(32, 8, SUM)),
                    swiglu("granite-3.0-3b-a800m", 1536, 512, 0, softmax(40, 8, SUM)));

    /** Copies the set. */
    public Preset {
        biases = Set.copyOf(biases);
    }

    /**
     * Every preset.
     *
     * @return in the order of the published list
     */
    public static List<Preset> all() {
        return ALL;
    }

    /**
     * Finds a preset.
     *
     * @param name as in {@link #name}
     * @return the preset
     * @throws IllegalArgumentException if there is none of this name
     */
    public static Preset of(String name) {
        for (Preset preset : ALL) {
            if (preset.name.equals(name)) {
                return preset;
            }
        }
        throw new IllegalArgumentException(
                "--preset: expected all or a name that jmoe bench --help lists, got " + name);
    }

    private static Preset swiglu(
            String name,
            int hidden,
            int intermediate,
            int sharedExperts,
            RouterConfig router,
            Bias... biases) {
        MoeConfig config =
                config(
                        name,
                        hidden,
                        List.of(intermediate),
                        sharedExperts * intermediate,
                        false,
                        List.of(router),
                        Activation.SWIGLU);
        return new Preset(name, config, Set.of(biases));
    }

    private static Preset plain(
            String name, int hidden, int intermediate, RouterConfig router, Activation activation) {
        List<RouterConfig> routers = List.of(router);
        List<Integer> widths = List.of(intermediate);
        return new Preset(
                name, config(name, hidden, widths, 0, false, routers, activation), Set.of());
    }

    private static Preset qwen2(
            String name, int hidden, int intermediate, int shared, RouterConfig router) {
        List<RouterConfig> routers = List.of(router);
        List<Integer> widths = List.of(intermediate);
        return new Preset(
                name,
                config(name, hidden, widths, shared, true, routers, Activation.SWIGLU),
                Set.of());
    }

    private static Preset gptOss(String name, RouterConfig router) {
        List<Integer> widths = List.of(2880);
        return new Preset(
                name,
                config(name, 2880, widths, 0, false, List.of(router), GPT_OSS),
                Set.of(Bias.ROUTER, Bias.EXPERTS));
    }

    private static Preset ernieVision(
            String name, int hidden, List<Integer> widths, int sharedExperts, int topK) {
        List<RouterConfig> routers =
                List.of(
                        router(Score.SOFTMAX, 64, topK, TOP, ERNIE_SUM, 1, null, 0),
                        router(Score.SOFTMAX, 64, topK, TOP, ERNIE_SUM, 1, null, 1));
        int shared = sharedExperts * widths.getFirst();
        return new Preset(
                name,
                config(name, hidden, widths, shared, false, routers, Activation.SWIGLU),
                Set.of(Bias.SELECTION));
    }

    private static MoeConfig config(
            String name,
            int hidden,
            List<Integer> intermediates,
            int sharedIntermediate,
            boolean sharedGated,
            List<RouterConfig> routers,
            Activation activation) {
        return new MoeConfig(
                name,
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

    private static RouterConfig softmax(int numExperts, int topK, Normalisation normalisation) {
        return router(Score.SOFTMAX, numExperts, topK, TOP, normalisation, 1, null, ALL_TOKENS);
    }

    /**
     * Each expert takes {@code factor} times its fair share of the tokens, as in Mesh TensorFlow.
     */
    private static RouterConfig limited(
            int numExperts, int topK, Normalisation normalisation, double factor) {
        Capacity capacity =
                new Capacity(
                        new CapacityLimit.Factor(factor, Rounding.MESH), Priority.POSITION, false);
        return router(Score.SOFTMAX, numExperts, topK, TOP, normalisation, 1, capacity, ALL_TOKENS);
    }

    private static RouterConfig sigmoid(int numExperts, int topK, double factor) {
        return router(Score.SIGMOID, numExperts, topK, TOP, GUARDED_SUM, factor, null, ALL_TOKENS);
    }

    private static RouterConfig deepseekV2() {
        Selection groups = new Selection.GroupLimited(8, 3, GroupScore.MAX);
        return router(Score.SOFTMAX, 160, 6, groups, NONE, 16, null, ALL_TOKENS);
    }

    private static RouterConfig deepseekV3() {
        Selection groups = new Selection.GroupLimited(8, 4, GroupScore.TOP2_SUM);
        return router(Score.SIGMOID, 256, 8, groups, GUARDED_SUM, 2.5, null, ALL_TOKENS);
    }

    private static RouterConfig llama4(int numExperts) {
        return new RouterConfig(numExperts, 1, Score.SIGMOID, TOP, NONE, 1, true, null, ALL_TOKENS);
    }

    private static RouterConfig ernie(int topK) {
        return softmax(64, topK, ERNIE_SUM);
    }

    private static RouterConfig sparseMixer() {
        Selection mixer = new Selection.SparseMixer(0.01);
        return router(Score.SOFTMAX, 16, 2, mixer, NONE, 1, null, ALL_TOKENS);
    }

    private static final int ALL_TOKENS = RouterConfig.ALL_TOKENS;

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

    /**
     * Bytes of all weight matrices.
     *
     * @param type of experts and routers
     * @return without biases
     */
    public long weightBytes(DType type) {
        long hidden = config.hidden();
        int matrices = config.activation().gated() ? 3 : 2;
        long elements = (long) matrices * config.sharedIntermediate() * hidden;
        for (int intermediate : config.intermediates()) {
            elements += (long) matrices * config.numExperts() * intermediate * hidden;
        }
        long routers = (long) config.numTokenTypes() * config.numExperts() * hidden;
        return type.numBytes(elements + routers);
    }

    /**
     * The same layer with half as many experts.
     *
     * @return null if its rule needs as many as there are
     */
    public @Nullable Preset halved() {
        int experts = config.numExperts() / 2;
        if (experts < config.topK()) {
            return null;
        }
        List<RouterConfig> routers = new ArrayList<>();
        for (RouterConfig router : config.routers()) {
            if (router.selection() instanceof Selection.GroupLimited groups
                    && (experts % groups.numGroups() != 0
                            || experts / groups.numGroups() * groups.topGroups() < config.topK())) {
                return null;
            }
            routers.add(
                    new RouterConfig(
                            experts,
                            router.topK(),
                            router.score(),
                            router.selection(),
                            router.normalisation(),
                            router.factor(),
                            router.weightOnInput(),
                            router.capacity(),
                            router.tokenType()));
        }
        return new Preset(
                name,
                config(
                        name,
                        config.hidden(),
                        config.intermediates(),
                        config.sharedIntermediate(),
                        config.sharedGated(),
                        routers,
                        config.activation()),
                biases);
    }
}
