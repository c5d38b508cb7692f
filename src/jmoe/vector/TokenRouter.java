package jmoe.vector;

import jmoe.ops.Capacity.Priority;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * The rules of {@link RouterConfig} for one token at a time, in double. {@code Math.exp} and {@code
 * Math.pow} may be used because the JVM's interpreter and compilers call the same routine for them.
 * Owned by one worker; its arrays are reused.
 */
final class TokenRouter {
    /** Results of the last token: ids by falling candidate, and their weights. */
    final int[] ids;

    final double[] weights;

    private final RouterConfig config;
    private final boolean softmaxOfChosen;
    private final boolean normalisesLater;
    private final boolean ranksTokens;
    private final @Nullable ProductKeySearch keys;
    private final TopK top;
    private final @Nullable GroupFilter groups;
    private final double[] chosenLogits;
    private final double[] chosenScores;
    private double bestScore;

    /** Routes what has a fast way neither here nor by halves. */
    private @Nullable RareRouter rare;

    /** Whether a softmax over all experts is undefined, and with it every weight. */
    private boolean sumIsNan;

    // Over all experts; only allocated for rules that look at every expert.
    private float[] row = new float[0];
    private double[] logits = new double[0];
    private double[] scores = new double[0];
    private double[] candidates = new double[0];

    TokenRouter(RouterConfig config) {
        this.config = config;
        int topK = config.topK();
        ids = new int[topK];
        weights = new double[topK];
        chosenLogits = new double[topK];
        chosenScores = new double[topK];
        top = new TopK(topK);
        softmaxOfChosen = config.isSoftmaxOfSelected();
        normalisesLater = config.capacity() != null && config.capacity().normaliseAfter();
        ranksTokens =
                config.capacity() != null && config.capacity().priority() != Priority.POSITION;
        keys =
                config.selection() instanceof Selection.ProductKeys p
                        ? new ProductKeySearch(p.numKeys(), topK)
                        : null;
        groups =
                config.selection() instanceof Selection.GroupLimited limited
                        ? new GroupFilter(config.numExperts(), limited)
                        : null;
    }

    boolean serves(RouterConfig other) {
        return config.equals(other);
    }

    /** The best score of the last token, if tokens queue by it; else anything. */
    double bestScore() {
        return bestScore;
    }

    /**
     * Routes a token. With a capacity that normalises afterwards, the weights are the plain scores.
     *
     * @param all logits of the batch
     * @param bias selection bias, or null
     * @param token which token
     * @param tokens tokens of the batch
     */
    void route(Elements all, @Nullable Elements bias, long token, long tokens) {
        sumIsNan = false;
        if (keys != null) {
            keys.read(all, token, tokens);
            // Tokens queue by scores to the last bit; halves would round them in another way.
            if (bias == null && !ranksTokens && keys.isExact()) {
                chooseByHalves(keys);
                weigh(ids.length);
                return;
            }
        }
        readLogits(all, token);
        if (config.selection() instanceof Selection.SparseMixer mixer) {
            mixSparsely(mixer.jitter());
            return;
        }
        choose(bias);
        weigh(ids.length);
    }

    /**
     * Weighs experts that a look at the whole batch has given a token.
     *
     * @param all logits of the batch
     * @param token which token
     * @param count how many of {@link #ids} there are; the others become -1, of weight 0
     * @param columns softmax over tokens, if that is what scores are, or null
     */
    void weighChosen(Elements all, long token, int count, @Nullable ColumnPowers columns) {
        sumIsNan = false;
        readLogits(all, token);
        boolean scoresAll = config.score() == Score.SOFTMAX && !softmaxOfChosen && columns == null;
        if (scoresAll) {
            scoreAll(true);
        }
        takeScores(count, scoresAll);
        for (int k = 0; columns != null && k < count; k++) {
            chosenScores[k] = columns.score(logits[ids[k]], ids[k]);
        }
        Arrays.fill(weights, 0);
        weigh(count);
        for (int k = 0; config.normalisation() instanceof Normalisation.Count && k < count; k++) {
            weights[k] /= count;
        }
        Arrays.fill(ids, count, ids.length, -1);
        // Nothing over a sum of nothing is NaN.
        Arrays.fill(weights, count, ids.length, 0);
    }

