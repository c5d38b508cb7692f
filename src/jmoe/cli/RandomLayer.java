package jmoe.cli;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import jmoe.ExpertForm;
import jmoe.Preset;
import jmoe.Preset.Bias;
import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.PeerWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.ops.SingletonExperts;
import jmoe.ops.SizeClass;
import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Layers with random numbers, the same in every run and for any number of threads. Never zeros: the
 * time of a multiplication depends on its operands.
 */
public final class RandomLayer {
    /** Brings the output to the size of the input; eight weights sum to well below 1. */
    private static final double DOWN_GAIN = 8;

    private static final double BIAS_DEVIATION = 0.1;

    /** Of I8 codes: the largest of a row of normal numbers is about four deviations. */
    private static final double CODE_DEVIATION = Byte.MAX_VALUE / 4.0;

    private static final int TABLE_BITS = 16;

    private static final int MAX_TENSORS = 16;

    /** A multiple of what one random number yields. */
    private static final long CHUNK_ELEMENTS = 1 << 20;

    // Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators".
    private static final long GOLDEN_GAMMA = 0x9e3779b97f4a7c15L;

    private final Preset preset;
    private final DType type;
    private final Arena arena;
    private long seed;

    private RandomLayer(Preset preset, DType type, Arena arena) {
        this.preset = preset;
        this.type = type;
        this.arena = arena;
    }

    /**
     * Makes the weights of a layer.
     *
     * @param preset shape and rules
     * @param type F32, F16, BF16 or I8, of the experts; I8 has a scale and leaves routers BF16
     * @param arena owner of the memory
     * @return the weights
     */
    public static MoeWeights weights(Preset preset, DType type, Arena arena) {
        if (preset.form() instanceof ExpertForm.Neurons) {
            throw new IllegalArgumentException(
                    "preset: expected experts of two matrices, got the neurons of "
                            + preset.name()
                            + "; PeerLayer runs them");
        }
        return new RandomLayer(preset, type, arena).weights();
    }

    /**
     * Makes the weights of a layer of neurons.
     *
     * @param preset shape and rules, with {@link ExpertForm.Neurons}
     * @param type F32, F16 or BF16
     * @param arena owner of the memory
     */
    static PeerWeights neurons(Preset preset, DType type, Arena arena) {
        ExpertForm.Neurons form = (ExpertForm.Neurons) preset.form();
        RandomLayer layer = new RandomLayer(preset, type, arena);
        MoeConfig config = preset.config();
        int hidden = config.hidden();
        int width = form.keyWidth();
        long outputs = (long) form.heads() * width;
        long numKeys = config.routers().getFirst().numLogits() / 2;
        double in = 1 / Math.sqrt(hidden);
        return new PeerWeights(
                layer.matrix(type, in, 2, outputs, hidden),
                layer.bias(Bias.ROUTER, 2, outputs),
                layer.matrix(type, 1 / Math.sqrt(width), 2, numKeys, width),
                new SingletonExperts(
                        layer.matrix(type, in, config.numExperts(), hidden),
                        layer.matrix(type, 1, config.numExperts(), hidden),
                        config.activation()));
    }

    /**
     * Makes routers only, without the bias of their selection: training starts it at 0, and it is
     * there to balance what random numbers would tilt.
     *
     * @param preset shape and rules
     * @param type F32, F16 or BF16
     * @param seed another one gives other numbers
     * @param arena owner of the memory
     * @return one router per token type
     */
    static List<RouterWeights> routers(Preset preset, DType type, int seed, Arena arena) {
        RandomLayer layer = new RandomLayer(preset, type, arena);
        layer.seed = firstSeed(seed);
        List<RouterWeights> routers = new ArrayList<>();
        for (RouterConfig router : preset.config().routers()) {
            RouterWeights random =
                    layer.router(router.numLogits(), router.numExperts(), preset.config().hidden());
            routers.add(
                    new RouterWeights(
                            random.weight(), random.bias(), null, random.expertScale(), null));
        }
        return routers;
    }

    /**
     * Makes tokens.
     *
     * @param seed as for {@link #routers}, whose numbers are others
     * @return F32 [tokens, hidden], normal numbers
     */
    static Tensor tokens(long tokens, int hidden, int seed, Arena arena) {
        Tensor x = Tensor.allocate(arena, DType.F32, tokens, hidden);
        fill(x, 1, firstSeed(seed));
        return x;
    }

