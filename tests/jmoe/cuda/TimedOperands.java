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
    private final Map<DType, Tensor> patterns = new EnumMap<>(DType.class);

    /**
     * Nothing yet.
     *
     * @param kernels where
     * @param arena owner of the memory
     * @param seed of the random numbers
     */
    TimedOperands(CudaKernels kernels, Arena arena, long seed) {
        this.kernels = kernels;
        this.arena = arena;
        this.seed = seed;
    }

    /** How many sets of some bytes exceed the cache three times. */
    int sets(long bytes) {
        long cache = kernels.device().l2Bytes();
        return Math.clamp(3 * cache / Math.max(1, bytes) + 1, 2, MAX_SETS);
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
            return kernels.upload(arena, numbers);
        }
    }

    /** A routing for each set, in which every expert is as likely as any other. */
    List<Routing> routings(int sets, TimedShape shape, int tokens) {
        List<Routing> routings = new ArrayList<>();
        try (Arena host = Arena.ofConfined()) {
            Routing routing = Routing.allocate(host, tokens, shape.topK(), shape.numExperts());
            SplittableRandom random = new SplittableRandom(seed);
            for (int set = 0; set < sets; set++) {
                draw(routing, shape.numExperts(), random);
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

    private static void draw(Routing routing, int numExperts, SplittableRandom random) {
        int[] experts = new int[numExperts];
        for (int expert = 0; expert < numExperts; expert++) {
            experts[expert] = expert;
        }
        int topK = routing.topK();
        for (long token = 0; token < routing.tokens(); token++) {
            for (int k = 0; k < topK; k++) {
                int other = random.nextInt(k, numExperts);
                int expert = experts[other];
                experts[other] = experts[k];
                experts[k] = expert;
                routing.topkIds().setInt(token * topK + k, expert);
                routing.topkWeights().setDouble(token * topK + k, random.nextDouble());
            }
        }
    }
}