    /**
     * The same by the rules of {@link RareRouter}.
     *
     * @param all logits of the batch
     * @param bias selection bias, or null
     * @param active which experts are active, or null
     * @param token which token
     */
    void routeRarely(Elements all, @Nullable Elements bias, @Nullable Elements active, long token) {
        if (rare == null) {
            rare = new RareRouter(config, ids, weights);
        }
        rare.route(all, bias, active, token);
        bestScore = ranksTokens ? rare.bestScore() : 0;
        finish(!(config.selection() instanceof Selection.TwoLevel));
    }

    /**
     * Routes a token by its id.
     *
     * @param hash what is read of tokens
     * @param token which token
     */
    void routeByHash(TokenHash hash, long token) {
        hash.select(token, config.numExperts(), ids);
        Arrays.fill(weights, 1);
        bestScore = 1;
        finish(true);
    }

    /** Normalises where slots may be empty, which stay 0 whatever is divided by. */
    private void finish(boolean normalises) {
        for (int k = 0; k < ids.length; k++) {
            weights[k] = ids[k] < 0 ? 0 : weights[k];
        }
        if (normalisesLater) {
            return;
        }
        double divisor =
                normalises ? divisor(config.normalisation(), weights, 0, weights.length) : 1;
        for (int k = 0; k < ids.length; k++) {
            weights[k] = ids[k] < 0 ? 0 : weights[k] / divisor * config.factor();
        }
    }

    private void readLogits(Elements all, long token) {
        int numExperts = config.numExperts();
        if (logits.length == 0) {
            row = new float[keys == null ? Lanes.padded(numExperts) : 0];
            logits = new double[numExperts];
            scores = new double[numExperts];
            candidates = new double[numExperts];
        }
        if (keys != null) {
            for (int e = 0; e < numExperts; e++) {
                logits[e] = keys.sum(e);
            }
            return;
        }
        all.read(token * numExperts, numExperts, row, 0);
        for (int e = 0; e < numExperts; e++) {
            logits[e] = row[e];
        }
    }

    private void chooseByHalves(ProductKeySearch search) {
        search.select(ids);
        double max = search.max();
        boolean softmax = config.score() == Score.SOFTMAX;
        double sum = softmax && !softmaxOfChosen ? search.expSum() : 1;
        for (int k = 0; k < ids.length; k++) {
            chosenLogits[k] = search.sum(ids[k]);
            chosenScores[k] =
                    softmax
                            ? Math.exp(chosenLogits[k] - max) / sum
                            : ownScore(config.score(), chosenLogits[k]);
        }
    }

    private void choose(@Nullable Elements bias) {
        boolean byLogit = bias == null && !config.judgesGroupsBySum();
        boolean softmax = config.score() == Score.SOFTMAX;
        boolean scoresAll = !byLogit || ranksTokens || (softmax && !softmaxOfChosen);
        if (scoresAll) {
            scoreAll(softmax);
        }
        for (int e = 0; e < candidates.length; e++) {
            float added = bias == null ? 0 : bias.getFloat(e);
            candidates[e] = byLogit ? logits[e] : (float) scores[e] + added;
        }
        top.clear();
        if (groups != null) {
            groups.offerBest(candidates, top);
        } else {
            for (int e = 0; e < candidates.length; e++) {
                top.offer(candidates[e], e);
            }
        }
        top.drain(ids);
        takeScores(ids.length, scoresAll);
    }

    private void takeScores(int count, boolean scoresAll) {
        boolean softmax = config.score() == Score.SOFTMAX;
        for (int k = 0; k < count; k++) {
            chosenLogits[k] = logits[ids[k]];
            chosenScores[k] =
                    scoresAll
                            ? scores[ids[k]]
                            : softmax ? 0 : ownScore(config.score(), chosenLogits[k]);
        }
    }

