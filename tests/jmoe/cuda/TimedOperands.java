package jmoe.cuda;

import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/** Operands on the device: random, and so many of them that no run finds them in the cache. */
final class TimedOperands {
    private static final int MAX_SETS = 64;
    private static final long PATTERN_ELEMENTS = 1 << 20;

    private final CudaKernels kernels;
    private final Arena arena;
    private final long seed;
    private final int maxSets;
    private final Arena patternArena;
    private final Map<DType, Tensor> patterns;

    /**
     * Nothing yet.
     *
     * @param kernels where
     * @param arena owner of the memory
     * @param seed of the random numbers
     * @param timed whether anybody looks at the time; if not, one set is as good as many
     */
    TimedOperands(CudaKernels kernels, Arena arena, long seed, boolean timed) {
        this(kernels, arena, seed, timed ? MAX_SETS : 1, arena, new EnumMap<>(DType.class));
    }

    private TimedOperands(
            CudaKernels kernels,
            Arena arena,
            long seed,
            int maxSets,
            Arena patternArena,
            Map<DType, Tensor> patterns) {
        this.kernels = kernels;
        this.arena = arena;
        this.seed = seed;
        this.maxSets = maxSets;
        this.patternArena = patternArena;
        this.patterns = patterns;
    }

    /** Operands with another owner, filled with the same random numbers. */
    TimedOperands in(Arena owner) {
        return new TimedOperands(kernels, owner, seed, maxSets, patternArena, patterns);
    }

    /** How many sets of some bytes exceed the cache three times. */
    int sets(long bytes) {
        long cache = kernels.device().l2Bytes();
        return Math.clamp(3 * cache / Math.max(1, bytes) + 1, Math.min(2, maxSets), maxSets);
    }

    /** One group with all rows. */
    Tensor offsets(int rows) {
        try (Arena host = Arena.ofConfined()) {
            Tensor offsets = Tensor.allocate(host, DType.I32, 2);
            offsets.setInt(1, rows);
            return kernels.upload(arena, offsets);
        }
    }

    /** Waits until they are filled, and for what uses them in the same queue. */
    void synchronise() {
        kernels.synchronise();
    }

    /** A random tensor for each set. */
    List<Tensor> random(int sets, DType dtype, long... shape) {
        List<Tensor> tensors = new ArrayList<>();
        for (int set = 0; set < sets; set++) {
            Tensor tensor = kernels.allocate(arena, dtype, shape);
            fill(tensor);
            tensors.add(tensor);
        }
        return tensors;
    }

    /** Numbers from -1 to 1; never zeros, which cost less to multiply. */
    private void fill(Tensor tensor) {
        Tensor pattern = patterns.computeIfAbsent(tensor.dtype(), this::pattern);
        long elements = tensor.numElements();
        Tensor flat = tensor.reshape(elements);
        for (long done = 0; done < elements; done += PATTERN_ELEMENTS) {
            long count = Math.min(PATTERN_ELEMENTS, elements - done);
            kernels.copy(pattern.slice(0, count), flat.slice(done, count));
        }
    }

    private Tensor pattern(DType dtype) {
        try (Arena host = Arena.ofConfined()) {
            Tensor numbers = Tensor.allocate(host, dtype, PATTERN_ELEMENTS);
            SplittableRandom random = new SplittableRandom(seed);
            for (long i = 0; i < PATTERN_ELEMENTS; i++) {
                numbers.setDouble(i, random.nextDouble(-1, 1));
            }
            return kernels.upload(patternArena, numbers);
        }
    }

    /**
     * A routing for each set, in which every expert is as likely as any other. Single tokens go to
     * other experts than those of the sets before, until all had their turn: else their weights
     * would be in the cache still.
     */
    List<Routing> routings(int sets, TimedShape shape, int tokens) {
        List<Routing> routings = new ArrayList<>();
        try (Arena host = Arena.ofConfined()) {
            Routing routing = Routing.allocate(host, tokens, shape.topK(), shape.numExperts());
            SplittableRandom random = new SplittableRandom(seed);
            int[] deck = new int[shape.numExperts()];
            for (int expert = 0; expert < deck.length; expert++) {
                deck[expert] = expert;
            }
            for (int set = 0; set < sets; set++) {
                draw(routing, deck, tokens == 1 ? set % turn(shape) : 0, random);
                Routing device =
                        new Routing(
                                kernels.upload(arena, routing.topkIds()),
                                kernels.upload(arena, routing.topkWeights()),
                                kernels.upload(arena, routing.tokensPerExpert()),
                                kernels.upload(arena, routing.expertOffsets()),
                                kernels.upload(arena, routing.rowToSlot()),
                                kernels.upload(arena, routing.slotToRow()));
                kernels.sortByExpert(device);
                routings.add(device);
            }
        }
        return routings;
    }

    /** After how many single tokens all experts had their turn. */
    static int turn(TimedShape shape) {
        return shape.numExperts() / shape.topK();
    }

    /** Draws from the whole deck for each token, or from what earlier sets of a turn left. */
    private static void draw(Routing routing, int[] deck, int set, SplittableRandom random) {
        int topK = routing.topK();
        int first = set * topK;
        for (long token = 0; token < routing.tokens(); token++) {
            for (int k = 0; k < topK; k++) {
                int other = random.nextInt(first + k, deck.length);
                int expert = deck[other];
                deck[other] = deck[first + k];
                deck[first + k] = expert;
                routing.topkIds().setInt(token * topK + k, expert);
                routing.topkWeights().setDouble(token * topK + k, random.nextDouble());
            }
        }
    }

    /** Experts that have rows, on average over routings. */
    double experts(List<Routing> routings) {
        long experts = 0;
        try (Arena host = Arena.ofConfined()) {
            for (Routing routing : routings) {
                Tensor counts = Tensor.allocate(host, DType.I32, routing.numExperts());
                kernels.copy(routing.tokensPerExpert(), counts);
                for (int expert = 0; expert < routing.numExperts(); expert++) {
                    experts += counts.getInt(expert) > 0 ? 1 : 0;
                }
            }
        }
        return (double) experts / routings.size();
    }
}
