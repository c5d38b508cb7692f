package jmoe.train;

import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * What a router was given and what it decided: all that losses and statistics are computed from.
 * Tensors are on the host. Tokens that the router does not serve, padding among them, count
 * nowhere; a batch without any other has losses of 0.
 *
 * @param logits F32 [tokens, numExperts], from which the experts were selected: with noise, if the
 *     router adds any, and -infinity for experts that were not active
 * @param config the rule; neither product keys nor a hash
 * @param routing {@code topkIds} and {@code topkWeights} of the batch, from {@link
 *     jmoe.ops.Kernels#route}; the other tensors are not read
 * @param tokenTypes I32 [tokens], as the router got them, or null
 * @param sequenceOffsets I32 [numSequences + 1], first token of each sequence, then the number of
 *     tokens; or null if the batch is one sequence
 * @param noise what the logits are without noise, or null; {@link RouterLoss.LoadVariation} needs
 *     it
 */
public record RouterBatch(
        Tensor logits,
        RouterConfig config,
        Routing routing,
        @Nullable Tensor tokenTypes,
        @Nullable Tensor sequenceOffsets,
        @Nullable Noise noise) {
    /**
     * Which slots of a batch are counted. Those that a full expert passed on count where they went.
     */
    public enum Counted {
        /** All, as if nothing was dropped. */
        ALL,
        /** The first of each token; not with {@link Selection.OnePerGroup}, which has no first. */
        FIRST,
        /** Those that a capacity has not dropped: without one all, else whose weight is not 0. */
        KEPT
    }

    /**
     * Normal noise that was added to logits.
     *
     * @param cleanLogits F32 [tokens, numExperts], without it
     * @param deviations F32 [tokens, numExperts], standard deviations, above 0
     */
    public record Noise(Tensor cleanLogits, Tensor deviations) {}

    /** Keeps the distribution of scores that are all 0 from being NaN. */
    private static final double GUARD = 1e-20;

    /** Checks types and shapes against each other. */
    public RouterBatch {
        if (config.selection() instanceof Selection.ProductKeys
                || config.selection() instanceof Selection.Hash) {
            throw new IllegalArgumentException(
                    "config: expected a logit for each expert, got " + config.selection());
        }
        int numExperts = config.numExperts();
        long tokens = routing.tokens();
        checkLogits("logits", logits, tokens, numExperts);
        if (routing.topK() != config.topK() || routing.numExperts() > numExperts) {
            throw new IllegalArgumentException(
                    "routing: expected topK="
                            + config.topK()
                            + " and at most numExperts="
                            + numExperts
                            + ", got "
                            + routing.topK()
                            + " and "
                            + routing.numExperts());
        }
        Check.host("topkIds", routing.topkIds());
        Check.host("topkWeights", routing.topkWeights());
        if (tokenTypes != null) {
            Check.vector("tokenTypes", tokenTypes, DType.I32, "tokens", tokens);
            Check.host("tokenTypes", tokenTypes);
        }
        if (sequenceOffsets != null) {
            checkOffsets(sequenceOffsets, tokens);
        }
        if (noise != null) {
            checkLogits("cleanLogits", noise.cleanLogits, tokens, numExperts);
            checkLogits("deviations", noise.deviations, tokens, numExperts);
        }
    }

    /**
     * A batch of one sequence without noise, every token of which is routed.
     *
     * @param logits as above
     * @param config as above
     * @param routing as above
     */
    public RouterBatch(Tensor logits, RouterConfig config, Routing routing) {
        this(logits, config, routing, null, null, null);
    }

    private static void checkLogits(String name, Tensor tensor, long tokens, int numExperts) {
        Check.matrix(name, tensor, DType.F32, "tokens", tokens, "numExperts", numExperts);
        Check.host(name, tensor);
    }

    private static void checkOffsets(Tensor offsets, long tokens) {
        if (offsets.dtype() != DType.I32 || offsets.rank() != 1 || offsets.dim(0) < 1) {
            throw Check.mismatch("sequenceOffsets", "I32 [numSequences + 1]", offsets);
        }
        Check.host("sequenceOffsets", offsets);
        long last = offsets.dim(0) - 1;
        for (long i = 0; i <= last; i++) {
            int previous = i == 0 ? 0 : offsets.getInt(i - 1);
            int offset = offsets.getInt(i);
            boolean ends = i == last ? offset == tokens : offset <= tokens;
            boolean begins = i == 0 ? offset == 0 : offset >= previous;
            if (!begins || !ends) {
                throw new IllegalArgumentException(
                        "sequenceOffsets: expected to rise from 0 to tokens="
                                + tokens
                                + ", got "
                                + offset
                                + " at "
                                + i);
            }
        }
    }

    /**
     * Experts.
     *
     * @return E
     */
    public int numExperts() {
        return config.numExperts();
    }

    /**
     * Whether the router serves a token.
     *
     * @param token its index
     * @return false for padding, and for tokens of another type
     */
    public boolean serves(long token) {
        return tokenTypes == null || config.serves(tokenTypes.getInt(token));
    }

    /**
     * Tokens that the router serves.
     *
     * @return how many
     */
    public long numServed() {
        return numServed(0, routing.tokens());
    }

    long numServed(long from, long to) {
        long served = 0;
        for (long token = from; token < to; token++) {
            served += serves(token) ? 1 : 0;
        }
        return served;
    }

    /**
     * Slots of each expert; those without one count nowhere.
     *
     * @param counted which
     * @return [numExperts]
     */
    public long[] counts(Counted counted) {
        return counts(counted, 0, routing.tokens());
    }

    long[] counts(Counted counted, long from, long to) {
        if (counted == Counted.FIRST) {
            requireOrder();
        }
        long[] counts = new long[numExperts()];
        for (long token = from; token < to; token++) {
            for (int k = 0; k < config.topK(); k++) {
                int id = id(token, k);
                boolean isCounted =
                        switch (counted) {
                            case ALL -> true;
                            case FIRST -> k == 0;
                            case KEPT -> config.capacity() == null || weight(token, k) != 0;
                        };
                if (id >= 0 && isCounted) {
                    counts[id]++;
                }
            }
        }
        return counts;
    }

    /** Refuses a rule by which slots are places of groups, not first and second choices. */
    void requireOrder() {
        if (config.selection() instanceof Selection.OnePerGroup) {
            throw new IllegalArgumentException(
                    "config: expected a rule with a first choice, got "
                            + config.selection()
                            + ", whose slots are those of groups; count all slots");
        }
    }

    /** Slots that have an expert: K for each token that is served, or fewer if the rule says so. */
    long numSlots(long from, long to) {
        long slots = 0;
        for (long count : counts(Counted.ALL, from, to)) {
            slots += count;
        }
        return slots;
    }

    /**
     * Slots that a full expert passed on to another one.
     *
     * @param asked the routing of the same logits by the same rule without a capacity
     * @return slots that have another id there
     */
    public long moved(Routing asked) {
        if (asked.tokens() != routing.tokens() || asked.topK() != config.topK()) {
            throw new IllegalArgumentException(
                    "asked: expected tokens="
                            + routing.tokens()
                            + " and topK="
                            + config.topK()
                            + ", got "
                            + asked.tokens()
                            + " and "
                            + asked.topK());
        }
        Check.host("asked", asked.topkIds());
        long moved = 0;
        for (long slot = 0; slot < routing.tokens() * config.topK(); slot++) {
            boolean same = asked.topkIds().getInt(slot) == routing.topkIds().getInt(slot);
            moved += same ? 0 : 1;
        }
        return moved;
    }

    /** Expert of a slot; -1 for none. */
    int id(long token, int k) {
        int id = routing.topkIds().getInt(token * config.topK() + k);
        return id >= 0 && id < numExperts() && serves(token) ? id : -1;
    }

    double weight(long token, int k) {
        return routing.topkWeights().getDouble(token * config.topK() + k);
    }

    /**
     * The distribution of a token over experts: softmax of its logits, also where these are the
     * scores themselves; with scores of sigmoid or sqrt(softplus) those divided by their sum and
     * 1e-20 (DeepSeek-V3).
     *
     * @param token its index
     * @param to out, [numExperts]
     */
    public void probabilities(long token, double[] to) {
        probabilities(logits, token, to);
    }

    /** The same before noise was added. */
    void cleanProbabilities(long token, double[] to) {
        probabilities(noise == null ? logits : noise.cleanLogits, token, to);
    }

    private void probabilities(Tensor from, long token, double[] to) {
        double max = Double.NEGATIVE_INFINITY;
        for (int e = 0; e < to.length; e++) {
            to[e] = from.getDouble(token * to.length + e);
            max = Math.max(max, to[e]);
        }
        double sum = 0;
        for (int e = 0; e < to.length; e++) {
            to[e] =
                    switch (config.score()) {
                        case SOFTMAX, NONE -> Math.exp(to[e] - max);
                        case SIGMOID -> 1 / (1 + Math.exp(-to[e]));
                        case SQRT_SOFTPLUS -> Math.sqrt(softplus(to[e]));
                    };
            sum += to[e];
        }
        boolean exponential = config.score() == Score.SOFTMAX || config.score() == Score.NONE;
        sum += exponential ? 0 : GUARD;
        for (int e = 0; e < to.length; e++) {
            to[e] /= sum;
        }
    }

    private static double softplus(double z) {
        return Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
    }

    /**
     * The mean of {@link #probabilities} over the tokens that the router serves.
     *
     * @return [numExperts]; zeros without such tokens
     */
    public double[] meanProbabilities() {
        return meanProbabilities(0, routing.tokens());
    }

    double[] meanProbabilities(long from, long to) {
        double[] mean = new double[numExperts()];
        double[] ofToken = new double[numExperts()];
        long served = numServed(from, to);
        for (long token = from; token < to; token++) {
            if (serves(token)) {
                probabilities(token, ofToken);
                for (int e = 0; e < mean.length; e++) {
                    mean[e] += ofToken[e] / served;
                }
            }
        }
        return mean;
    }
}
