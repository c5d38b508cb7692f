package jmoe.ops;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Deterministic inputs of the contract.
 *
 * <p>{@link #all} is a selection, not a product: it holds every T in {0, 1, 2, 7, 33, 127, 128,
 * 129, 1000}, E in {1, 2, 7, 8, 60, 64, 256}, K in {1, 2, 8, E}, every H and I in 1..17, 32, 33,
 * 40, 100 and every {@link Pattern}, and the pairs that break kernels: no token, one token with all
 * experts, one expert, tile sizes plus and minus one, far more experts than tokens, far more tokens
 * than experts, and every pattern with more than one token. {@link CasesTest} checks this.
 */
public final class Cases {
    /** The types that every backend computes with. */
    public static final List<DType> FLOATING = List.of(DType.F32, DType.F16, DType.BF16);

    /** How slots are spread over experts. */
    public enum Pattern {
        /** Distinct experts, equally likely. */
        UNIFORM,
        /** Every slot to the last expert. */
        ALL_TO_ONE,
        /** Only odd experts. */
        EMPTY_EXPERTS,
        /** Half of the slots to expert 0, a quarter to expert 1, and so on. */
        SKEWED,
        /** A third of the slots has id -1. */
        SOME_NONE,
        /** Every id is -1. */
        ALL_NONE,
        /** A third of the slots has an id that would index far outside. */
        HOSTILE
    }

    /** What router logits look like. */
    public enum Logits {
        /** Distinct normal numbers. */
        NORMAL,
        /** Five distinct values, so that ties decide. */
        TIES,
        /** One value. */
        ALL_EQUAL,
        /** One in five is NaN. */
        SOME_NAN,
        /** Only NaN. */
        ALL_NAN,
        /** One in seven is infinite, of either sign. */
        INFINITE,
        /** Up to the largest float, of either sign. */
        HUGE
    }

    /**
     * One problem.
     *
     * @param tokens T
     * @param numExperts E
     * @param topK K
     * @param hidden H
     * @param intermediate I
     * @param pattern how slots are spread over experts
     */
    public record Case(
            int tokens, int numExperts, int topK, int hidden, int intermediate, Pattern pattern) {
        /** Slots of all tokens. */
        long slots() {
            return (long) tokens * topK;
        }

        /** Seed of this case's inputs. */
        long seed() {
            long seed = tokens;
            for (int part : new int[] {numExperts, topK, hidden, intermediate, pattern.ordinal()}) {
                seed = seed * 1009 + part;
            }
            return seed;
        }

        /** Type of one of the arguments; neighbouring cases mix the types differently. */
        DType dtype(int argument) {
            long mix = seed() % 27;
            int digit = (int) (argument == 0 ? mix % 3 : argument == 1 ? mix / 3 % 3 : mix / 9);
            return FLOATING.get(digit);
        }

        @Override
        public String toString() {
            return "T=%d E=%d K=%d H=%d I=%d %s"
                    .formatted(tokens, numExperts, topK, hidden, intermediate, pattern);
        }
    }

    private static final List<Case> ALL =
            List.of(
                    new Case(0, 8, 2, 16, 5, Pattern.UNIFORM),
                    new Case(1, 1, 1, 1, 1, Pattern.ALL_TO_ONE),
                    new Case(1, 8, 8, 17, 16, Pattern.UNIFORM),
                    new Case(1, 256, 1, 100, 33, Pattern.UNIFORM),
                    new Case(2, 2, 2, 2, 3, Pattern.UNIFORM),
                    new Case(2, 256, 8, 40, 17, Pattern.HOSTILE),
                    new Case(7, 7, 7, 3, 2, Pattern.UNIFORM),
                    new Case(7, 64, 8, 33, 15, Pattern.SKEWED),
                    new Case(7, 1, 1, 14, 100, Pattern.SOME_NONE),
                    new Case(33, 60, 8, 100, 13, Pattern.EMPTY_EXPERTS),
                    new Case(33, 2, 1, 4, 8, Pattern.ALL_TO_ONE),
                    new Case(33, 8, 2, 15, 6, Pattern.ALL_NONE),
                    new Case(127, 8, 2, 5, 7, Pattern.SKEWED),
                    new Case(127, 256, 1, 6, 9, Pattern.EMPTY_EXPERTS),
                    new Case(128, 8, 2, 32, 32, Pattern.UNIFORM),
                    new Case(128, 64, 8, 7, 10, Pattern.HOSTILE),
                    new Case(128, 1, 1, 10, 11, Pattern.UNIFORM),
                    new Case(129, 7, 2, 8, 12, Pattern.SOME_NONE),
                    new Case(129, 60, 1, 9, 4, Pattern.HOSTILE),
                    new Case(129, 64, 64, 13, 14, Pattern.UNIFORM),
                    new Case(1000, 8, 2, 11, 40, Pattern.UNIFORM),
                    new Case(1000, 256, 8, 12, 3, Pattern.SKEWED),
                    new Case(1000, 2, 2, 16, 1, Pattern.ALL_TO_ONE));

    private Cases() {}

    /** System property for slow backends: leaves out cases with more tokens. */
    public static final String MAX_TOKENS_PROPERTY = "jmoe.cases.maxTokens";

    /**
     * The selection.
     *
     * @return every case, or those that {@link #MAX_TOKENS_PROPERTY} leaves
     */
    public static List<Case> all() {
        int maxTokens = Integer.getInteger(MAX_TOKENS_PROPERTY, Integer.MAX_VALUE);
        return ALL.stream().filter(c -> c.tokens <= maxTokens).toList();
    }