    /** Of as many tensors as a seed may make; the first is of the tokens. */
    private static long firstSeed(int seed) {
        return (long) seed * MAX_TENSORS;
    }

    private MoeWeights weights() {
        MoeConfig config = preset.config();
        int hidden = config.hidden();
        List<RouterWeights> routers = new ArrayList<>();
        List<ExpertWeights> experts = new ArrayList<>();
        for (int tokenType = 0; tokenType < config.numTokenTypes(); tokenType++) {
            RouterConfig router = config.routers().get(tokenType);
            routers.add(router(router.numLogits(), router.numExperts(), hidden));
            for (SizeClass size : config.sizeClasses(tokenType)) {
                ExpertWeights bank =
                        bank(size.numExperts(), size.intermediate(), hidden, config.activation());
                experts.add(formed(bank));
            }
        }
        int shared = config.sharedIntermediate();
        return new MoeWeights(
                routers,
                experts,
                shared == 0 ? null : bank(1, shared, hidden, config.activation()),
                config.sharedGated()
                        ? matrix(DType.F32, 1 / Math.sqrt(hidden), 1, 1, hidden)
                        : null,
                null,
                null,
                bias(Bias.OUTPUT, 1, hidden));
    }

    private RouterWeights router(int numLogits, int numExperts, int hidden) {
        DType routerType = type == DType.I8 ? DType.BF16 : type;
        Tensor weight = matrix(routerType, 1 / Math.sqrt(hidden), 1, numLogits, hidden);
        return new RouterWeights(
                weight,
                bias(Bias.ROUTER, 1, numLogits),
                bias(Bias.SELECTION, numExperts),
                expertScale(numExperts),
                null);
    }

    /** Factors about 1. */
    private @Nullable Tensor expertScale(int numExperts) {
        Tensor scale = bias(Bias.EXPERT_SCALE, numExperts);
        for (int expert = 0; scale != null && expert < numExperts; expert++) {
            scale.setDouble(expert, 1 + scale.getDouble(expert));
        }
        return scale;
    }

    /** Fills up what the second matrix of a bank does not have. */
    private ExpertWeights formed(ExpertWeights bank) {
        return switch (preset.form()) {
            case ExpertForm.TwoMaps two -> bank;
            case ExpertForm.Neurons neurons -> bank;
            case ExpertForm.OneMap one -> {
                identity(bank.down());
                yield new ExpertWeights(
                        bank.gateUp(), bank.down(), bank.gateUpBias(), null, bank.activation());
            }
            case ExpertForm.Narrow narrow -> {
                clearRows(bank.down(), narrow.outputs(), (int) bank.hidden());
                if (bank.downBias() != null) {
                    clearRows(bank.downBias(), narrow.outputs(), (int) bank.hidden());
                }
                yield bank;
            }
        };
    }

    /** Codes are 1 too, with a scale of 1. */
    private static void identity(Tensor down) {
        Tensor scale = down.scale();
        for (long i = 0; scale != null && i < scale.numElements(); i++) {
            scale.setDouble(i, 1);
        }
        long hidden = down.dim(1);
        for (long row = 0; row < down.dim(0) * hidden; row++) {
            for (long column = 0; column < hidden; column++) {
                set(down, row * hidden + column, column == row % hidden ? 1 : 0);
            }
        }
    }

    /** Zeros in the rows of each expert from one on. */
    private static void clearRows(Tensor tensor, int from, int hidden) {
        long width = tensor.numElements() / tensor.dim(0) / hidden;
        for (long row = 0; row < tensor.dim(0) * hidden; row++) {
            for (long column = 0; row % hidden >= from && column < width; column++) {
                set(tensor, row * width + column, 0);
            }
        }
    }

    private static void set(Tensor tensor, long i, int value) {
        if (tensor.dtype() == DType.I8) {
            tensor.data().set(JAVA_BYTE, i, (byte) value);
        } else {
            tensor.setDouble(i, value);
        }
    }

    private ExpertWeights bank(
            int numExperts, int intermediate, int hidden, Activation activation) {
        long columns = activation.gated() ? 2L * intermediate : intermediate;
        double out = DOWN_GAIN / Math.sqrt(intermediate);
        return new ExpertWeights(
                matrix(type, 1 / Math.sqrt(hidden), numExperts, columns, hidden),
                matrix(type, out, numExperts, hidden, intermediate),
                bias(Bias.EXPERTS, numExperts, columns),
                bias(Bias.EXPERTS, numExperts, hidden),
                activation);
    }

