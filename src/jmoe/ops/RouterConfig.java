package jmoe.ops;

import org.jspecify.annotations.Nullable;

import java.util.List;

/**
 * How a token's logits become experts and weights. They are shaped first, by {@link
 * Kernels#shapeLogits}; the steps of {@link Kernels#route} are: score, select, normalise, multiply
 * by {@code factor}, drop or move what exceeds the capacity (with {@link Capacity#normaliseAfter}
 * it is normalised and multiplied only then), multiply by {@link RouteInputs#expertScale}. What the
 * logits are made of may be transformed too, by {@link Kernels#router}.
 *
 * @param numExperts E: expert ids are 0..E-1, those of experts without weights included, if any
 * @param topK K: experts per token
 * @param score how a logit becomes a score
 * @param selection which experts a token gets
 * @param normalisation how the scores of the selected experts become weights
 * @param factor multiplies the normalised weights (routed scaling factor); finite
 * @param weightOnInput true if the weight multiplies the expert's input (Llama 4), false for its
 *     output
 * @param capacity bound on the tokens of an expert, or null
 * @param tokenType which tokens this router serves; {@link #ALL_TOKENS} for every one that is not
 *     absent
 * @param logitTransforms what happens to the logits first, in this order: at most {@link
 *     #MAX_TRANSFORMS}, none with product keys or a hash
 * @param inputTransforms what happens to a token before the router multiplies it: at most an {@link
 *     InputTransform.Jitter} and then an {@link InputTransform.Cosine}
 */
