package jmoe.ops;

/**
 * How many slots a queue of a {@link Capacity} takes, given T tokens, K experts per token and E
 * queues: experts, or devices where these have the queues. T counts the tokens of all types, absent
 * ones included.
 */
public sealed interface CapacityLimit {
    /**
     * The same for every batch ({@code expert_capacity} of Switch in transformers).
     *
     * @param maxSlots at least 0
     */
    record Tokens(int maxSlots) implements CapacityLimit {
        /** Checks the number. */
        public Tokens {
            RouterConfig.require(maxSlots >= 0, "maxSlots", "at least 0", maxSlots);
        }
    }

    /**
     * ceil(tokenFraction T): a share of the tokens, whatever K and E are.
     *
     * @param tokenFraction finite, at least 0
     */
    record Fraction(double tokenFraction) implements CapacityLimit {
        /** Checks the number. */
        public Fraction {
            RouterConfig.requireAtLeast0("tokenFraction", tokenFraction);
        }
    }

    /**
     * A multiple of T K / E, what a queue would have if the load were even, or of T / E where the
     * rounding does not {@linkplain Rounding#countsSlots count slots}: what the rounding says, then
     * at least {@code minSlots}, then up to a multiple of {@code multiple}.
     *
     * @param capacityFactor finite, at least 0; with {@link Rounding#TUTEL} any finite number
     * @param rounding the published rule
     * @param minSlots at least 0
     * @param multiple at least 1
     */
    record Factor(double capacityFactor, Rounding rounding, int minSlots, int multiple)
            implements CapacityLimit {
        /** Checks the numbers. */
        public Factor {
            if (rounding == Rounding.TUTEL) {
                boolean valid = Double.isFinite(capacityFactor);
                RouterConfig.require(valid, "capacityFactor", "a finite number", capacityFactor);
            } else {
                RouterConfig.requireAtLeast0("capacityFactor", capacityFactor);
            }
            RouterConfig.require(minSlots >= 0, "minSlots", "at least 0", minSlots);
            RouterConfig.require(multiple >= 1, "multiple", "at least 1", multiple);
        }

        /**
         * With the least number and the multiple that its source has.
         *
         * @param capacityFactor as above
         * @param rounding the published rule
         */
        public Factor(double capacityFactor, Rounding rounding) {
            this(capacityFactor, rounding, rounding.min, rounding.multiple);
        }

        private double slots(double tokens, double topK, double queues) {
            double slots = rounding.of(capacityFactor, tokens, topK, queues);
            return Math.ceil(Math.max(slots, minSlots) / multiple) * multiple;
        }
    }

    /**
     * Another limit, grown for those that exceed it ({@code growth} 1.1: the elastic capacity of 10
     * % of a survey): rounded to the nearest number, halves up.
     *
     * @param limit the limit before
     * @param growth finite, at least 1
     */
    record Grown(CapacityLimit limit, double growth) implements CapacityLimit {
        /** Checks the number. */
        public Grown {
            boolean valid = growth >= 1 && growth < Double.POSITIVE_INFINITY;
            RouterConfig.require(valid, "growth", "a finite number of at least 1", growth);
        }
    }

    /** How a capacity factor c becomes a number of slots. */
    enum Rounding {
        /**
         * min(T, floor(T c / E)), at least 4; not multiplied by K (Mesh TensorFlow, {@code moe.py}:
         * Switch Transformer and GShard).
         */
        MESH(false, 4, 1),
        /**
         * round(c T / E), halves to even, at least 4, 2 in Switch-XXL and Switch-C; not multiplied
         * by K (Flaxformer, {@code moe_layers.py}).
         */
        FLAXFORMER(false, 4, 1),
        /**
         * floor(T c / E), 0 becoming 4, then up to a multiple of 4; not multiplied by K (Lingvo,
         * {@code gshard_layers.py}).
         */
        LINGVO(false, 4, 4),
        /** ceil(T K c / E) up to a multiple of 4 (V-MoE, {@code compute_capacity}). */
        VMOE(true, 0, 4),
        /** ceil(T K / E c) (Megatron-LM, {@code get_capacity}). */
        MEGATRON(true, 0, 1),
        /**
         * K floor(|c| ceil(T / E)), up to a multiple of the alignment (Tutel, {@code
         * extract_critical}). There 0 stands for the largest load, which drops nothing, and a
         * negative factor for the smaller of the largest load and -c, which drops what -c drops.
         */
        TUTEL(true, 0, 1),
        /** floor(c T / E); a c of K is the even load (ERNIE 4.5, {@code topk_gate.py}). */
        ERNIE(false, 0, 1),
        /** floor(ceil(c T) K / E) (FastMoE, {@code gshard_gate.py}). */
        FASTMOE(true, 0, 1);

        private final boolean countsSlots;
        private final int min;
        private final int multiple;

        Rounding(boolean countsSlots, int min, int multiple) {
            this.countsSlots = countsSlots;
            this.min = min;
            this.multiple = multiple;
        }

        /**
         * What a factor of 1 stands for.
         *
         * @return true for an even share of the slots, T K / E; false for T / E, whatever K is
         */
        public boolean countsSlots() {
            return countsSlots;
        }

        /** In double: exact up to 2^53 slots, and without an overflow beyond. */
        private double of(double c, double tokens, double topK, double queues) {
            return switch (this) {
                case MESH -> Math.min(tokens, Math.floor(tokens * c / queues));
                case FLAXFORMER -> Math.rint(c * tokens / queues);
                case LINGVO -> Math.floor(tokens * c / queues);
                case VMOE -> Math.ceil(tokens * topK * c / queues);
                case MEGATRON -> Math.ceil(tokens * topK / queues * c);
                case TUTEL ->
                        c == 0
                                ? tokens * topK
                                : topK * Math.floor(Math.abs(c) * Math.ceil(tokens / queues));
                case ERNIE -> {
                    // As Python divides: the quotient is not rounded up to a whole number first.
                    double slots = c * tokens;
                    yield Math.rint((slots - slots % queues) / queues);
                }
                case FASTMOE -> Math.floor(Math.ceil(c * tokens) * topK / queues);
            };
        }
    }

    /**
     * The limit for a batch.
     *
     * @param tokens T
     * @param topK K
     * @param queues E, or the number of devices
     * @return slots
     */
    default long of(long tokens, int topK, int queues) {
        return switch (this) {
            case Tokens fixed -> fixed.maxSlots;
            case Fraction share -> (long) Math.ceil(share.tokenFraction * tokens);
            case Factor factor -> (long) factor.slots((double) tokens, topK, queues);
            case Grown grown -> Math.round(grown.limit.of(tokens, topK, queues) * grown.growth);
        };
    }

    /**
     * Whether batches of other sizes may have other limits.
     *
     * @return false if it is fixed
     */
    default boolean dependsOnTokens() {
        return switch (this) {
            case Tokens fixed -> false;
            case Grown grown -> grown.limit.dependsOnTokens();
            case Fraction share -> true;
            case Factor factor -> true;
        };
    }
}