    private @Nullable Tensor bias(Bias bias, long... shape) {
        return preset.biases().contains(bias) ? matrix(DType.F32, BIAS_DEVIATION, shape) : null;
    }

    private Tensor matrix(DType dtype, double deviation, long... shape) {
        if (dtype == DType.I8) {
            return codes(deviation, shape);
        }
        Tensor tensor = Tensor.allocate(arena, dtype, shape);
        fill(tensor, deviation, ++seed);
        return tensor;
    }

    private Tensor codes(double deviation, long... shape) {
        Tensor codes = Tensor.allocate(arena, DType.I8, shape);
        fill(codes, CODE_DEVIATION, ++seed);
        Tensor scale = Tensor.allocate(arena, DType.F32, Arrays.copyOf(shape, shape.length - 1));
        for (long row = 0; row < scale.numElements(); row++) {
            scale.setDouble(row, deviation / CODE_DEVIATION);
        }
        return Tensor.scaled(codes, scale);
    }

    /**
     * Normal numbers, drawn on all cores from a table of them: a layer can have billions.
     *
     * @param tensor out, F32, F16, BF16 or I8 codes
     * @param deviation standard deviation
     * @param seed of this tensor
     */
    public static void fill(Tensor tensor, double deviation, long seed) {
        Random random = new Random(seed);
        int[] table = new int[1 << TABLE_BITS];
        int magnitude = -1 >>> (Integer.SIZE - 8 * tensor.dtype().blockBytes() + 1);
        for (int i = 0; i < table.length; i++) {
            // Small numbers may be zeros of either sign in F16.
            do {
                table[i] = code(tensor.dtype(), (float) (deviation * random.nextGaussian()));
            } while ((table[i] & magnitude) == 0);
        }
        long elements = tensor.numElements();
        AtomicLong next = new AtomicLong();
        Runnable work =
                () -> {
                    for (long from = next.getAndAdd(CHUNK_ELEMENTS);
                            from < elements;
                            from = next.getAndAdd(CHUNK_ELEMENTS)) {
                        long to = Math.min(elements, from + CHUNK_ELEMENTS);
                        fill(tensor.data(), tensor.dtype(), table, seed, from, to);
                    }
                };
        onAllCores(work, elements / CHUNK_ELEMENTS);
    }

    private static int code(DType dtype, float value) {
        return switch (dtype) {
            case F32 -> Float.floatToRawIntBits(value);
            case BF16 -> Floats.floatToBf16(value);
            case F16 -> Float.floatToFloat16(value);
            case I8 -> Math.clamp(Math.round(value), -Byte.MAX_VALUE, Byte.MAX_VALUE);
            default ->
                    throw new IllegalArgumentException(
                            "type: expected F32, F16, BF16 or I8, got " + dtype);
        };
    }

    /** Four table entries to a random number. */
    private static void fill(
            MemorySegment data, DType dtype, int[] table, long seed, long from, long to) {
        long state = seed * CHUNK_ELEMENTS + from;
        for (long i = from; i < to; i += Long.SIZE / TABLE_BITS) {
            state += GOLDEN_GAMMA;
            long bits = (state ^ (state >>> 30)) * 0xbf58476d1ce4e5b9L;
            bits = (bits ^ (bits >>> 27)) * 0x94d049bb133111ebL;
            bits ^= bits >>> 31;
            long parts = Math.min(Long.SIZE / TABLE_BITS, to - i);
            for (int part = 0; part < parts; part++) {
                int code = table[(int) (bits >>> (part * TABLE_BITS)) & (table.length - 1)];
                switch (dtype.blockBytes()) {
                    case Integer.BYTES ->
                            data.set(JAVA_INT_UNALIGNED, (i + part) * Integer.BYTES, code);
                    case Short.BYTES ->
                            data.set(JAVA_SHORT_UNALIGNED, (i + part) * Short.BYTES, (short) code);
                    default -> data.set(JAVA_BYTE, i + part, (byte) code);
                }
            }
        }
    }

    private static void onAllCores(Runnable work, long useful) {
        int others = (int) Math.min(Runtime.getRuntime().availableProcessors() - 1, useful);
        Thread[] threads = new Thread[others];
        for (int i = 0; i < others; i++) {
            threads[i] = Thread.ofPlatform().daemon().name("jmoe-random-" + i).start(work);
        }
        work.run();
        for (Thread thread : threads) {
            try {
                thread.join();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException("interrupted while weights were made", e);
            }
        }
    }
}
