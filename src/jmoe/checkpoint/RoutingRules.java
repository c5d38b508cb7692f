package jmoe.checkpoint;

import jmoe.checkpoint.ExpertNames.Layer;
import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;

import java.util.List;

/**
 * What each model family's MoE block computes, from its config.json. Where a key may be missing,
 * the value is the one that transformers assumes.
 */
final class RoutingRules {
    /** Spellings of the number of routed experts. */
    static final String[] NUM_EXPERTS = {
        "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"
    };

    /** Spellings of the number of experts per token. */
    static final String[] TOP_K = {"num_experts_per_tok", "moe_topk", "moe_k", "moe_top_k"};

    /** Spellings of the width of the layer. */
    static final String[] HIDDEN = {"hidden_size", "d_model"};

    private static final String[] ACTIVATION = {
        "hidden_act", "mlp_hidden_act", "activation_function", "dense_act_fn", "feed_forward_proj"
    };
    private static final String[] GROUPS = {"n_group", "num_expert_group"};
    private static final String MOE_WIDTH = "moe_intermediate_size";
    private static final String WIDTH = "intermediate_size";

    private static final Normalisation NONE = new Normalisation.None();
    private static final Normalisation SUM = new Normalisation.Sum(0);
    private static final Selection TOP = new Selection.TopK();

    /** The rule of deepseek_v3 and its kin. */
    private static final Normalisation GUARDED_SUM = new Normalisation.Sum(1e-20);

    private final ModelConfig config;
    private final Layer layer;

    private RoutingRules(ModelConfig config, Layer layer) {
        this.config = config;
        this.layer = layer;
    }

    /**
     * What a layer computes.
     *
     * @throws CheckpointException if a key is missing or its value is impossible or unsupported
     */
    static MoeConfig of(ModelConfig config, Layer layer) {
        RoutingRules rules = new RoutingRules(config, layer);
        try {
            return rules.block(config.family().name());
        } catch (IllegalArgumentException e) {
            throw config.conflict(e.getMessage());
        } catch (ArithmeticException e) {
            throw config.conflict("the sizes of the experts exceed 2^31 - 1");
        }
    }

    private MoeConfig block(String family) {
        return switch (family) {
            case "mixtral", "minimax", "granitemoe", "jetmoe" ->
                    swiglu(softmax(true), size(WIDTH), 0);
            case "jamba" -> swiglu(softmax(false), size(WIDTH), 0);
            case "olmoe", "flex_olmo" -> swiglu(softmax(normalised(false)), size(WIDTH), 0);
            case "qwen3_moe" -> swiglu(softmax(normalised(false)), size(MOE_WIDTH), 0);
            case "qwen2_moe" -> sharedGated(softmax(normalised(false)));
            case "qwen3_next" -> sharedGated(softmax(normalised(true)));
            case "qwen3_5_moe" -> sharedGated(softmax(true));
            case "hunyuan_v1_moe" -> hunyuan();
            case "dbrx" -> dbrx();
            case "aria" ->
                    alwaysSwiglu(
                            softmax(true), size(WIDTH), shared("moe_num_shared_experts", WIDTH));
            case "llama4" -> llama4();
            case "gpt_oss" -> gptOss();
            case "phimoe" -> phimoe();
            case "deepseek_v2" -> deepseekV2();
            case "deepseek_v3" ->
                    swiglu(grouped(8, 4, true, 2.5), size(MOE_WIDTH), deepseekShared());
            case "glm4_moe" -> swiglu(grouped(1, 1, true, 1), size(MOE_WIDTH), deepseekShared());
            case "dots1" -> swiglu(grouped(1, 1, false, 1), size(MOE_WIDTH), deepseekShared());
            case "nemotron_h" -> nemotron();
            case "minimax_m2" -> swiglu(router(Score.SIGMOID, TOP, SUM, 1), size(WIDTH), 0);
            case "afmoe" ->
                    swiglu(
                            router(Score.SIGMOID, TOP, GUARDED_SUM, factor("route_scale", 1)),
                            size(MOE_WIDTH),
                            shared("num_shared_experts", MOE_WIDTH));
            case "lfm2_moe" ->
                    alwaysSwiglu(
                            router(
                                    Score.SIGMOID,
                                    TOP,
                                    normalised(true) ? new Normalisation.Sum(1e-6) : NONE,
                                    scalingFactor(1)),
                            size(MOE_WIDTH),
                            0);
            case "ernie4_5_moe" ->
                    swiglu(
                            ernieRouter(RouterConfig.ALL_TOKENS),
                            size(MOE_WIDTH),
                            shared("moe_num_shared_experts", MOE_WIDTH));
            case "ernie4_5_vl_moe" -> ernieVision();
            case "longcat_flash" -> longcat();
            case "switch_transformers" -> switchTransformers();
            case "nllb_moe" -> nllb();
            case "doge" -> doge();
            default -> throw new IllegalStateException("family without a rule: " + family);
        };
    }

