package jmoe.ops;

import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;

/**
 * Which experts a token gets. Candidates are ordered by score plus selection bias, each rounded to
 * F32 as models compute them; without a bias by logit, which gives the same order and cannot
 * saturate (not where groups are judged by a sum of scores, which is rounded to F32 too). Of equal
 * candidates the lower id wins, and NaN is below every number.
 *
 * <p>NaN logits count as absent, so that a NaN is only selected where fewer than K numbers are
 * left. A softmax whose largest logit is infinite stands for its limit here: equal scores for all
 * logits at that maximum, 0 for the others. The weights of such a softmax are NaN.
 *
 * <p>A slot that is left without an expert has id -1 and weight 0.
 */
public sealed interface Selection {
    /** The K best. */
    record TopK() implements Selection {}

    /**
     * The K best experts of the best groups of consecutive experts (DeepSeek-V2 and V3). These
     * groups have at least K; experts of the others are never selected.
     *
     * @param numGroups groups; divides E
     * @param topGroups groups that stay
     * @param groupScore how a group is judged
     */
    record GroupLimited(int numGroups, int topGroups, GroupScore groupScore) implements Selection {}

    /**
     * Two argmaxes; the weight of each is a softmax over the experts within {@code 2 jitter} of the
     * maximum, relative to max(|z|, maximum) (Phi-3.5-MoE; Liu et al. 2024, "GRIN:
     * Gradient-informed MoE"). Score, normalisation and selection bias do not apply, and a capacity
     * is not possible.
     *
     * @param jitter half the relative width of the band; finite, at least 0
     */
    record SparseMixer(double jitter) implements Selection {
        /** Checks the width. */
        public SparseMixer {
            RouterConfig.requireAtLeast0("jitter", jitter);
        }
    }

    /**
     * Expert i n + j has the logit a_i + b_j (Lample et al. 2019, "Large memory layers with product
     * keys"; PEER, He 2024; Doge). The logits are [tokens, 2n] in memory, read as [2, tokens, n] as
     * Doge does, so a token's logits depend on the number of tokens. A selection bias has E entries
     * and is added to the score of the sum.
     *
     * @param numKeys n, at least 1; E = n^2
     */
    record ProductKeys(int numKeys) implements Selection {
        /** Checks the number. */
        public ProductKeys {
            RouterConfig.require(numKeys >= 1, "numKeys", "at least 1", numKeys);
        }
    }

    /**
     * The best of each group of consecutive experts: slot g holds the choice of group g (MoGE of
     * Pangu Pro MoE, Tang et al. 2025; the prototypes of M6-T, Yang et al. 2021). NaN is only
     * selected where a group has no number.
     *
     * @param numGroups groups; divides E and is K
     * @param scope what a softmax runs over
     */
    record OnePerGroup(int numGroups, Scope scope) implements Selection {}

    /**
     * The shortest run of experts, by falling candidate, whose scores sum to at least p
     * (Dynamic_MoE, Huang et al. 2024, "Harder tasks need more experts"): the expert that reaches p
     * is the last. At least {@code minExperts} and at most K, all K where the sum stays below p.
     * The scores of the run are normalised among themselves; published are softmax scores as they
     * are. NaN logits only fill up to {@code minExperts}.
     *
     * @param p what the scores sum to; finite, above 0
     * @param minExperts 1 to K
     */
    record TopP(double p, int minExperts) implements Selection {
        /** Checks the number. */
        public TopP {
            RouterConfig.requireAbove0("p", p);
        }
    }

    /**
     * The k best with {@code k = min(K, max(minExperts, ceil(alpha H - 1e-9)))}, where H, in nats,
     * is the entropy of the softmax over all logits that are numbers, whatever the score: the less
     * certain the router, the more experts. Without the 1e-9 an error of rounding could add one.
     * The form of a survey; no paper of its own is known.
     *
     * @param alpha experts per nat; finite, at least 0
     * @param minExperts 1 to K
     */
    record EntropyK(double alpha, int minExperts) implements Selection {
        /** Checks the number. */
        public EntropyK {
            RouterConfig.requireAtLeast0("alpha", alpha);
        }
    }

    /**
     * The best groups of consecutive experts, and in each of them the best experts: slot i {@code
     * perGroup} + j holds the j-th of the i-th group. The weight is the group's among groups times
     * the expert's in its group (hierarchical MoE, Shazeer 2017), both of one softmax over all
     * experts, where a group has the sum of its experts; the original has logits of their own for
     * groups. {@link Normalisation.None} leaves both as they are: the product is the softmax over
     * all experts. {@link Normalisation.Sum} with epsilon 0 divides by what was selected at each
     * level, so that all weights sum to 1. A group is judged by the sum of its candidates.
     *
     * <p>Scores are those of a softmax, and capacities do not normalise.
     *
     * @param numGroups groups; divides E
     * @param topGroups groups of a token
     * @param perGroup experts of each; topGroups times perGroup is K
     */
    record TwoLevel(int numGroups, int topGroups, int perGroup) implements Selection {}

