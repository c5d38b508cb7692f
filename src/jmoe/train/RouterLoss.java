package jmoe.train;

import jmoe.ops.Selection;
import jmoe.tensor.Tensor;
import jmoe.train.RouterBatch.Counted;
import jmoe.train.RouterBatch.Noise;

import java.util.Arrays;

/**
 * What training adds to its loss so that a router uses its experts. Notation: T tokens that are
 * served, E experts, K choices; c_e slots of an expert; p_t the {@linkplain
 * RouterBatch#probabilities distribution} of a token, P its mean over tokens, H(p) = -sum p ln p.
 * Counts are constants to a gradient. A NaN logit makes a loss NaN.
 *
 * <p>K T stands for the slots that have an expert: fewer where a rule chooses their number, or
 * where experts choose tokens.
 */
public sealed interface RouterLoss {
    /**
     * The loss, times its coefficient.
     *
     * @param batch what a router decided
     * @return its value; 0 if the router serves no token
     */
    double value(RouterBatch batch);

    /** What the slots of an expert are divided by; sources differ. */
    enum LoadShare {
        /** f = c / T, so that the f add up to K (Switch; transformers for every K). */
        OF_TOKENS,
        /** f = c / (K T), so that they add up to 1 (DeepSeek, Megatron). */
        OF_SLOTS
    }

    /** What a variance is divided by; sources differ. */
    enum Variance {
        /** n (V-MoE). */
        POPULATION,
        /** n - 1 (Tensor2Tensor, Tutel); n must be at least 2. */
        SAMPLE
    }

    /**
     * {@code coefficient E sum_e f_e P_e}: least, with {@link LoadShare#OF_SLOTS} exactly the
     * coefficient, if all experts have the same load.
     *
     * @param coefficient times the loss
     * @param counted which slots make f: all (Switch), the first choices (GShard), or those that
     *     were kept (fastmoe)
     * @param share what f is a share of; with the first choices there is one slot per token
     */
    record LoadBalance(double coefficient, Counted counted, LoadShare share) implements RouterLoss {
        /**
         * Fedus et al. 2021, as published for K = 1.
         *
         * @param coefficient 0.01 there
         * @return the loss
         */
        public static LoadBalance ofSwitch(double coefficient) {
            return new LoadBalance(coefficient, Counted.ALL, LoadShare.OF_TOKENS);
        }

        /**
         * Lepikhin et al. 2020: E^2 times the mean over experts of f P, with first choices only.
         *
         * @param coefficient 0.01 in most of its code
         * @return the loss
         */
        public static LoadBalance ofGShard(double coefficient) {
            return new LoadBalance(coefficient, Counted.FIRST, LoadShare.OF_TOKENS);
        }

        @Override
        public double value(RouterBatch batch) {
            long[] counts = batch.counts(counted);
            boolean ofTokens = share == LoadShare.OF_TOKENS || counted == Counted.FIRST;
            long of = ofTokens ? batch.numServed() : batch.numSlots(0, batch.routing().tokens());
            return coefficient * balance(counts, (double) of, batch.meanProbabilities());
        }
    }

