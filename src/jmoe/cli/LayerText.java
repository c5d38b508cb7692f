package jmoe.cli;

import jmoe.checkpoint.MoeLayerInfo;
import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.CapacityLimit;
import jmoe.ops.InputTransform;
import jmoe.ops.LogitTransform;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.Selection;
import jmoe.ops.SizeClass;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** A layer's configuration in words and for programs. */
final class LayerText {
    private LayerText() {}

    /** How tokens get their experts, in one sentence. */
    static String rule(MoeLayerInfo info) {
        return rule(info.config(), info.selectionBias());
    }

    /** The same for a layer of which only the configuration is known. */
    static String rule(MoeConfig config, boolean selectionBias) {
        RouterConfig router = config.routers().getFirst();
        StringBuilder rule = new StringBuilder(selection(router, selectionBias));
        if (!(router.selection() instanceof Selection.SparseMixer)) {
            rule.append(normalisation(router.normalisation()));
        }
        if (router.factor() != 1) {
            rule.append(", times ").append(number(router.factor()));
        }
        if (router.weightOnInput()) {
            rule.append(", weights multiply the experts' input");
        }
        for (InputTransform transform : router.inputTransforms()) {
            rule.append(input(transform));
        }
        Capacity capacity = router.capacity();
        if (capacity != null) {
            rule.append(", at most ")
                    .append(limit(capacity.limit()))
                    .append(capacity.numDevices() == 0 ? " per expert" : " per device");
        }
        return rule.toString();
    }

    private static String input(InputTransform transform) {
        return switch (transform) {
            case InputTransform.Jitter j -> ", router input times 1 +- " + number(j.epsilon());
            case InputTransform.Cosine c -> ", logits are cosines of tokens and experts";
        };
    }

    private static String limit(CapacityLimit limit) {
        return switch (limit) {
            case CapacityLimit.Tokens fixed -> fixed.maxSlots() + " tokens";
            case CapacityLimit.Fraction share ->
                    number(100 * share.tokenFraction()) + "% of the tokens";
            case CapacityLimit.Factor factor ->
                    number(factor.capacityFactor())
                            + (factor.rounding().countsSlots()
                                    ? " times an even load ("
                                    : " times tokens / experts (")
                            + factor.rounding().name().toLowerCase(Locale.ROOT)
                            + ")";
            case CapacityLimit.Grown grown ->
                    number(grown.growth()) + " times " + limit(grown.limit());
        };
    }

