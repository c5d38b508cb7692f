package jmoe.train;

import jmoe.train.RouterBatch.Counted;

import java.util.Arrays;

/**
 * How evenly a batch was shared out among the experts.
 *
 * @param assigned slots that asked for each expert, moved ones for the expert they went to: {@link
 *     RouterBatch#moved} counts these
 * @param kept slots that each expert computes; fewer, if a capacity dropped some
 * @param tokens that the router served
 */
public record ExpertLoad(Counts assigned, Counts kept, long tokens) {
    /**
     * Slots of each expert.
     *
     * @param perExpert [numExperts], at least one
     */
    public record Counts(long[] perExpert) {
        /** Copies them. */
        public Counts {
            perExpert = perExpert.clone();
            if (perExpert.length == 0) {
                throw new IllegalArgumentException("perExpert: expected at least 1, got none");
            }
        }

        /**
         * The counts.
         *
         * @return a copy, [numExperts]
         */
        @Override
        public long[] perExpert() {
            return perExpert.clone();
        }

        /**
         * All slots.
         *
         * @return their number
         */
        public long sum() {
            return Arrays.stream(perExpert).sum();
        }

        private double mean() {
            return (double) sum() / perExpert.length;
        }

        /**
         * Coefficient of variation: standard deviation of the population / mean.
         *
         * @return 0 if all are equal; NaN without slots
         */
        public double variation() {
            double mean = mean();
            double squares = 0;
            for (long count : perExpert) {
                squares += (count - mean) * (count - mean);
            }
            return Math.sqrt(squares / perExpert.length) / mean;
        }

        /**
         * (largest - mean) / mean, as the loss-free method reports it.
         *
         * @return 0 if all are equal; NaN without slots
         */
        public double maxViolation() {
            return (Arrays.stream(perExpert).max().orElseThrow() - mean()) / mean();
        }

        /**
         * Largest less smallest.
         *
         * @return slots
         */
        public long spread() {
            return Arrays.stream(perExpert).max().orElseThrow()
                    - Arrays.stream(perExpert).min().orElseThrow();
        }

        /**
         * Experts without a slot.
         *
         * @return how many
         */
        public int idle() {
            return (int) Arrays.stream(perExpert).filter(count -> count == 0).count();
        }

        /**
         * Entropy of the shares of the experts.
         *
         * @return nats, ln(numExperts) if all are equal; NaN without slots
         */
        public double entropy() {
            double sum = sum();
            double entropy = sum == 0 ? Double.NaN : 0;
            for (long count : perExpert) {
                entropy -= count == 0 ? 0 : count / sum * Math.log(count / sum);
            }
            return entropy;
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Counts counts && Arrays.equals(perExpert, counts.perExpert);
        }

        @Override
        public int hashCode() {
            return Arrays.hashCode(perExpert);
        }

        @Override
        public String toString() {
            return Arrays.toString(perExpert);
        }
    }

    /**
     * Counts a batch.
     *
     * @param batch what a router decided
     * @return its load
     */
    public static ExpertLoad of(RouterBatch batch) {
        return new ExpertLoad(
                new Counts(batch.counts(Counted.ALL)),
                new Counts(batch.counts(Counted.KEPT)),
                batch.numServed());
    }

    /**
     * Share of the slots that were dropped.
     *
     * @return 0 to 1; 0 without slots
     */
    public double dropRate() {
        long all = assigned.sum();
        return all == 0 ? 0 : (double) (all - kept.sum()) / all;
    }

    /**
     * (largest - smallest) / tokens, of what was assigned.
     *
     * @return 0 if all are equal; NaN without tokens
     */
    public double imbalance() {
        return (double) assigned.spread() / tokens;
    }
}