    /**
     * By the token's id alone (Hash Layers, Roller 2021): there are no logits. With {@link
     * RouteInputs#hashTable} the experts are those of the id's row, where what is not an expert
     * leaves its slot empty, and an expert that stands there twice gets two slots; an id outside
     * the table, or a negative one, has no expert.
     *
     * <p>Without a table the k-th choice is h(id + k 0x9e3779b9) mod E, or the next expert behind
     * it, cyclically, that is not chosen yet, where h is the finaliser of MurmurHash3 in 32 bits: x
     * ^= x &gt;&gt;&gt; 16, x *= 0x85ebca6b, x ^= x &gt;&gt;&gt; 13, x *= 0xc2b2ae35, x ^= x
     * &gt;&gt;&gt; 16.
     *
     * <p>Every score is 1, so that tokens cannot queue by probability. A selection bias does not
     * apply.
     */
    record Hash() implements Selection {}

    /**
     * Each expert takes the C tokens that score best with it, {@code C = floor(capacityFactor T /
     * E)}, at least {@code minTokens} and at most T, which counts the tokens that the router serves
     * (Zhou et al. 2022, "Mixture-of-Experts with Expert Choice Routing"; with sigmoid scores MoMa,
     * Lin et al. 2024).
     *
     * <p>In Mesh TensorFlow ({@code _expert_selection_gating}) the softmax of an expert runs over
     * the tokens, C is at least 4, and a token's weights are divided by the number of its experts:
     * {@code ExpertChoice(c, 4, Scope.TOKENS)} with {@link Normalisation.Count}.
     *
     * <p>Scores of a softmax over experts are compared as F32, others by their logits; of equals
     * the earlier token is taken, a NaN never. A token's experts stand in its slots by falling
     * logit, the others have id -1 and weight 0; of more than K experts the K with the largest
     * logits stay, so that K = E loses none. A selection bias does not apply, and a capacity is not
     * possible.
     *
     * @param capacityFactor experts per token on average; finite, above 0
     * @param minTokens fewest tokens of an expert, if there are so many; at least 1
     * @param scope what a softmax runs over: {@link Scope#GLOBAL} or {@link Scope#TOKENS}
     */
    record ExpertChoice(double capacityFactor, int minTokens, Scope scope) implements Selection {
        /** Checks the numbers. */
        public ExpertChoice {
            RouterConfig.requireAbove0("capacityFactor", capacityFactor);
            RouterConfig.require(minTokens >= 1, "minTokens", "at least 1", minTokens);
            RouterConfig.require(scope != Scope.LOCAL, "scope", "GLOBAL or TOKENS", scope);
        }

        /**
         * The rule of the paper: softmax over experts, at least one token.
         *
         * @param capacityFactor as {@link #capacityFactor}
         */
        public ExpertChoice(double capacityFactor) {
            this(capacityFactor, 1, Scope.GLOBAL);
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
            return (int) Math.min(Math.max(share, minTokens), tokens);
        }
    }

    /**
     * The K best of {@code K_te d1_e}, where d0 and d1 scale all {@code d0_t K_te d1_e} to rows
     * that sum to 1/T and columns that sum to 1/E over the T tokens that the router serves. {@code
     * K_te = exp(z_te - max_e z_te)}; from d1 = 1 on,
     *
     * <pre>
     * d0_t = 1 / (T sum_e K_te d1_e)      d1_e = min(1 / (E sum_t K_te d0_t), 1e30)
     * </pre>
     *
     * until the mean of |change of d1| is below the tolerance (Clark et al. 2022, "Unified Scaling
     * Laws for Routed Language Models"; Megatron-LM, which adds 1e-8 to the sums). Sums are in
     * double, K and what is compared are rounded to F32. A NaN has K = 0. Weights are made of the
     * scores of the logits: in Megatron-LM sigmoid for K = 1, softmax for more, not normalised. A
     * selection bias does not apply, and a capacity is not possible.
     *
     * @param tolerance finite, at least 0
     * @param maxIterations of which the last counts as the end anyway; 1 to 10000
     */
    record Sinkhorn(double tolerance, int maxIterations) implements Selection {
        /** Checks the bounds. */
        public Sinkhorn {
            RouterConfig.requireAtLeast0("tolerance", tolerance);
            boolean valid = maxIterations >= 1 && maxIterations <= 10_000;
            RouterConfig.require(valid, "maxIterations", "1 to 10000", maxIterations);
        }
    }

    /**
     * One expert for each of the T tokens that the router serves, at most ceil(T / E) tokens for an
     * expert, and the sum of the logits within {@code T epsilon (max z - min z)} of the largest
     * possible (BASE layers, Lewis et al. 2021; the auction of Bertsekas and Castanon 1989, "The
     * auction algorithm for the transportation problem").
     *
     * <p>Finite logits are scaled to v = (z - min z) / (max z - min z), or 0 if all are equal;
     * -infinity and NaN count as -1, infinity as 2. All prices begin at 0. In each round every
     * token without an expert bids for the one with the largest v - price, of equals the first: so
     * much that the second best would be as good, plus epsilon. Each expert keeps its highest bids,
     * of equals those of earlier tokens; once it has all it may have, the lowest of them is its
     * price. Only bids, so the order of tokens in a round does not matter. A selection bias does
     * not apply, and a capacity is not possible.
     *
     * @param epsilon share of the spread of the logits; 1e-6 to 1, in BASE layers 0.02. Less is
     *     closer to the optimum and takes more rounds
     */
    record BalancedAssignment(double epsilon) implements Selection {
        /** Checks the share. */
        public BalancedAssignment {
            RouterConfig.require(epsilon >= 1e-6 && epsilon <= 1, "epsilon", "1e-6 to 1", epsilon);
        }
    }
}
