package jmoe.cli;

import jmoe.checkpoint.MoeLayerInfo;
import jmoe.ops.Activation;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Selection;

import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;

/** A layer's configuration in words and for programs. */
final class LayerText {
    private LayerText() {}

    /** How tokens get their experts, in one sentence. */
    static String rule(MoeLayerInfo info) {
        RouterConfig router = info.config().routers().getFirst();
        StringBuilder rule = new StringBuilder(selection(router, info.selectionBias()));
        if (!(router.selection() instanceof Selection.SparseMixer)) {
            rule.append(normalisation(router.normalisation()));
        }
        if (router.factor() != 1) {
            rule.append(", times ").append(number(router.factor()));
        }
        if (router.weightOnInput()) {
            rule.append(", weights multiply the experts' input");
        }
        RouterConfig.Capacity capacity = router.capacity();
        if (capacity != null) {
            rule.append(", at most ")
                    .append(
                            Double.isNaN(capacity.tokenFraction())
                                    ? capacity.maxTokens() + " tokens"
                                    : number(100 * capacity.tokenFraction()) + "% of the tokens")
                    .append(" per expert");
        }
        return rule.toString();
    }

    private static String selection(RouterConfig router, boolean bias) {
        String score =
                router.score().name().toLowerCase(Locale.ROOT)
                        + "(logits)"
                        + (bias ? " + bias" : "");
        return switch (router.selection()) {
            case Selection.TopK t -> "top " + router.topK() + " of " + score;
            case Selection.GroupLimited g ->
                    "top "
                            + router.topK()
                            + " of "
                            + score
                            + " in the best "
                            + g.topGroups()
                            + " of "
                            + g.numGroups()
                            + " groups (by "
                            + (g.groupScore() == GroupScore.MAX ? "maximum" : "sum of top 2")
                            + ")";
            case Selection.SparseMixer m ->
                    "sparse mixer: two argmaxes, each weighted by a softmax over its rivals"
                            + " (jitter "
                            + number(m.jitter())
                            + ")";
            case Selection.ProductKeys p ->
                    "top "
                            + router.topK()
                            + " of "
                            + score
                            + " over "
                            + p.numKeys()
                            + " x "
                            + p.numKeys()
                            + " product keys";
        };
    }

    private static String normalisation(Normalisation normalisation) {
        return switch (normalisation) {
            case Normalisation.None n -> ", not renormalised";
            case Normalisation.Sum s ->
                    s.epsilon() == 0
                            ? ", renormalised"
                            : ", renormalised (sum + " + number(s.epsilon()) + ")";
            case Normalisation.ClampedSum c ->
                    ", renormalised (sum of at least " + number(c.min()) + ")";
            case Normalisation.PNorm p -> ", divided by their " + number(p.p()) + "-norm";
        };
    }

    /** What experts do between their matrix products. */
    static String activation(Activation activation) {
        return switch (activation.kind()) {
            case SWIGLU -> "SwiGLU";
            case CLAMPED_SWIGLU -> "SwiGLU clamped at " + number(activation.limit());
            case SILU -> "SiLU";
            case RELU -> "ReLU";
            case SQUARED_RELU -> "squared ReLU";
            case GELU -> "GELU";
            case GELU_TANH -> "GELU (tanh)";
            case LINEAR -> "linear";
            case GEGLU -> "GEGLU";
            case GEGLU_TANH -> "GEGLU (tanh)";
            case REGLU -> "ReGLU";
            case GLU -> "GLU";
            case BILINEAR -> "bilinear";
        };
    }

    /** All sizes in one line. */
    static String sizes(MoeConfig config) {
        StringBuilder text = new StringBuilder();
        text.append("hidden ").append(config.hidden());
        if (config.numTokenTypes() > 1) {
            text.append(", ").append(config.numTokenTypes()).append(" token types with");
        } else {
            text.append(',');
        }
        text.append(' ').append(config.numExperts()).append(" experts");
        if (config.numIdentityExperts() > 0) {
            text.append(" + ").append(config.numIdentityExperts()).append(" identity");
        }
        text.append(", top-").append(config.topK());
        text.append(", intermediate ").append(intermediates(config));
        if (config.expertHidden() != config.hidden()) {
            text.append(", latent ").append(config.expertHidden());
        }
        if (config.sharedIntermediate() > 0) {
            text.append(config.sharedGated() ? ", gated shared expert " : ", shared expert ");
            text.append(config.sharedIntermediate());
        }
        return text.toString();
    }

    /** I of each token type. */
    static String intermediates(MoeConfig config) {
        return config.intermediates().stream()
                .distinct()
                .map(String::valueOf)
                .collect(Collectors.joining("/"));
    }

    /** Everything for programs. */
    static Map<String, Object> json(MoeLayerInfo info) {
        MoeConfig config = info.config();
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("family", config.family());
        json.put("hidden", config.hidden());
        json.put("expert_hidden", config.expertHidden());
        json.put("experts", config.numExperts());
        json.put("identity_experts", config.numIdentityExperts());
        json.put("top_k", config.topK());
        json.put("intermediate", config.intermediates());
        json.put("shared_intermediate", config.sharedIntermediate());
        json.put("shared_gated", config.sharedGated());
        json.put("token_types", config.numTokenTypes());
        json.put("activation", activation(config.activation()));
        json.put("rule", rule(info));
        return json;
    }

    private static String number(double value) {
        return value == Math.rint(value) && Math.abs(value) < 1e6
                ? Long.toString((long) value)
                : Double.toString(value).replace("E", "e");
    }
}
