package jmoe.ops;

import org.jspecify.annotations.Nullable;

/**
 * How a token's logits become experts and weights. The steps of {@link Kernels#route}: score,
 * select, normalise, multiply by {@code factor}, drop or move what exceeds the capacity.
 *
 * @param numExperts E: expert ids are 0..E-1; identity experts, if any, have the highest ids
 * @param topK K: experts per token
 * @param score how a logit becomes a score
 * @param selection which experts a token gets
 * @param normalisation how the scores of the selected experts become weights
 * @param factor multiplies the weights last (routed scaling factor); finite
 * @param weightOnInput true if the weight multiplies the expert's input (Llama 4), false for its
 *     output
 * @param capacity bound on the tokens of an expert, or null
 * @param tokenType which tokens this router serves; {@link #ALL_TOKENS} for every one that is not
 *     absent
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
        int tokenType) {
    /** The {@link #tokenType} of a router that serves every token. */
    public static final int ALL_TOKENS = -1;

    /** How a logit z becomes a score. */
    public enum Score {
        /** exp(z_e) / sum_j exp(z_j) over all experts. */
        SOFTMAX,
        /** 1 / (1 + exp(-z)). */
        SIGMOID
    }

    /**
     * Which experts a token gets. Candidates are ordered by score plus selection bias; without a
     * bias by logit, which gives the same order and cannot saturate (not where groups are judged by
     * a sum of scores). Of equal candidates the lower id wins, and NaN is below every number.
     *
     * <p>NaN logits count as absent, so that a NaN is only selected where fewer than K numbers are
     * left. A softmax whose largest logit is infinite stands for its limit here: equal scores for
     * all logits at that maximum, 0 for the others. The weights of such a softmax are NaN.
     */
    public sealed interface Selection {
        /** The K best. */
        record TopK() implements Selection {}

        /**
         * The K best within the best groups of consecutive experts (DeepSeek-V2 and V3), of which
         * there are at least K: an expert of a group that is out is never selected.
         *
         * @param numGroups groups; divides E
         * @param topGroups groups that stay
         * @param groupScore how a group is judged
         */
        record GroupLimited(int numGroups, int topGroups, GroupScore groupScore)
                implements Selection {}

        /**
         * Two argmaxes; the weight of each is a softmax over the experts within {@code 2 jitter} of
         * the maximum, relative to max(|z|, maximum) (Phi-3.5-MoE). Score, normalisation and
         * selection bias do not apply, and a capacity is not possible.
         *
         * @param jitter half the relative width of the band; finite, at least 0
         */
        record SparseMixer(double jitter) implements Selection {
            /** Checks the width. */
            public SparseMixer {
                requireAtLeast0("jitter", jitter);
            }
        }

        /**
         * Expert i n + j has the logit a_i + b_j (Doge). The logits are [tokens, 2n] in memory,
         * read as [2, tokens, n] as the original does, so a token's logits depend on the number of
         * tokens. A selection bias has E entries and is added to the score of the sum.
         *
         * @param numKeys n, at least 1; E = n^2
         */
        record ProductKeys(int numKeys) implements Selection {
            /** Checks the number. */
            public ProductKeys {
                require(numKeys >= 1, "numKeys", "at least 1", numKeys);
            }
        }
    }

    /** How a group of experts is judged. */
    public enum GroupScore {
        /** By its best candidate. */
        MAX,
        /** By the sum of its two best candidates. */
        TOP2_SUM
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
         * s / max(sum s, min).
         *
         * @param min lower bound of the divisor; finite, at least 0
         */
        record ClampedSum(double min) implements Normalisation {
            /** Checks the number. */
            public ClampedSum {
                requireAtLeast0("min", min);
            }
        }

        /**
         * s / (sum s^p)^(1/p).
         *
         * @param p order of the norm; finite, above 0
         */
        record PNorm(double p) implements Normalisation {
            /** Checks the number. */
            public PNorm {
                require(p > 0 && p < Double.POSITIVE_INFINITY, "p", "a finite number above 0", p);
            }
        }
    }

    /** Checks the choices against each other. */
    public RouterConfig {
        if (numExperts < 1 || topK < 1 || topK > numExperts) {
            throw new IllegalArgumentException(
                    "topK: expected 1 to numExperts=" + numExperts + ", got " + topK);
        }
        require(Double.isFinite(factor), "factor", "a finite number", factor);
        if (capacity != null && capacity.numDevices() > 0) {
            boolean divides = numExperts % capacity.numDevices() == 0;
            String expected = "a divisor of numExperts=" + numExperts;
            require(divides, "numDevices", expected, capacity.numDevices());
        }
        switch (selection) {
            case Selection.GroupLimited g -> {
                if (g.numGroups < 1
                        || numExperts % g.numGroups != 0
                        || g.topGroups < 1
                        || g.topGroups > g.numGroups
                        || (long) numExperts / g.numGroups * g.topGroups < topK) {
                    throw new IllegalArgumentException(
                            "selection: expected numGroups dividing numExperts="
                                    + numExperts
                                    + " and topGroups holding at least topK="
                                    + topK
                                    + " experts, got "
                                    + g);
                }
            }
            case Selection.SparseMixer m -> {
                if (topK != 2) {
                    throw new IllegalArgumentException(
                            "topK: expected 2 with SparseMixer, got " + topK);
                }
                if (capacity != null) {
                    throw new IllegalArgumentException(
                            "capacity: expected none with SparseMixer, got " + capacity);
                }
            }
            case Selection.ProductKeys p -> {
                if ((long) p.numKeys * p.numKeys != numExperts) {
                    throw new IllegalArgumentException(
                            "numKeys: expected its square to be numExperts="
                                    + numExperts
                                    + ", got "
                                    + p.numKeys);
                }
            }
            case Selection.TopK t -> {}
        }
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
     * Columns of the logits.
     *
     * @return E, or 2n with product keys
     */
    public int numLogits() {
        return selection instanceof Selection.ProductKeys p ? 2 * p.numKeys : numExperts;
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
     * @return true with {@link GroupScore#TOP2_SUM}
     */
    public boolean judgesGroupsBySum() {
        return selection instanceof Selection.GroupLimited g && g.groupScore == GroupScore.TOP2_SUM;
    }
}