    private MoeConfig hunyuan() {
        int width = config.positiveAt(layer.number(), MOE_WIDTH, WIDTH);
        boolean shared = config.flag("use_mixed_mlp_moe", true);
        int numShared = config.countAt(layer.number(), 1, "num_shared_expert");
        return swiglu(softmax(true), width, shared ? Math.multiplyExact(numShared, width) : 0);
    }

    private MoeConfig dbrx() {
        ModelConfig ffn = config.child("ffn_config");
        Activation activation =
                ffn.has("ffn_act_fn")
                        ? ActivationNames.gated(ffn.child("ffn_act_fn"), "name")
                        : Activation.SWIGLU;
        String norm = "moe_normalize_expert_weights";
        double p = ffn.mentions(norm) && !ffn.has(norm) ? 0 : ffn.number(0, 1, norm);
        RouterConfig router =
                new RoutingRules(ffn, layer)
                        .router(Score.SOFTMAX, TOP, p == 0 ? NONE : new Normalisation.PNorm(p), 1);
        return of(router, activation, ffn.positive("ffn_hidden_size"), 0, false, 1);
    }

    private MoeConfig llama4() {
        int numExperts = numExperts();
        RouterConfig router =
                new RouterConfig(
                        numExperts,
                        topK(numExperts),
                        Score.SIGMOID,
                        TOP,
                        NONE,
                        1,
                        true,
                        null,
                        RouterConfig.ALL_TOKENS);
        return swiglu(router, size(WIDTH), size(WIDTH));
    }

    private MoeConfig gptOss() {
        config.word(List.of("silu"), "silu", ACTIVATION);
        float limit = (float) config.number(Float.MIN_NORMAL, 7, "swiglu_limit");
        return of(softmax(true), Activation.clampedSwiglu(limit), size(WIDTH), 0, false, 1);
    }

    private MoeConfig phimoe() {
        Selection selection =
                new Selection.SparseMixer(config.number(0, 0.01, "router_jitter_noise"));
        return swiglu(router(Score.SOFTMAX, selection, NONE, 1), size(WIDTH), 0);
    }

    private MoeConfig deepseekV2() {
        String method =
                config.word(List.of("greedy", "group_limited_greedy"), "greedy", "topk_method");
        Selection selection =
                method.equals("greedy") ? TOP : groups(numExperts(), 1, 1, GroupScore.MAX);
        return swiglu(
                router(Score.SOFTMAX, selection, NONE, scalingFactor(1)),
                size(MOE_WIDTH),
                deepseekShared());
    }

    private MoeConfig nemotron() {
        int shared =
                config.countAt(0, 1, "n_shared_experts") == 0
                        ? 0
                        : size("moe_shared_expert_intermediate_size");
        MoeConfig plain =
                of(
                        grouped(1, 1, true, 1),
                        ActivationNames.plain(config, "relu2", "mlp_hidden_act"),
                        size(MOE_WIDTH),
                        shared,
                        false,
                        1);
        return config.has("moe_latent_size")
                ? new MoeConfig(
                        plain.family(),
                        plain.hidden(),
                        config.positive("moe_latent_size"),
                        plain.numExperts(),
                        0,
                        plain.activation(),
                        plain.routers(),
                        plain.intermediates(),
                        plain.sharedIntermediate(),
                        false,
                        1)
                : plain;
    }

