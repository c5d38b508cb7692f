package jmoe.ops;

import org.jspecify.annotations.Nullable;

/**
 * A bound on the tokens of an expert. {@link Kernels#route} applies it to the chosen slots (token
 * t, rank k) in this order:
 *
 * <ol>
 *   <li>The slots of {@linkplain RouteInputs#protectedTokens protected tokens} take places in their
 *       queues, all of them, even more than {@code limit}; what follows is about the others, who
 *       get what is left (DeepSeek-V2 never drops about a tenth of the sequences).
 *   <li>{@code randomRouting} leaves out some choices after the first; they do not queue.
 *   <li>The rest queue at their experts, or at the device that holds them, by {@code priority}; a
 *       queue takes {@code limit} of them.
 *   <li>Who found no place tries elsewhere, as {@code overflow} says.
 *   <li>A slot without a place keeps its id and gets weight 0, so that the token goes on by the
 *       residual alone; a slot that was moved has the id and the weight of where it went.
 * </ol>
 *
 * <p>GShard counts only the kept first choices before the second ones, here all of them count: the
 * same slots are kept, because a queue that has dropped anybody is full.
 *
 * @param limit slots that a queue takes
 * @param priority who comes first
 * @param randomRouting which later choices are left out, or null for none
 * @param overflow what becomes of slots for which there is no place
 * @param numDevices 0 if each expert has a queue; otherwise devices, each of which holds equally
 *     many consecutive experts and has one queue for all of them (token dropping of DeepSeek-V2,
 *     arXiv 2405.04434, section 2.2.4, with {@link Priority#WEIGHT}); divides E
 * @param normaliseAfter true if weights are normalised over the slots that are kept, false if over
 *     all that were chosen
 */
