package jmoe.cli;

import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Random;

/** A layer of OLMoE-1B-7B's shape with random numbers, the same in every run. */
final class RandomLayer {
    static final MoeConfig OLMOE =
            new MoeConfig(
                    "olmoe",
                    2048,
                    2048,
                    64,
                    0,
                    Activation.SWIGLU,
                    List.of(RouterConfig.softmaxTopK(64, 8, false)),
                    List.of(1024),
                    0,
                    false,
                    1);

    /** Brings the output to the size of the input; eight weights sum to well below 1. */
    private static final double DOWN_GAIN = 8;

    private static final int TABLE_BITS = 16;

    private RandomLayer() {}

    /** Experts in BF16, 805 MB. */
    static MoeWeights weights(Arena arena) {
        int hidden = OLMOE.hidden();
        int experts = OLMOE.numExperts();
        int intermediate = OLMOE.intermediates().getFirst();
        Tensor router = Tensor.allocate(arena, DType.F32, 1, experts, hidden);
        fill(router, 1 / Math.sqrt(hidden), 1);
        Tensor gateUp = Tensor.allocate(arena, DType.BF16, experts, 2L * intermediate, hidden);
        fillBf16(gateUp, 1 / Math.sqrt(hidden), 2);
        Tensor down = Tensor.allocate(arena, DType.BF16, experts, hidden, intermediate);
        fillBf16(down, DOWN_GAIN / Math.sqrt(intermediate), 3);
        return new MoeWeights(
                List.of(new RouterWeights(router, null, null)),
                List.of(new ExpertWeights(gateUp, down, null, null, OLMOE.activation())),
                null,
                null,
                null,
                null,
                null);
    }

    /** Normal numbers. */
    static void fill(Tensor tensor, double deviation, long seed) {
        Random random = new Random(seed);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, deviation * random.nextGaussian());
        }
    }

    /** Draws from a table of normal numbers, four to a step: 400 million would take long. */
    private static void fillBf16(Tensor tensor, double deviation, long seed) {
        short[] table = new short[1 << TABLE_BITS];
        Random random = new Random(seed);
        for (int i = 0; i < table.length; i++) {
            table[i] = Floats.floatToBf16((float) (deviation * random.nextGaussian()));
        }
        MemorySegment data = tensor.data();
        long state = seed;
        for (long i = 0; i < tensor.numElements(); i += Long.SIZE / TABLE_BITS) {
            // Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators".
            state += 0x9e3779b97f4a7c15L;
            long bits = (state ^ (state >>> 30)) * 0xbf58476d1ce4e5b9L;
            bits = (bits ^ (bits >>> 27)) * 0x94d049bb133111ebL;
            bits ^= bits >>> 31;
            for (int part = 0; part < Long.SIZE / TABLE_BITS; part++) {
                short code = table[(int) (bits >>> (part * TABLE_BITS)) & (table.length - 1)];
                data.set(JAVA_SHORT_UNALIGNED, (i + part) * Short.BYTES, code);
            }
        }
    }
}