    private static String selection(RouterConfig router, boolean bias) {
        String score = score(router) + (bias ? " + bias" : "");
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
                            + judged(router, g.groupScore())
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
            case Selection.OnePerGroup o ->
                    "the best of each of "
                            + o.numGroups()
                            + " groups by "
                            + score
                            + (o.scope() == Scope.LOCAL ? " of the group" : "");
            case Selection.TopP p ->
                    "the top of "
                            + score
                            + " up to a sum of "
                            + number(p.p())
                            + ", "
                            + p.minExperts()
                            + " to "
                            + router.topK();
            case Selection.EntropyK e ->
                    "top "
                            + number(e.alpha())
                            + " x entropy of "
                            + score
                            + ", "
                            + e.minExperts()
                            + " to "
                            + router.topK();
            case Selection.TwoLevel t ->
                    "top "
                            + t.perGroup()
                            + " of "
                            + score
                            + " in each of the best "
                            + t.topGroups()
                            + " of "
                            + t.numGroups()
                            + " groups (by sum)";
            case Selection.Hash h -> router.topK() + " by a hash of the token's id";
            case Selection.ExpertChoice c ->
                    "each expert takes its "
                            + number(c.capacityFactor())
                            + " x tokens / experts "
                            + (c.minTokens() > 1 ? "(at least " + c.minTokens() + ") " : "")
                            + "best by "
                            + score
                            + (c.scope() == RouterConfig.Scope.TOKENS ? " over tokens" : "");
            case Selection.Sinkhorn s ->
                    "top "
                            + router.topK()
                            + " after balancing by Sinkhorn (tolerance "
                            + number(s.tolerance())
                            + "), weighted by "
                            + score;
            case Selection.BalancedAssignment b ->
                    "balanced assignment by auction (epsilon "
                            + number(b.epsilon())
                            + "), weighted by "
                            + score;
        };
    }

    private static String score(RouterConfig router) {
        String logits = "logits";
        for (LogitTransform transform : router.logitTransforms()) {
            logits = shaped(transform, logits.equals("logits") ? logits : "(" + logits + ")");
        }
        return switch (router.score()) {
            case SOFTMAX -> "softmax(" + logits + ")";
            case SIGMOID -> "sigmoid(" + logits + ")";
            case SQRT_SOFTPLUS -> "sqrt(softplus(" + logits + "))";
            case NONE -> logits;
        };
    }

    private static String shaped(LogitTransform transform, String logits) {
        return switch (transform) {
            case LogitTransform.Temperature t -> logits + " / " + number(t.tau());
            case LogitTransform.Standardise s ->
                    (s.lambda() == 1 ? "" : number(s.lambda()) + " ") + "standardised " + logits;
            case LogitTransform.Cap c -> logits + " capped at " + number(c.limit());
            case LogitTransform.FixedNoise n -> logits + " + noise of " + number(n.deviation());
            case LogitTransform.LearnedNoise n -> logits + " + learned noise";
            case LogitTransform.GumbelNoise n ->
                    logits + " + Gumbel noise of " + number(n.factor());
        };
    }

    private static String judged(RouterConfig router, GroupScore score) {
        return score == GroupScore.MAX ? "maximum" : "sum of top " + router.judgedPerGroup();
    }

    private static String normalisation(Normalisation normalisation) {
        return switch (normalisation) {
            case Normalisation.None n -> ", not renormalised";
            case Normalisation.Sum s ->
                    s.epsilon() == 0
                            ? ", renormalised"
                            : ", renormalised (sum + " + number(s.epsilon()) + ")";
            case Normalisation.ClampedSum c ->
                    ", renormalised (sum of at least " + number(c.minSum()) + ")";
            case Normalisation.PNorm p -> ", divided by their " + number(p.p()) + "-norm";
            case Normalisation.Count n -> ", divided by the number of the token's experts";
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
        if (config.numNullExperts() > 0) {
            text.append(" + ").append(config.numNullExperts()).append(" null");
        }
        if (config.numConstantExperts() > 0) {
            text.append(" + ").append(config.numConstantExperts()).append(" constant");
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

    /** I of each token type, or, where experts differ in size, of each size. */
    static String intermediates(MoeConfig config) {
        return IntStream.range(0, config.numTokenTypes())
                .mapToObj(config::sizeClasses)
                .flatMap(List::stream)
                .map(SizeClass::intermediate)
                .distinct()
                .map(String::valueOf)
                .collect(Collectors.joining("/"));
    }

    /** Everything for programs. */
    static Map<String, Object> json(MoeLayerInfo info) {
        return json(info.config(), info.selectionBias());
    }

    /** The same for a layer of which only the configuration is known. */
    static Map<String, Object> json(MoeConfig config, boolean selectionBias) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("family", config.family());
        json.put("hidden", config.hidden());
        json.put("expert_hidden", config.expertHidden());
        json.put("experts", config.numExperts());
        json.put("identity_experts", config.numIdentityExperts());
        json.put("null_experts", config.numNullExperts());
        json.put("constant_experts", config.numConstantExperts());
        json.put("top_k", config.topK());
        json.put("intermediate", config.intermediates());
        if (config.mixesSizes()) {
            json.put(
                    "expert_intermediates",
                    config.sizeClasses().stream().map(LayerText::sizes).toList());
        }
        json.put("shared_intermediate", config.sharedIntermediate());
        json.put("shared_gated", config.sharedGated());
        json.put("token_types", config.numTokenTypes());
        json.put("activation", activation(config.activation()));
        json.put("rule", rule(config, selectionBias));
        return json;
    }

    /** I of every expert. */
    private static List<Integer> sizes(List<SizeClass> classes) {
        return classes.stream()
                .flatMap(size ->
                        Collections.nCopies(size.numExperts(), size.intermediate()).stream())
                .toList();
    }

    /** Whole numbers without a point, others as short as they are exact. */
    static String number(double value) {
        return value == Math.rint(value) && Math.abs(value) < 1e6
                ? Long.toString((long) value)
                : Double.toString(value).replace("E", "e");
    }
}