public record Capacity(
        CapacityLimit limit,
        Priority priority,
        @Nullable RandomRouting randomRouting,
        Overflow overflow,
        int numDevices,
        boolean normaliseAfter) {
    /**
     * Who comes first in a queue. Scores and weights are compared as F32; NaN comes before every
     * number, so that it stays visible.
     */
    public enum Priority {
        /** By rank, then by position: all first choices before all second ones (GShard, Switch). */
        POSITION,
        /**
         * By rank, then by falling best score of the token; of equals the earlier token (batch
         * prioritised routing of V-MoE, arXiv 2106.05974).
         */
        PROBABILITY,
        /**
         * By falling weight of the slot, as it is before anything is dropped; of equals the lower
         * slot (the policy {@code probs} of Megatron-LM).
         */
        WEIGHT
    }

    /**
     * Random routing of GShard (arXiv 2006.16668): a choice after the first is left out unless
     * {@code u threshold < g}, where g is its share in the sum of the token's K weights and u the
     * {@link SplitMix#uniform} number of its slot {@code t K + k}. A NaN share stays.
     *
     * @param threshold finite, above 0; 0.5 in the paper, 0.2 in Mesh TensorFlow
     * @param seed of the numbers; another one for each step, so another rule: no step is counted
     */
    public record RandomRouting(double threshold, long seed) {
        /** Checks the threshold. */
        public RandomRouting {
            RouterConfig.requireAbove0("threshold", threshold);
        }

        /**
         * Whether a slot is left out.
         *
         * @param slot {@code t K + k}
         * @param share its weight divided by the sum of the token's K weights
         * @return true if it is not the first and drew too large a number
         */
        public boolean leavesOut(long slot, double share) {
            return SplitMix.uniform(seed, slot) * threshold >= share;
        }
    }

    /**
     * What becomes of slots for which there is no place. Moves go in rounds: in round i every slot
     * that still has none asks, in the order of the queues, the i-th expert of its list, and is
     * moved there if its queue has a place left and no other slot of the token has that id. All
     * queue at their own experts before the first round, so nobody loses a place to a moved slot.
     */
    public sealed interface Overflow {
        /** It is dropped. */
        record Drop() implements Overflow {}

        /**
         * It asks the token's next best experts after the K chosen ones, in the order of the
         * selection (No Token Left Behind of Mesh TensorFlow). Its weight is multiplied by the
         * score of the new expert and divided by that of the old one. NaN logits and experts that
         * are not active are not asked.
         *
         * @param tries rounds; at least 1
         */
        record NextChoice(int tries) implements Overflow {
            /** Checks the number. */
            public NextChoice {
                RouterConfig.require(tries >= 1, "tries", "at least 1", tries);
            }
        }

        /**
         * It asks the neighbours of its expert e, modulo E: e + 1, e - 1, e + 2, e - 2 and so on,
         * and keeps its weight. The form of a survey; no paper of its own is known.
         *
         * @param tries rounds; at least 1
         */
        record Ring(int tries) implements Overflow {
            /** Checks the number. */
            public Ring {
                RouterConfig.require(tries >= 1, "tries", "at least 1", tries);
            }

            /**
             * The neighbour asked in a round.
             *
             * @param expert of the slot
             * @param round from 1
             * @param numExperts E
             * @return an expert
             */
            public static int neighbour(int expert, int round, int numExperts) {
                int distance = (round / 2 + round % 2) % numExperts;
                return Math.floorMod(expert + (round % 2 == 1 ? distance : -distance), numExperts);
            }
        }

        /**
         * Rounds in which slots are moved: no more than there are other experts to ask.
         *
         * @param numExperts E
         * @return 0 if they are dropped at once
         */
        default int rounds(int numExperts) {
            int tries =
                    switch (this) {
                        case Drop drop -> 0;
                        case NextChoice next -> next.tries;
                        case Ring ring -> ring.tries;
                    };
            return Math.min(tries, numExperts - 1);
        }
    }

    /** Checks the number of devices. */
    public Capacity {
        RouterConfig.require(numDevices >= 0, "numDevices", "at least 0", numDevices);
    }

    /**
     * A capacity of each expert beyond which slots are dropped.
     *
     * @param limit slots that an expert takes
     * @param priority who comes first
     * @param normaliseAfter whether weights are normalised over the slots that are kept
     */
    public Capacity(CapacityLimit limit, Priority priority, boolean normaliseAfter) {
        this(limit, priority, null, new Overflow.Drop(), 0, normaliseAfter);
    }

    /**
     * The same in which some later choices are left out at random.
     *
     * @param routing which, or null for none
     * @return the capacity
     */
    public Capacity withRandomRouting(@Nullable RandomRouting routing) {
        return new Capacity(limit, priority, routing, overflow, numDevices, normaliseAfter);
    }

    /**
     * The same with another end for slots without a place.
     *
     * @param instead what becomes of them
     * @return the capacity
     */
    public Capacity withOverflow(Overflow instead) {
        return new Capacity(limit, priority, randomRouting, instead, numDevices, normaliseAfter);
    }

    /**
     * The same for devices instead of experts.
     *
     * @param devices how many, or 0 for experts
     * @return the capacity
     */
    public Capacity perDevice(int devices) {
        return new Capacity(limit, priority, randomRouting, overflow, devices, normaliseAfter);
    }

    /**
     * Experts that share a queue: those of expert e have the queue {@code e / expertsPerQueue}.
     *
     * @param config the rule that this is part of
     * @return 1, or the experts of a device
     */
    public int expertsPerQueue(RouterConfig config) {
        return numDevices == 0 ? 1 : config.numExperts() / numDevices;
    }

    /**
     * The limit for a batch.
     *
     * @param config the rule that this is part of
     * @param tokens tokens of the batch, of all types
     * @return slots that a queue takes
     */
    public long limit(RouterConfig config, long tokens) {
        return limit.of(tokens, config.topK(), numDevices == 0 ? config.numExperts() : numDevices);
    }

    /**
     * The rule by which a token's next best experts are found: the same with more experts per
     * token, the first K of which are those of the rule itself, and no capacity.
     *
     * @param config the rule that this is part of
     * @return null if nobody asks for them, or there are none
     */
    public @Nullable RouterConfig ranking(RouterConfig config) {
        if (!(overflow instanceof Overflow.NextChoice next)) {
            return null;
        }
        int experts = config.numExperts();
        if (config.selection() instanceof Selection.GroupLimited groups) {
            experts = experts / groups.numGroups() * groups.topGroups();
        }
        int ranked = (int) Math.min(experts, (long) config.topK() + next.tries());
        return ranked == config.topK()
                ? null
                : new RouterConfig(
                        config.numExperts(),
                        ranked,
                        config.score(),
                        config.selection(),
                        config.normalisation(),
                        config.factor(),
                        config.weightOnInput(),
                        null,
                        config.tokenType());
    }
}
