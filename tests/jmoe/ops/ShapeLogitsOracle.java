package jmoe.ops;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/** {@link Kernels#shapeLogits} once more, as the equations of its sources read. */
final class ShapeLogitsOracle {
    private ShapeLogitsOracle() {}

    /** The logits that should come out, F64. */
    static Tensor shape(
            Arena arena,
            Tensor logits,
            RouterConfig config,
            @Nullable Tensor noiseLogits,
            int step) {
        int experts = config.numExperts();
        Tensor want = Tensor.allocate(arena, DType.F64, logits.shape());
        for (int token = 0; token < logits.dim(0); token++) {
            double[] z = new double[experts];
            for (int e = 0; e < experts; e++) {
                z[e] = logits.row(token).getDouble(e);
            }
            for (int place = 0; place < config.logitTransforms().size(); place++) {
                double[] moments = moments(z);
                for (int e = 0; e < experts; e++) {
                    int[] counter = {token, e, step, place};
                    double h = noiseLogits == null ? 0 : noiseLogits.row(token).getDouble(e);
                    z[e] = apply(config.logitTransforms().get(place), z[e], moments, counter, h);
                }
            }
            for (int e = 0; e < experts; e++) {
                want.row(token).setDouble(e, z[e]);
            }
        }
        return want;
    }

    private static double[] moments(double[] z) {
        double mean = 0;
        double square = 0;
        for (double value : z) {
            mean += value / z.length;
        }
        for (double value : z) {
            square += (value - mean) * (value - mean) / z.length;
        }
        return new double[] {mean, Math.sqrt(square)};
    }

    private static double apply(
            LogitTransform transform, double z, double[] moments, int[] counter, double h) {
        return switch (transform) {
            case LogitTransform.Temperature t -> z / t.tau();
            case LogitTransform.Standardise s -> s.lambda() * (z - moments[0]) / moments[1];
            case LogitTransform.Cap c -> c.limit() * Math.tanh(z / c.limit());
            case LogitTransform.FixedNoise n ->
                    z + n.deviation() * normal(uniform(n.seed(), counter));
            case LogitTransform.LearnedNoise n ->
                    z + normal(uniform(n.seed(), counter)) * (Math.log1p(Math.exp(h)) + 1e-2);
            case LogitTransform.GumbelNoise n ->
                    z - n.factor() * Math.log(-Math.log(uniform(n.seed(), counter)));
        };
    }

    static double uniform(long seed, int[] counter) {
        long[] words = philox(counter, seed);
        return (words[0] * 0x1p20 + (words[1] >> 12) + 0.5) / 0x1p52;
    }

    /** Philox4x32-10 in the words of the paper: two pairs (L, R), each a Feistel round. */
    static long[] philox(int[] counter, long seed) {
        long mask = 0xffffffffL;
        long r0 = counter[0] & mask;
        long l0 = counter[1] & mask;
        long r1 = counter[2] & mask;
        long l1 = counter[3] & mask;
        for (int round = 0; round < 10; round++) {
            long key0 = (seed & mask) + round * 0x9E3779B9L & mask;
            long key1 = (seed >>> 32) + round * 0xBB67AE85L & mask;
            long high0 = Math.unsignedMultiplyHigh(0xD2511F53L << 32, r0);
            long high1 = Math.unsignedMultiplyHigh(0xCD9E8D57L << 32, r1);
            long low0 = 0xD2511F53L * r0 & mask;
            long low1 = 0xCD9E8D57L * r1 & mask;
            r0 = high1 ^ l0 ^ key0;
            l0 = low1;
            r1 = high0 ^ l1 ^ key1;
            l1 = low0;
        }
        return new long[] {r0, l0, r1, l1};
    }

    /** Bisection of the tail's probability. */
    static double normal(double u) {
        double p = Math.min(u, 1 - u);
        double low = 0;
        double high = 40;
        for (int i = 0; i < 60; i++) {
            double middle = (low + high) / 2;
            if (above(middle) > p) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return u < 0.5 ? -low : low;
    }

    /** The probability of a normal number above x, at least 0: a series or a continued fraction. */
    static double above(double x) {
        double density = Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
        if (x < 2.5) {
            double term = x;
            double sum = x;
            for (int n = 3; n < 120; n += 2) {
                term *= x * x / n;
                sum += term;
            }
            return 0.5 - density * sum;
        }
        double fraction = x;
        for (int n = 200; n > 0; n--) {
            fraction = x + n / fraction;
        }
        return density / fraction;
    }
}