    /**
     * Scores of the numbers, as if NaN logits were not there: they must not decide who is chosen.
     * With an infinite maximum the limit of the softmax, all equal at the maximum.
     */
    private void scoreAll(boolean softmax) {
        boolean anyNan = false;
        double max = Double.NEGATIVE_INFINITY;
        for (double z : logits) {
            anyNan |= Double.isNaN(z);
            max = z > max ? z : max;
        }
        double sum = 0;
        for (int e = 0; e < logits.length; e++) {
            double z = logits[e];
            scores[e] = softmax ? Math.exp(z == max ? 0 : z - max) : ownScore(config.score(), z);
            sum += Double.isNaN(z) ? 0 : scores[e];
        }
        double divisor = softmax ? sum : 1;
        sumIsNan = softmax && (anyNan || Double.isInfinite(max));
        bestScore = sumIsNan ? Double.NaN : Double.NEGATIVE_INFINITY;
        for (int e = 0; e < scores.length; e++) {
            scores[e] /= divisor;
            bestScore = Math.max(bestScore, scores[e]);
        }
    }

    /** A score that depends on no other expert: any but the softmax. */
    static double ownScore(Score score, double z) {
        return switch (score) {
            case SIGMOID -> 1 / (1 + Math.exp(-z));
            case SQRT_SOFTPLUS -> Math.sqrt(Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))));
            case SOFTMAX, NONE -> z;
        };
    }

    /** Weighs the first experts of {@link #ids}. */
    private void weigh(int count) {
        if (softmaxOfChosen) {
            // The same weights as s / sum s, without underflow.
            double max = Double.NEGATIVE_INFINITY;
            for (int k = 0; k < count; k++) {
                max = Math.max(max, chosenLogits[k]);
            }
            for (int k = 0; k < count; k++) {
                weights[k] = Math.exp(chosenLogits[k] - max);
            }
        } else {
            for (int k = 0; k < count; k++) {
                weights[k] = sumIsNan ? Double.NaN : chosenScores[k];
            }
        }
        if (!normalisesLater) {
            normalise(config, weights, 0);
        }
    }

    /**
     * Turns the scores of a token's slots into weights.
     *
     * @param config the rule
     * @param scores scores, replaced by weights
     * @param from index of the first of the token's K scores
     */
    static void normalise(RouterConfig config, double[] scores, int from) {
        int to = from + config.topK();
        double divisor = divisor(config.normalisation(), scores, from, to);
        for (int k = from; k < to; k++) {
            scores[k] = scores[k] / divisor * config.factor();
        }
    }

    /** As {@link #normalise}, but a dropped slot stays 0 even if the divisor is 0. */
    static void normaliseKept(RouterConfig config, double[] scores, int from) {
        int to = from + config.topK();
        double divisor = divisor(config.normalisation(), scores, from, to);
        for (int k = from; k < to; k++) {
            scores[k] = scores[k] == 0 ? 0 : scores[k] / divisor * config.factor();
        }
    }

    private static double divisor(Normalisation normalisation, double[] scores, int from, int to) {
        double sum = 0;
        for (int k = from; k < to; k++) {
            sum += scores[k];
        }
        return switch (normalisation) {
            case Normalisation.None none -> 1;
            case Normalisation.Sum n -> sum + n.epsilon();
            case Normalisation.ClampedSum n -> Math.max(sum, n.minSum());
            case Normalisation.PNorm n -> {
                double powers = 0;
                for (int k = from; k < to; k++) {
                    powers += Math.pow(Math.abs(scores[k]), n.p());
                }
                yield Math.pow(powers, 1 / n.p());
            }
            // Who knows how many there are divides by it.
            case Normalisation.Count n -> 1;
        };
    }

    private void mixSparsely(double jitter) {
        double[] rest = candidates;
        System.arraycopy(logits, 0, rest, 0, rest.length);
        top.clear();
        for (int e = 0; e < rest.length; e++) {
            top.offer(rest[e], e);
        }
        top.drain(ids);
        for (int k = 0; k < ids.length; k++) {
            double max = rest[ids[k]];
            double sum = 0;
            for (int e = 0; e < rest.length; e++) {
                double distance = (max - logits[e]) / Math.max(Math.abs(logits[e]), max);
                if (!(distance > 2 * jitter)) {
                    sum += Math.exp(rest[e] - max);
                }
            }
            weights[k] = config.factor() / sum;
            rest[ids[k]] = Double.NEGATIVE_INFINITY;
        }
    }
}
