package jmoe.nativecpu;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Activation;
import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases;
import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Routing;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.SplittableRandom;

/**
 * A product, with or without an activation on top.
 *
 * @param sizes tokens, experts, topK, inputs, outputs of a part, how slots are spread
 * @param x type of x
 * @param weight type of the weight
 * @param y type of the result
 * @param activation or null for {@link Kernels#groupedGemm}
 * @param weighted whether there are slot weights, with an activation
 * @param biased whether there are biases
 * @param odd whether some numbers are huge, tiny, infinite or NaN
 */
record ProductCase(
        Case sizes,
        DType x,
        DType weight,
        DType y,
        @Nullable Kind activation,
        boolean weighted,
        boolean biased,
        boolean odd) {
    private static final byte POISON = (byte) 0xfe;

    /** Sizes on both sides of everything that work is cut at, and other choices by chance. */
    static ProductCase random(
            SplittableRandom random, DType x, DType weight, DType y, @Nullable Kind activation) {
        int tokens = random.nextInt(4) == 0 ? 1 + random.nextInt(130) : random.nextInt(20);
        int inputs = random.nextInt(4) == 0 ? 400 + random.nextInt(700) : random.nextInt(80);
        Case sizes =
                new Case(
                        tokens,
                        1 + random.nextInt(5),
                        1 + random.nextInt(3),
                        inputs,
                        1 + random.nextInt(random.nextBoolean() ? 20 : 100),
                        Pattern.values()[random.nextInt(Pattern.values().length)]);
        boolean weighted = activation != null && random.nextBoolean();
        boolean odd = random.nextInt(3) == 0;
        return new ProductCase(
                sizes, x, weight, y, activation, weighted, random.nextBoolean(), odd);
    }

    /** The same with another type of everything. */
    ProductCase of(DType type) {
        return new ProductCase(sizes, type, type, type, activation, weighted, biased, odd);
    }

    /** Whether tiles multiply it where there are any. */
    boolean usesTiles() {
        return x == DType.BF16 && weight == DType.BF16 && !weighted;
    }

    /**
     * Computes it.
     *
     * @param kernels what computes
     * @param prepared whether the weight is prepared before
     * @param memory where the operands are to be
     * @return bytes of the result, whose memory was poisoned before
     */
    byte[] run(Kernels kernels, boolean prepared, Allocator memory) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = routing(arena, memory);
            int tokens = sizes.tokens();
            long slots = (long) tokens * sizes.topK();
            long seed = sizes.hidden() * 31L + sizes.intermediate();
            int parts = activation == null ? 1 : GroupedGemm.parts(Activation.of(activation));
            int experts = sizes.numExperts();
            long outputs = (long) parts * sizes.intermediate();
            long rows = activation == null ? slots : tokens;
            Tensor left = numbers(memory.allocate(x, rows, sizes.hidden()), seed);
            Tensor right =
                    numbers(memory.allocate(weight, experts, outputs, sizes.hidden()), seed + 1);
            Tensor bias =
                    biased ? numbers(memory.allocate(DType.F32, experts, outputs), seed + 2) : null;
            Tensor result = memory.allocate(y, slots, sizes.intermediate());
            result.data().fill(POISON);
            if (activation == null) {
                Tensor matrices = prepared ? kernels.prepare(right, arena) : right;
                kernels.groupedGemm(left, matrices, bias, routing.expertOffsets(), result);
            } else {
                ExpertWeights raw = experts(arena, right, bias, activation);
                ExpertWeights weights = prepared ? kernels.prepare(raw, arena) : raw;
                Tensor scratch = Tensor.allocate(arena, DType.F32, 0);
                Tensor factors = weighted ? routing.topkWeights() : null;
                kernels.gateUpSwiglu(left, routing, factors, weights, scratch, result);
            }
            return result.data().toArray(JAVA_BYTE);
        }
    }

    /** The maps that a product reads are where they are to be. */
    private Routing routing(Arena arena, Allocator memory) {
        Routing made = Cases.routing(arena, sizes);
        Tensor factors = memory.allocate(DType.F32, made.topkWeights().shape());
        Tensor offsets = memory.allocate(DType.I32, made.expertOffsets().shape());
        Tensor rowToSlot = memory.allocate(DType.I32, made.rowToSlot().shape());
        factors.data().copyFrom(made.topkWeights().data());
        offsets.data().copyFrom(made.expertOffsets().data());
        rowToSlot.data().copyFrom(made.rowToSlot().data());
        return new Routing(
                made.topkIds(),
                factors,
                made.tokensPerExpert(),
                offsets,
                rowToSlot,
                made.slotToRow());
    }

    private ExpertWeights experts(Arena arena, Tensor gateUp, @Nullable Tensor bias, Kind kind) {
        Activation function =
                kind == Kind.CLAMPED_SWIGLU ? Activation.clampedSwiglu(2) : Activation.of(kind);
        Tensor down =
                Tensor.allocate(
                        arena, weight, sizes.numExperts(), sizes.hidden(), sizes.intermediate());
        return new ExpertWeights(gateUp, down, bias, null, function);
    }

    private Tensor numbers(Tensor tensor, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        for (long i = 0; i < tensor.numElements(); i++) {
            double number = random.nextGaussian();
            if (odd && random.nextInt(200) == 0) {
                number =
                        switch (random.nextInt(6)) {
                            case 0 -> 0;
                            case 1 -> -0.0;
                            case 2 -> number * 0x1p-20;
                            case 3 -> number * 0x1p12;
                            case 4 -> Math.copySign(1 / 0.0, number);
                            default -> Double.NaN;
                        };
            }
            tensor.setDouble(i, number);
        }
        return tensor;
    }
}
