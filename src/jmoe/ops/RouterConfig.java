package jmoe.ops;

import org.jspecify.annotations.Nullable;

/**
 * How a token's logits become experts and weights. The steps of {@link Kernels#route}: score,
 * select, normalise, multiply by {@code factor}, drop what exceeds the capacity.
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

        /**
         * Each expert takes the C tokens that score best with it, {@code C = floor(capacityFactor T
         * / E)}, at least 1 and at most T, which counts the tokens that the router serves (Zhou et
         * al. 2022, "Mixture-of-Experts with Expert Choice Routing"; with sigmoid scores MoMa, Lin
         * et al. 2024).
         *
         * <p>Softmax scores are compared as F32, sigmoid scores by their logits; of equals the
         * earlier token is taken, a NaN never. A token's experts stand in its slots by falling
         * logit, the others have id -1 and weight 0; of more than K experts the K with the largest
         * logits stay, so that K = E loses none. A selection bias does not apply, and a capacity is
         * not possible.
         *
         * @param capacityFactor experts per token on average; finite, above 0
         */
        record ExpertChoice(double capacityFactor) implements Selection {
            /** Checks the factor. */
            public ExpertChoice {
                boolean valid = capacityFactor > 0 && capacityFactor < Double.POSITIVE_INFINITY;
                require(valid, "capacityFactor", "a finite number above 0", capacityFactor);
            }

            /**
             * How many tokens an expert takes.
             *
             * @param tokens T, that the router serves
             * @param numExperts E
             * @return C; 0 without tokens
             */
            public int tokensPerExpert(int tokens, int numExperts) {
                double share = Math.floor(capacityFactor * tokens / numExperts);
                return (int) Math.min(Math.max(share, 1), tokens);
            }
        }

        /**
         * The K best of {@code K_te d1_e}, where d0 and d1 scale all {@code d0_t K_te d1_e} to rows
         * that sum to 1/T and columns that sum to 1/E over the T tokens that the router serves.
         * {@code K_te = exp(z_te - max_e z_te)}; from d1 = 1 on,
         *
         * <pre>
         * d0_t = 1 / (T sum_e K_te d1_e)      d1_e = min(1 / (E sum_t K_te d0_t), 1e30)
         * </pre>
         *
         * until the mean of |change of d1| is below the tolerance (Clark et al. 2022, "Unified
         * Scaling Laws for Routed Language Models"; Megatron-LM, which adds 1e-8 to the sums). Sums
         * are in double, K and what is compared are rounded to F32. A NaN has K = 0. Weights are
         * made of the scores of the logits: in Megatron-LM sigmoid for K = 1, softmax for more, not
         * normalised. A selection bias does not apply, and a capacity is not possible.
         *
         * @param tolerance finite, at least 0
         * @param maxIterations of which the last counts as the end anyway; 1 to 10000
         */
        record Sinkhorn(double tolerance, int maxIterations) implements Selection {
            /** Checks the bounds. */
            public Sinkhorn {
                requireAtLeast0("tolerance", tolerance);
                boolean valid = maxIterations >= 1 && maxIterations <= 10_000;
                require(valid, "maxIterations", "1 to 10000", maxIterations);
            }
        }

        /**
         * One expert for each of the T tokens that the router serves, at most ceil(T / E) tokens
         * for an expert, and the sum of the logits within {@code T epsilon (max z - min z)} of the
         * largest possible (BASE layers, Lewis et al. 2021; the auction of Bertsekas and Castanon
         * 1989, "The auction algorithm for the transportation problem").
         *
         * <p>Finite logits are scaled to v = (z - min z) / (max z - min z), or 0 if all are equal;
         * -infinity and NaN count as -1, infinity as 2. All prices begin at 0. In each round every
         * token without an expert bids for the one with the largest v - price, of equals the first:
         * so much that the second best would be as good, plus epsilon. Each expert keeps its
         * highest bids, of equals those of earlier tokens; once it has all it may have, the lowest
         * of them is its price. Only bids, so the order of tokens in a round does not matter. A
         * selection bias does not apply, and a capacity is not possible.
         *
         * @param epsilon share of the spread of the logits; 1e-6 to 1, in BASE layers 0.02. Less is
         *     closer to the optimum and takes more rounds
         */
        record BalancedAssignment(double epsilon) implements Selection {
            /** Checks the share. */
            public BalancedAssignment {
                require(epsilon >= 1e-6 && epsilon <= 1, "epsilon", "1e-6 to 1", epsilon);
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

    /**
     * At most {@code limit(tokens)} tokens per expert. The k-th choices of all tokens queue behind
     * all earlier choices, dropped ones included; a dropped slot keeps its id and gets weight 0.
     *
     * @param maxTokens the limit, if {@code tokenFraction} is NaN; at least 0
     * @param tokenFraction the limit as a share of the tokens, rounded up; finite, at least 0, or
     *     NaN for a fixed limit. Tokens of other types count too.
     * @param byProbability true if tokens queue by falling best score (NaN first, of equals the
     *     earlier token), false if by position
     * @param normaliseAfter true if weights are normalised over the slots that are kept
     */
    public record Capacity(
            int maxTokens, double tokenFraction, boolean byProbability, boolean normaliseAfter) {
        /** Checks the limits. */
        public Capacity {
            require(maxTokens >= 0, "maxTokens", "at least 0", maxTokens);
            if (!Double.isNaN(tokenFraction)) {
                requireAtLeast0("tokenFraction", tokenFraction);
            }
        }

        /**
         * The limit for a batch.
         *
         * @param tokens tokens of the batch, of all types
         * @return tokens per expert
         */
        public long limit(long tokens) {
            return Double.isNaN(tokenFraction)
                    ? maxTokens
                    : (long) Math.ceil(tokenFraction * tokens);
        }
    }

    /** Checks the choices against each other. */
    public RouterConfig {
        if (numExperts < 1 || topK < 1 || topK > numExperts) {
            throw new IllegalArgumentException(
                    "topK: expected 1 to numExperts=" + numExperts + ", got " + topK);
        }
        require(Double.isFinite(factor), "factor", "a finite number", factor);
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
                requireNone(capacity, "SparseMixer");
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
            case Selection.ExpertChoice c -> requireNone(capacity, "ExpertChoice");
            case Selection.Sinkhorn s -> requireNone(capacity, "Sinkhorn");
            case Selection.BalancedAssignment b -> {
                if (topK != 1) {
                    throw new IllegalArgumentException(
                            "topK: expected 1 with BalancedAssignment, got " + topK);
                }
                requireNone(capacity, "BalancedAssignment");
            }
        }
    }

    private static void requireNone(@Nullable Capacity capacity, String selection) {
        if (capacity != null) {
            throw new IllegalArgumentException(
                    "capacity: expected none with " + selection + ", got " + capacity);
        }
    }

    private static void requireAtLeast0(String name, double value) {
        boolean valid = value >= 0 && value < Double.POSITIVE_INFINITY;
        require(valid, name, "a finite number of at least 0", value);
    }

    private static void require(boolean valid, String name, String expected, Object got) {
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
     * Whether the scores themselves, not only their order, decide the groups.
     *
     * @return true with {@link GroupScore#TOP2_SUM}
     */
    public boolean judgesGroupsBySum() {
        return selection instanceof Selection.GroupLimited g && g.groupScore == GroupScore.TOP2_SUM;
    }
}