    /**
     * GShard's loss for second choices: {@code coefficient E sum_e f_e P_e}, with f of the second
     * choices alone and P of the distributions without their first choice, divided by what is left
     * plus 1e-9 (Mesh TensorFlow, where the coefficient is half that of the first).
     *
     * @param coefficient times the loss
     */
    record SecondChoice(double coefficient) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            batch.requireOrder();
            if (batch.config().topK() < 2) {
                throw new IllegalArgumentException(
                        "topK: expected at least 2 for a loss of second choices, got 1");
            }
            long[] counts = new long[batch.numExperts()];
            double[] rest = new double[batch.numExperts()];
            double[] mean = new double[batch.numExperts()];
            long served = batch.numServed();
            for (long token = 0; token < batch.routing().tokens(); token++) {
                int first = batch.id(token, 0);
                int second = batch.id(token, 1);
                if (first < 0 || second < 0) {
                    continue;
                }
                counts[second]++;
                batch.probabilities(token, rest);
                rest[first] = 0;
                double sum = Arrays.stream(rest).sum() + 1e-9;
                for (int e = 0; e < rest.length; e++) {
                    mean[e] += rest[e] / sum / served;
                }
            }
            return coefficient * balance(counts, (double) served, mean);
        }
    }

    /**
     * {@link LoadBalance} of each sequence by itself, with {@link LoadShare#OF_SLOTS}; the mean
     * over sequences with a token (DeepSeek-V3).
     *
     * @param coefficient 0.0001 there
     */
    record SequenceBalance(double coefficient) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            Tensor offsets = batch.sequenceOffsets();
            long sequences = offsets == null ? 1 : offsets.dim(0) - 1;
            double sum = 0;
            int used = 0;
            for (long sequence = 0; sequence < sequences; sequence++) {
                long from = offsets == null ? 0 : offsets.getInt(sequence);
                long to = offsets == null ? batch.routing().tokens() : offsets.getInt(sequence + 1);
                long served = batch.numServed(from, to);
                if (served > 0) {
                    long[] counts = batch.counts(Counted.ALL, from, to);
                    double slots = (double) batch.numSlots(from, to);
                    sum += balance(counts, slots, batch.meanProbabilities(from, to));
                    used++;
                }
            }
            return used == 0 ? 0 : coefficient * sum / used;
        }
    }

    /**
     * {@code coefficient sum_D f_D P_D} over devices that hold E / numDevices consecutive experts
     * each: f_D is the mean of E c_e / (K T), P_D the sum of P_e (DeepSeek-V2).
     *
     * @param coefficient 0.05 there
     * @param numDevices divides E
     */
    record DeviceBalance(double coefficient, int numDevices) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            int perDevice = expertsPerDevice(batch, numDevices);
            long[] counts = batch.counts(Counted.ALL);
            double[] mean = batch.meanProbabilities();
            double slots = (double) batch.numSlots(0, batch.routing().tokens());
            double sum = 0;
            for (int from = 0; from < mean.length && slots > 0; from += perDevice) {
                double load = 0;
                double probability = 0;
                for (int e = from; e < from + perDevice; e++) {
                    load += mean.length * counts[e] / slots / perDevice;
                    probability += mean[e];
                }
                sum += load * probability;
            }
            return coefficient * sum;
        }
    }

    /**
     * {@code coefficient sum_D f_D P_D}: f_D is numDevices / (maxDevices T) times the tokens that
     * are sent to the device, P_D the sum of P_e (DeepSeek-V2).
     *
     * @param coefficient 0.02 there
     * @param numDevices divides E; each holds consecutive experts
     * @param maxDevices that a token may be sent to, 3 there
     */
    record CommunicationBalance(double coefficient, int numDevices, int maxDevices)
            implements RouterLoss {
        /** Checks the number of devices of a token. */
        public CommunicationBalance {
            if (maxDevices < 1 || maxDevices > numDevices) {
                throw new IllegalArgumentException(
                        "maxDevices: expected 1 to numDevices="
                                + numDevices
                                + ", got "
                                + maxDevices);
            }
        }

        @Override
        public double value(RouterBatch batch) {
            int perDevice = expertsPerDevice(batch, numDevices);
            long[] sent = new long[numDevices];
            boolean[] reached = new boolean[numDevices];
            for (long token = 0; token < batch.routing().tokens(); token++) {
                Arrays.fill(reached, false);
                for (int k = 0; k < batch.config().topK(); k++) {
                    int id = batch.id(token, k);
                    if (id >= 0 && !reached[id / perDevice]) {
                        reached[id / perDevice] = true;
                        sent[id / perDevice]++;
                    }
                }
            }
            double[] mean = batch.meanProbabilities();
            double tokens = (double) maxDevices * batch.numServed();
            double sum = 0;
            for (int e = 0; e < mean.length && tokens > 0; e++) {
                sum += numDevices * sent[e / perDevice] / tokens * mean[e];
            }
            return coefficient * sum;
        }
    }

    /** What the importance of an expert is the sum of; sources differ. */
    enum Importance {
        /** The weights of its slots (Shazeer 2017). */
        WEIGHTS,
        /** Its probabilities before noise, of all tokens, whether they selected it (V-MoE). */
        PROBABILITIES
    }

    /**
     * {@code coefficient CV^2(I)} of the importance of experts.
     *
     * @param coefficient 0.1 in Shazeer et al. 2017, 0.005 in V-MoE
     * @param variance its form
     * @param importance what it is the sum of
     */
    record ImportanceVariation(double coefficient, Variance variance, Importance importance)
            implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            double[] sums = new double[batch.numExperts()];
            double[] own = new double[batch.numExperts()];
            for (long token = 0; token < batch.routing().tokens(); token++) {
                if (importance == Importance.PROBABILITIES && batch.serves(token)) {
                    batch.cleanProbabilities(token, own);
                    for (int e = 0; e < sums.length; e++) {
                        sums[e] += own[e];
                    }
                }
                for (int k = 0;
                        importance == Importance.WEIGHTS && k < batch.config().topK();
                        k++) {
                    int id = batch.id(token, k);
                    if (id >= 0) {
                        sums[id] += batch.weight(token, k);
                    }
                }
            }
            return coefficient * squaredVariation(sums, variance);
        }
    }

    /** Above which noisy logit an expert would have been selected. */
    enum Threshold {
        /** The K-th of the others: the (K+1)-th of all for a selected expert (Shazeer 2017). */
        OF_OTHERS,
        /** The K-th of all (V-MoE). */
        OF_ALL
    }

    /**
     * {@code coefficient CV^2(L)}, where L_e is the sum over tokens of the probability that the
     * expert is selected if its noise is drawn anew. Needs {@link RouterBatch#noise}, and a rule by
     * which a token takes its K best experts.
     *
     * @param coefficient 0.1 in Shazeer et al. 2017, 0.005 in V-MoE
     * @param variance its form
     * @param threshold its form
     */
    record LoadVariation(double coefficient, Variance variance, Threshold threshold)
            implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            Noise noise = batch.noise();
            if (noise == null) {
                throw new IllegalArgumentException(
                        "noise: expected clean logits and deviations, got null; without noise use"
                                + " ImportanceVariation");
            }
            if (!(batch.config().selection() instanceof Selection.TopK)) {
                throw new IllegalArgumentException(
                        "config: expected TopK, by which the K-th logit of a token decides, got "
                                + batch.config().selection()
                                + "; use ImportanceVariation");
            }
            int numExperts = batch.numExperts();
            double[] load = new double[numExperts];
            double[] noisy = new double[numExperts];
            for (long token = 0; token < batch.routing().tokens(); token++) {
                if (!batch.serves(token)) {
                    continue;
                }
                long row = token * numExperts;
                for (int e = 0; e < numExperts; e++) {
                    noisy[e] = batch.logits().getDouble(row + e);
                }
                double[] sorted = noisy.clone();
                Arrays.sort(sorted);
                int last = numExperts - batch.config().topK();
                double kth = sorted[last];
                double next = last == 0 ? Double.NEGATIVE_INFINITY : sorted[last - 1];
                for (int e = 0; e < numExperts; e++) {
                    boolean isAbove = threshold == Threshold.OF_OTHERS && noisy[e] > next;
                    double margin = noise.cleanLogits().getDouble(row + e) - (isAbove ? next : kth);
                    load[e] += Normal.below(margin / noise.deviations().getDouble(row + e));
                }
            }
            return coefficient * squaredVariation(load, variance);
        }
    }

    /**
     * {@code coefficient / T sum_t (ln sum_e exp z_te)^2}: keeps logits small (ST-MoE).
     *
     * @param coefficient 0.001 there
     */
    record ZLoss(double coefficient) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            int numExperts = batch.numExperts();
            double sum = 0;
            for (long token = 0; token < batch.routing().tokens(); token++) {
                if (!batch.serves(token)) {
                    continue;
                }
                double max = Double.NEGATIVE_INFINITY;
                for (int e = 0; e < numExperts; e++) {
                    max = Math.max(max, batch.logits().getDouble(token * numExperts + e));
                }
                double exps = 0;
                for (int e = 0; e < numExperts; e++) {
                    exps += Math.exp(batch.logits().getDouble(token * numExperts + e) - max);
                }
                double logSum = max + Math.log(exps);
                sum += logSum * logSum;
            }
            long served = batch.numServed();
            return served == 0 ? 0 : coefficient * sum / served;
        }
    }

    /** From which distribution a divergence is taken. */
    enum Divergence {
        /** KL(u || P) = -1/E sum_e ln(E P_e). */
        FROM_UNIFORM,
        /** KL(P || u) = ln E - H(P). */
        FROM_MEAN
    }

    /**
     * {@code coefficient} times the divergence of P from the uniform distribution u.
     *
     * @param coefficient times the loss
     * @param divergence its direction
     */
    record KlDivergence(double coefficient, Divergence divergence) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            if (batch.numServed() == 0) {
                return 0;
            }
            double[] mean = batch.meanProbabilities();
            if (divergence == Divergence.FROM_MEAN) {
                return coefficient * (Math.log(mean.length) - entropy(mean));
            }
            double sum = 0;
            for (double p : mean) {
                sum += Math.log(mean.length * p);
            }
            return -coefficient * sum / mean.length;
        }
    }

    /**
     * {@code coefficient / T sum_t H(p_t)}: lets each token decide (LIMoE, local).
     *
     * @param coefficient times the loss
     */
    record TokenEntropy(double coefficient) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            return coefficient * meanEntropy(batch);
        }
    }

    /**
     * {@code coefficient max(0, threshold - H(P))}: lets tokens decide differently (LIMoE, global).
     *
     * @param coefficient times the loss
     * @param threshold entropy from which nothing is gained, in nats; NaN for {@code -coefficient
     *     H(P)}
     */
    record MeanEntropy(double coefficient, double threshold) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            if (batch.numServed() == 0) {
                return 0;
            }
            double entropy = entropy(batch.meanProbabilities());
            return coefficient
                    * (Double.isNaN(threshold) ? -entropy : Math.max(0, threshold - entropy));
        }
    }

    /**
     * {@code coefficient (1/T sum_t H(p_t) - H(P))}: minus the mutual information of tokens and
     * experts (ModuleFormer).
     *
     * @param coefficient times the loss
     */
    record MutualInformation(double coefficient) implements RouterLoss {
        @Override
        public double value(RouterBatch batch) {
            return batch.numServed() == 0
                    ? 0
                    : coefficient * (meanEntropy(batch) - entropy(batch.meanProbabilities()));
        }
    }

    private static double balance(long[] counts, double slots, double[] mean) {
        double sum = 0;
        for (int e = 0; e < mean.length && slots > 0; e++) {
            sum += counts[e] / slots * mean[e];
        }
        return mean.length * sum;
    }

    private static int expertsPerDevice(RouterBatch batch, int numDevices) {
        if (numDevices < 1 || batch.numExperts() % numDevices != 0) {
            throw new IllegalArgumentException(
                    "numDevices: expected a divisor of numExperts="
                            + batch.numExperts()
                            + ", got "
                            + numDevices);
        }
        return batch.numExperts() / numDevices;
    }

    /** Variance / mean^2; 0 where all are 0. */
    private static double squaredVariation(double[] values, Variance variance) {
        int divisor = variance == Variance.SAMPLE ? values.length - 1 : values.length;
        if (divisor < 1) {
            throw new IllegalArgumentException(
                    "numExperts: expected at least 2 for a sample's variance, got 1");
        }
        double mean = Arrays.stream(values).sum() / values.length;
        double squares = 0;
        for (double value : values) {
            squares += (value - mean) * (value - mean);
        }
        return squares == 0 ? 0 : squares / divisor / (mean * mean);
    }

    private static double entropy(double[] distribution) {
        double entropy = 0;
        for (double p : distribution) {
            entropy -= p == 0 ? 0 : p * Math.log(p);
        }
        return entropy;
    }

    private static double meanEntropy(RouterBatch batch) {
        double[] ofToken = new double[batch.numExperts()];
        double sum = 0;
        for (long token = 0; token < batch.routing().tokens(); token++) {
            if (batch.serves(token)) {
                batch.probabilities(token, ofToken);
                sum += entropy(ofToken);
            }
        }
        long served = batch.numServed();
        return served == 0 ? 0 : sum / served;
    }
}