    /**
     * Normal numbers, rounded to the type.
     *
     * @param tensor out
     * @param seed which numbers
     * @return the tensor
     */
    public static Tensor normal(Tensor tensor, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextGaussian());
        }
        return tensor;
    }

    /**
     * Allocates normal numbers.
     *
     * @param arena owner of the memory
     * @param dtype type
     * @param seed which numbers
     * @param shape dimensions
     * @return the tensor
     */
    public static Tensor normal(Arena arena, DType dtype, long seed, long... shape) {
        return normal(Tensor.allocate(arena, dtype, shape), seed);
    }

    /**
     * Fills router logits.
     *
     * @param logits out, [tokens, numLogits]
     * @param kind what they look like
     * @param seed which numbers
     * @return the tensor
     */
    public static Tensor logits(Tensor logits, Logits kind, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        for (long i = 0; i < logits.numElements(); i++) {
            double normal = random.nextGaussian();
            int die = random.nextInt(35);
            logits.setDouble(
                    i,
                    switch (kind) {
                        case NORMAL -> normal;
                        case TIES -> die % 5 - 2;
                        case ALL_EQUAL -> 0.75;
                        case SOME_NAN -> die % 5 == 0 ? Double.NaN : normal;
                        case ALL_NAN -> Double.NaN;
                        case INFINITE -> die % 7 == 0 ? Math.copySign(1 / 0.0, normal) : normal;
                        case HUGE -> normal * (die % 2 == 0 ? 1e30 : Float.MAX_VALUE / 8);
                    });
        }
        return logits;
    }

    /**
     * Fills topkIds by the case's pattern.
     *
     * @param c the case
     * @param topkIds out, I32 [tokens, topK]
     * @return the tensor
     */
    public static Tensor ids(Case c, Tensor topkIds) {
        SplittableRandom random = new SplittableRandom(c.seed() + 17);
        int[] hostile = {
            Integer.MIN_VALUE, c.numExperts, c.numExperts + 5, Integer.MAX_VALUE, -1, -2
        };
        int e = c.numExperts;
        int start = 0;
        for (int slot = 0; slot < c.slots(); slot++) {
            if (slot % c.topK == 0) {
                start = random.nextInt(e);
            }
            // Steps of one from a random start are distinct within a token and equally likely.
            int uniform = (start + slot % c.topK) % e;
            boolean third = random.nextInt(3) == 0;
            int id =
                    switch (c.pattern) {
                        case UNIFORM -> uniform;
                        case ALL_TO_ONE -> e - 1;
                        case EMPTY_EXPERTS -> Math.min(uniform | 1, e - 1);
                        case SKEWED ->
                                Math.min(
                                        Integer.numberOfTrailingZeros(random.nextInt() | 1 << 30),
                                        e - 1);
                        case SOME_NONE -> third ? -1 : uniform;
                        case ALL_NONE -> -1;
                        case HOSTILE -> third ? hostile[random.nextInt(hostile.length)] : uniform;
                    };
            topkIds.setInt(slot, id);
        }
        return topkIds;
    }

    /**
     * Fills weights in (0, 1), every eleventh exactly 0.
     *
     * @param weights out, F32
     * @param seed which numbers
     * @return the tensor
     */
    public static Tensor weights(Tensor weights, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        for (long i = 0; i < weights.numElements(); i++) {
            weights.setDouble(i, i % 11 == 5 ? 0 : random.nextDouble());
        }
        return weights;
    }

    /**
     * A complete routing: ids by the pattern, weights, and the maps from {@link #sort}.
     *
     * @param arena owner of the memory
     * @param c the case
     * @return all six tensors, filled
     */
    public static Routing routing(Arena arena, Case c) {
        Routing routing = Routing.allocate(arena, c.tokens, c.topK, c.numExperts);
        ids(c, routing.topkIds());
        weights(routing.topkWeights(), c.seed() + 18);
        sort(routing);
        return routing;
    }

    /**
     * What {@link Kernels#sortByExpert} does, written once more as the definition reads: for every
     * expert, its slots in order.
     *
     * @param routing in: topkIds; out: the maps
     */
    public static void sort(Routing routing) {
        int slots = (int) (routing.tokens() * routing.topK());
        for (int slot = 0; slot < slots; slot++) {
            routing.slotToRow().setInt(slot, -1);
        }
        int row = 0;
        routing.expertOffsets().setInt(0, 0);
        for (int expert = 0; expert < routing.numExperts(); expert++) {
            int first = row;
            for (int slot = 0; slot < slots; slot++) {
                if (routing.topkIds().getInt(slot) == expert) {
                    routing.rowToSlot().setInt(row, slot);
                    routing.slotToRow().setInt(slot, row++);
                }
            }
            routing.tokensPerExpert().setInt(expert, row - first);
            routing.expertOffsets().setInt(expert + 1, row);
        }
    }

    /**
     * Rows that have an expert.
     *
     * @param expertOffsets I32 [G + 1]
     * @return its last entry
     */
    public static int rows(Tensor expertOffsets) {
        return expertOffsets.getInt(expertOffsets.numElements() - 1);
    }

    /**
     * Offsets from group sizes.
     *
     * @param arena owner of the memory
     * @param counts rows of each group
     * @return I32 [G + 1]
     */
    public static Tensor offsets(Arena arena, int... counts) {
        Tensor offsets = Tensor.allocate(arena, DType.I32, counts.length + 1);
        int row = 0;
        for (int group = 0; group < counts.length; group++) {
            row += counts[group];
            offsets.setInt(group + 1, row);
        }
        return offsets;
    }
}
