package jmoe.experiment;

import jmoe.ops.Kernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.Random;
import java.util.SplittableRandom;

/** Tensors of numbers that are the same in every run, where a backend computes. */
final class Numbers {
    private Numbers() {}

    /** Normal with mean 0. */
    static Tensor normal(Kernels kernels, Arena arena, long seed, double deviation, long... shape) {
        try (Arena host = Arena.ofShared()) {
            Tensor numbers = Tensor.allocate(host, DType.F32, shape);
            Random random = new Random(seed);
            for (long i = 0; i < numbers.numElements(); i++) {
                numbers.setDouble(i, deviation * random.nextGaussian());
            }
            return placed(kernels, arena, numbers);
        }
    }

    /** Integers from -bound to bound: products and sums of few of them are exact. */
    static Tensor integers(Kernels kernels, Arena arena, long seed, int bound, long... shape) {
        try (Arena host = Arena.ofShared()) {
            Tensor numbers = Tensor.allocate(host, DType.F32, shape);
            SplittableRandom random = new SplittableRandom(seed);
            for (long i = 0; i < numbers.numElements(); i++) {
                numbers.setDouble(i, random.nextInt(-bound, bound + 1));
            }
            return placed(kernels, arena, numbers);
        }
    }

    /** A copy where the backend computes. */
    static Tensor placed(Kernels kernels, Arena arena, Tensor numbers) {
        Tensor there = kernels.allocate(arena, numbers.dtype(), numbers.shape());
        kernels.copy(numbers, there);
        return there;
    }

    /** A copy on the host. */
    static Tensor fetched(Kernels kernels, Arena arena, Tensor tensor) {
        Tensor here = Tensor.allocate(arena, tensor.dtype(), tensor.shape());
        kernels.copy(tensor, here);
        return here;
    }
}