public record RouterConfig(
        int numExperts,
        int topK,
        Score score,
        Selection selection,
        Normalisation normalisation,
        double factor,
        boolean weightOnInput,
        @Nullable Capacity capacity,
        int tokenType,
        List<LogitTransform> logitTransforms,
        List<InputTransform> inputTransforms) {
    /** The {@link #tokenType} of a router that serves every token. */
    public static final int ALL_TOKENS = -1;

    /** The most transforms of logits that a rule may have. */
    public static final int MAX_TRANSFORMS = 8;

    /**
     * A rule that reads the logits as they are.
     *
     * @param numExperts as {@link #numExperts}
     * @param topK as {@link #topK}
     * @param score as {@link #score}
     * @param selection as {@link #selection}
     * @param normalisation as {@link #normalisation}
     * @param factor as {@link #factor}
     * @param weightOnInput as {@link #weightOnInput}
     * @param capacity as {@link #capacity}
     * @param tokenType as {@link #tokenType}
     */
    public RouterConfig(
            int numExperts,
            int topK,
            Score score,
            Selection selection,
            Normalisation normalisation,
            double factor,
            boolean weightOnInput,
            @Nullable Capacity capacity,
            int tokenType) {
        this(
                numExperts,
                topK,
                score,
                selection,
                normalisation,
                factor,
                weightOnInput,
                capacity,
                tokenType,
                List.of());
    }

    /**
     * A rule for tokens as they are.
     *
     * @param numExperts as {@link #numExperts}
     * @param topK as {@link #topK}
     * @param score as {@link #score}
     * @param selection as {@link #selection}
     * @param normalisation as {@link #normalisation}
     * @param factor as {@link #factor}
     * @param weightOnInput as {@link #weightOnInput}
     * @param capacity as {@link #capacity}
     * @param tokenType as {@link #tokenType}
     * @param logitTransforms as {@link #logitTransforms}
     */
    public RouterConfig(
            int numExperts,
            int topK,
            Score score,
            Selection selection,
            Normalisation normalisation,
            double factor,
            boolean weightOnInput,
            @Nullable Capacity capacity,
            int tokenType,
            List<LogitTransform> logitTransforms) {
        this(
                numExperts,
                topK,
                score,
                selection,
                normalisation,
                factor,
                weightOnInput,
                capacity,
                tokenType,
                logitTransforms,
                List.of());
    }

    /** How a logit z becomes a score. */
    public enum Score {
        /** exp(z_e) / sum_j exp(z_j) over all experts. */
        SOFTMAX,
        /** 1 / (1 + exp(-z)). */
        SIGMOID,
        /** sqrt(log(1 + exp(z))) (DeepSeek-V4). */
        SQRT_SOFTPLUS,
        /** The logit itself. */
        NONE
    }

    /** What a softmax runs over. */
    public enum Scope {
        /** All experts. */
        GLOBAL,
        /** The experts of a group; for softmax scores only. */
        LOCAL,
        /**
         * The tokens that are served, for each expert; for {@link Selection.ExpertChoice} with
         * softmax scores only.
         */
        TOKENS
    }

    /** How a group of experts is judged. */
    public enum GroupScore {
        /** By its best candidate. */
        MAX,
        /** By the sum of its two best candidates. */
        TOP2_SUM,
        /**
         * By the sum of its floor(K / topGroups) best candidates, at least one (Megatron's {@code
         * group_limited_topk}).
         */
        TOP_SHARE_SUM
    }

    /** How the scores s of the K selected experts become weights. */
    public sealed interface Normalisation {
        /** The scores themselves. */
        record None() implements Normalisation {}

        /**
         * s / (sum s + epsilon). With softmax scores and epsilon 0 this is the softmax over the
         * selected logits.
         *
         * @param epsilon added to the sum; finite, at least 0
         */
        record Sum(double epsilon) implements Normalisation {
            /** Checks the number. */
            public Sum {
                requireAtLeast0("epsilon", epsilon);
            }
        }

        /**
         * s / max(sum s, minSum) (ERNIE 4.5).
         *
         * @param minSum lower bound of the divisor; finite, at least 0
         */
        record ClampedSum(double minSum) implements Normalisation {
            /** Checks the number. */
            public ClampedSum {
                requireAtLeast0("minSum", minSum);
            }
        }

        /**
         * s / (sum s^p)^(1/p) (DBRX).
         *
         * @param p order of the norm; finite, above 0
         */
        record PNorm(double p) implements Normalisation {
            /** Checks the number. */
            public PNorm {
                requireAbove0("p", p);
            }
        }

        /**
         * s / n, where n is the number of the token's experts; for {@link Selection.ExpertChoice},
         * whose tokens have different ones (Mesh TensorFlow, {@code
         * normalize_by_num_experts_routed}).
         */
        record Count() implements Normalisation {}
    }

    /** Checks the choices against each other. */
    public RouterConfig {
        if (numExperts < 1 || topK < 1 || topK > numExperts) {
            throw new IllegalArgumentException(
                    "topK: expected 1 to numExperts=" + numExperts + ", got " + topK);
        }
        require(Double.isFinite(factor), "factor", "a finite number", factor);
        SelectionChecks.require(numExperts, topK, score, selection, normalisation, capacity);
        logitTransforms = List.copyOf(logitTransforms);
        TransformChecks.logits(logitTransforms, selection);
        inputTransforms = List.copyOf(inputTransforms);
        TransformChecks.inputs(inputTransforms, selection);
    }

    static void requireAbove0(String name, double value) {
        boolean valid = value > 0 && value < Double.POSITIVE_INFINITY;
        require(valid, name, "a finite number above 0", value);
    }

    static void requireAtLeast0(String name, double value) {
        boolean valid = value >= 0 && value < Double.POSITIVE_INFINITY;
        require(valid, name, "a finite number of at least 0", value);
    }

    static void require(boolean valid, String name, String expected, Object got) {
        if (!valid) {
            throw new IllegalArgumentException(name + ": expected " + expected + ", got " + got);
        }
    }

    /**
     * The common rule: softmax over all experts, the K best, optionally renormalised.
     *
     * @param numExperts E
     * @param topK K
     * @param renormalise whether the K weights sum to 1
     * @return the rule
     */
    public static RouterConfig softmaxTopK(int numExperts, int topK, boolean renormalise) {
        return new RouterConfig(
                numExperts,
                topK,
                Score.SOFTMAX,
                new Selection.TopK(),
                renormalise ? new Normalisation.Sum(0) : new Normalisation.None(),
                1,
                false,
                null,
                ALL_TOKENS);
    }

    /**
     * This rule with other transforms of the logits.
     *
     * @param transforms as {@link #logitTransforms}
     * @return a copy
     */
    public RouterConfig withLogitTransforms(List<LogitTransform> transforms) {
        return new RouterConfig(
                numExperts,
                topK,
                score,
                selection,
                normalisation,
                factor,
                weightOnInput,
                capacity,
                tokenType,
                transforms,
                inputTransforms);
    }

    /**
     * This rule with other transforms of the input.
     *
     * @param transforms as {@link #inputTransforms}
     * @return a copy
     */
    public RouterConfig withInputTransforms(List<InputTransform> transforms) {
        return new RouterConfig(
                numExperts,
                topK,
                score,
                selection,
                normalisation,
                factor,
                weightOnInput,
                capacity,
                tokenType,
                logitTransforms,
                transforms);
    }

    /**
     * Whether a second linear layer says how much noise the logits get.
     *
     * @return true with {@link LogitTransform.LearnedNoise}
     */
    public boolean learnsNoise() {
        for (LogitTransform transform : logitTransforms) {
            if (transform instanceof LogitTransform.LearnedNoise) {
                return true;
            }
        }
        return false;
    }

    /**
     * Columns of the logits.
     *
     * @return E, 2n with product keys, or 0 with a hash
     */
    public int numLogits() {
        return switch (selection) {
            case Selection.ProductKeys p -> 2 * p.numKeys();
            case Selection.Hash h -> 0;
            default -> numExperts;
        };
    }

    /**
     * Whether the experts of a token depend on the logits of the other tokens that are served.
     *
     * @return true with {@link Selection.ExpertChoice}, {@link Selection.Sinkhorn} and {@link
     *     Selection.BalancedAssignment}
     */
    public boolean choosesByBatch() {
        return selection instanceof Selection.ExpertChoice
                || selection instanceof Selection.Sinkhorn
                || selection instanceof Selection.BalancedAssignment;
    }

    /**
     * Whether this router serves the tokens of a type.
     *
     * @param type negative for a token that is absent, which nobody serves
     * @return whether such tokens are routed
     */
    public boolean serves(int type) {
        return type >= 0 && (tokenType == ALL_TOKENS || tokenType == type);
    }

    /**
     * Whether the scores themselves, not only their order, decide the groups.
     *
     * @return true where groups are judged by a sum
     */
    public boolean judgesGroupsBySum() {
        return selection instanceof Selection.TwoLevel
                || (selection instanceof Selection.GroupLimited g
                        && g.groupScore() != GroupScore.MAX);
    }

    /**
     * How many of its best candidates a group is judged by.
     *
     * @return 0 where groups are not limited
     */
    public int judgedPerGroup() {
        if (!(selection instanceof Selection.GroupLimited limited)) {
            return 0;
        }
        int wanted =
                switch (limited.groupScore()) {
                    case MAX -> 1;
                    case TOP2_SUM -> 2;
                    case TOP_SHARE_SUM -> topK / limited.topGroups();
                };
        return Math.min(wanted, numExperts / limited.numGroups());
    }

    /**
     * Whether the weights are a softmax over the selected logits alone, which no logit that is not
     * selected can make NaN.
     *
     * @return true for softmax scores over all experts that are divided by their plain sum
     */
    public boolean isSoftmaxOfSelected() {
        return score == Score.SOFTMAX
                && normalisation instanceof Normalisation.Sum sum
                && sum.epsilon == 0
                && !(selection instanceof Selection.Hash)
                && !(selection instanceof Selection.TwoLevel)
                && (!(selection instanceof Selection.ExpertChoice c) || c.scope() == Scope.GLOBAL)
                && (!(selection instanceof Selection.OnePerGroup o) || o.scope() == Scope.GLOBAL);
    }
}