    private MoeConfig ernieVision() {
        int hidden = config.positive(HIDDEN);
        int text = config.positiveAt(0, MOE_WIDTH);
        int vision = config.positiveAt(1, MOE_WIDTH);
        if (config.positiveAt(0, NUM_EXPERTS) != numExperts(1)) {
            throw config.conflict(
                    config.names(NUM_EXPERTS)
                            + ": expected as many text as vision experts, got "
                            + config.positiveAt(0, NUM_EXPERTS)
                            + " and "
                            + numExperts(1));
        }
        int shared = config.countAt(0, 0, "moe_num_shared_experts");
        return new MoeConfig(
                config.family().name(),
                hidden,
                hidden,
                numExperts(1),
                0,
                gated(),
                List.of(ernieRouter(0), ernieRouter(1)),
                List.of(text, vision),
                Math.multiplyExact(shared, text),
                false,
                1);
    }

    private RouterConfig ernieRouter(int tokenType) {
        int numExperts = numExperts(Math.max(0, tokenType));
        return new RouterConfig(
                numExperts,
                topK(numExperts),
                Score.SOFTMAX,
                TOP,
                new Normalisation.ClampedSum(config.number(0, 1e-12, "moe_norm_min")),
                1,
                false,
                null,
                tokenType);
    }

    private MoeConfig longcat() {
        int hidden = config.positive(HIDDEN);
        int numExperts = numExperts();
        int identity = config.countAt(0, 0, "zero_expert_num");
        int all = Math.addExact(numExperts, identity);
        RouterConfig router =
                new RouterConfig(
                        all,
                        topK(all),
                        Score.SOFTMAX,
                        TOP,
                        NONE,
                        scalingFactor(6),
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        return new MoeConfig(
                config.family().name(),
                hidden,
                hidden,
                numExperts,
                identity,
                gated(),
                List.of(router),
                List.of(config.positive("expert_ffn_hidden_size", MOE_WIDTH)),
                0,
                false,
                1);
    }

    private MoeConfig switchTransformers() {
        int maxTokens = config.has("expert_capacity") ? config.positive("expert_capacity") : 64;
        RouterConfig router =
                new RouterConfig(
                        numExperts(),
                        1,
                        Score.SOFTMAX,
                        TOP,
                        NONE,
                        1,
                        false,
                        new Capacity(new CapacityLimit.Tokens(maxTokens), Priority.POSITION, false),
                        RouterConfig.ALL_TOKENS);
        return of(router, plain(), size("d_ff"), 0, false, 1);
    }

    private MoeConfig nllb() {
        config.word(List.of("all"), "all", "second_expert_policy");
        double fraction = config.number(0, 1, "moe_eval_capacity_token_fraction");
        boolean byProbability = config.flag("batch_prioritized_routing", false);
        boolean before = config.flag("normalize_router_prob_before_dropping", false);
        CapacityLimit limit =
                fraction > 0
                        ? new CapacityLimit.Fraction(fraction)
                        : new CapacityLimit.Tokens(config.positive("expert_capacity"));
        Priority priority = byProbability ? Priority.PROBABILITY : Priority.POSITION;
        Capacity capacity = new Capacity(limit, priority, !before);
        int numExperts = numExperts();
        if (numExperts < 2) {
            throw config.conflict(
                    config.names(NUM_EXPERTS) + ": expected at least 2, got " + numExperts);
        }
        RouterConfig router =
                new RouterConfig(
                        numExperts,
                        2,
                        Score.SOFTMAX,
                        TOP,
                        SUM,
                        1,
                        false,
                        capacity,
                        RouterConfig.ALL_TOKENS);
        double dropout = config.number(0, 0.2, "moe_token_dropout");
        int width = size(layer.decoder() ? "decoder_ffn_dim" : "encoder_ffn_dim");
        return of(router, plain(), width, 0, false, 1 - dropout);
    }

    private MoeConfig doge() {
        checkSilu();
        int numExperts = numExperts();
        int numKeys = (int) Math.sqrt(numExperts);
        if (numKeys * numKeys != numExperts) {
            throw config.conflict(
                    config.names(NUM_EXPERTS) + ": expected a square number, got " + numExperts);
        }
        return of(
                router(Score.SOFTMAX, new Selection.ProductKeys(numKeys), SUM, 1),
                Activation.of(Activation.Kind.SILU),
                1,
                size(WIDTH),
                false,
                1);
    }

    private RouterConfig softmax(boolean renormalised) {
        return router(Score.SOFTMAX, TOP, renormalised ? SUM : NONE, 1);
    }

    /** Sigmoid scores, groups by the sum of their two best, with the defaults of a family. */
    private RouterConfig grouped(
            int missingGroups, int missingTop, boolean missingNormalised, double missingFactor) {
        Selection selection = groups(numExperts(), missingGroups, missingTop, GroupScore.TOP2_SUM);
        return router(
                Score.SIGMOID,
                selection,
                normalised(missingNormalised) ? GUARDED_SUM : NONE,
                scalingFactor(missingFactor));
    }

    private Selection groups(int numExperts, int missingGroups, int missingTop, GroupScore score) {
        int numGroups = config.has(GROUPS[0]) ? config.positive(GROUPS) : missingGroups;
        int topGroups = config.has("topk_group") ? config.positive("topk_group") : missingTop;
        if (numExperts % numGroups != 0) {
            throw config.conflict(
                    config.names(GROUPS)
                            + ": expected a divisor of the "
                            + numExperts
                            + " experts, got "
                            + numGroups);
        }
        if (topGroups > numGroups) {
            throw config.conflict(
                    config.names("topk_group")
                            + ": expected at most n_group="
                            + numGroups
                            + ", got "
                            + topGroups);
        }
        return numGroups == 1 ? TOP : new Selection.GroupLimited(numGroups, topGroups, score);
    }

    private RouterConfig router(
            Score score, Selection selection, Normalisation normalisation, double factor) {
        int numExperts = numExperts();
        return new RouterConfig(
                numExperts,
                topK(numExperts),
                score,
                selection,
                normalisation,
                factor,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    private MoeConfig sharedGated(RouterConfig router) {
        return of(
                router, gated(), size(MOE_WIDTH), size("shared_expert_intermediate_size"), true, 1);
    }

    /** Or what else the configuration names. */
    private MoeConfig swiglu(RouterConfig router, int intermediate, int sharedIntermediate) {
        return of(router, gated(), intermediate, sharedIntermediate, false, 1);
    }

    /** Of families whose code does not ask the configuration. */
    private MoeConfig alwaysSwiglu(RouterConfig router, int intermediate, int sharedIntermediate) {
        checkSilu();
        return swiglu(router, intermediate, sharedIntermediate);
    }

    private MoeConfig of(
            RouterConfig router,
            Activation activation,
            int intermediate,
            int sharedIntermediate,
            boolean sharedGated,
            double outputFactor) {
        int hidden = config.positive(HIDDEN);
        return new MoeConfig(
                config.family().name(),
                hidden,
                hidden,
                router.numExperts(),
                0,
                activation,
                List.of(router),
                List.of(intermediate),
                sharedIntermediate,
                sharedGated,
                outputFactor);
    }

    private int numExperts() {
        return numExperts(layer.number());
    }

    private int numExperts(int index) {
        return config.positiveAt(index, NUM_EXPERTS);
    }

    private int topK(int numExperts) {
        int topK = config.positiveAt(layer.number(), TOP_K);
        if (topK > numExperts) {
            throw config.conflict(
                    config.names(TOP_K)
                            + ": expected at most the "
                            + numExperts
                            + " experts, got "
                            + topK);
        }
        return topK;
    }

    private int size(String key) {
        return config.positive(key);
    }

    /** Several shared experts are stored as one that is as wide as all of them. */
    private int shared(String countKey, String widthKey) {
        int count = config.countAt(0, 0, countKey);
        return count == 0 ? 0 : Math.multiplyExact(count, size(widthKey));
    }

    private int deepseekShared() {
        return shared("n_shared_experts", MOE_WIDTH);
    }

    private boolean normalised(boolean missing) {
        return config.flag("norm_topk_prob", missing);
    }

    private double scalingFactor(double missing) {
        return factor("routed_scaling_factor", missing);
    }

    private double factor(String key, double missing) {
        return config.number(-Double.MAX_VALUE, missing, key);
    }

    private Activation gated() {
        return ActivationNames.gated(config, ACTIVATION);
    }

    private Activation plain() {
        return ActivationNames.plain(config, "relu", ACTIVATION);
    }

    private void checkSilu() {
        config.word(List.of("silu", "swish"), "silu", ACTIVATION);
    }
}
