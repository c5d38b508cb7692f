package jmoe.train;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.Random;

/** Random logits as plain arrays, and the batch that a router makes of them. */
final class RoutedBatch {
    final double[][] logits;
    final RouterConfig config;
    final RouterBatch batch;

    private RoutedBatch(double[][] logits, RouterConfig config, RouterBatch batch) {
        this.logits = logits;
        this.config = config;
        this.batch = batch;
    }

    static RoutedBatch random(Arena arena, long seed, int tokens, RouterConfig config) {
        Random random = new Random(seed);
        double[][] logits = new double[tokens][config.numExperts()];
        for (double[] row : logits) {
            for (int e = 0; e < row.length; e++) {
                // Some experts are asked for more often than others.
                row[e] = (float) (random.nextGaussian() + (e % 3 == 0 ? 0.8 : 0));
            }
        }
        return of(arena, logits, config, null);
    }

    static RoutedBatch of(
            Arena arena, double[][] logits, RouterConfig config, @Nullable Tensor tokenTypes) {
        Tensor tensor = tensor(arena, logits, config.numExperts());
        Routing routing =
                Routing.allocate(arena, logits.length, config.topK(), config.numExperts());
        try (ReferenceKernels kernels = new ReferenceKernels()) {
            kernels.route(tensor, config, new RouteInputs(null, tokenTypes), routing);
        }
        return new RoutedBatch(
                logits, config, new RouterBatch(tensor, config, routing, tokenTypes, null, null));
    }

    static Tensor tensor(Arena arena, double[][] rows, int columns) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, rows.length, columns);
        for (int i = 0; i < rows.length; i++) {
            for (int j = 0; j < columns; j++) {
                tensor.setDouble((long) i * columns + j, rows[i][j]);
            }
        }
        return tensor;
    }

    static Tensor ints(Arena arena, int... values) {
        Tensor tensor = Tensor.allocate(arena, DType.I32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setInt(i, values[i]);
        }
        return tensor;
    }

    RouterBatch withSequences(Tensor offsets) {
        return new RouterBatch(
                batch.logits(), config, batch.routing(), batch.tokenTypes(), offsets, null);
    }

    RouterBatch withNoise(RouterBatch.Noise noise) {
        return new RouterBatch(
                batch.logits(), config, batch.routing(), batch.tokenTypes(), null, noise);
    }

    int tokens() {
        return logits.length;
    }

    int experts() {
        return config.numExperts();
    }

    /** 1 if a token's k-th choice is an expert, else 0. */
    double[][] oneHot(int k) {
        double[][] hot = new double[tokens()][experts()];
        for (int t = 0; t < tokens(); t++) {
            hot[t][batch.routing().topkIds().getInt((long) t * config.topK() + k)] = 1;
        }
        return hot;
    }

    /** 1 for each expert of a token. */
    double[][] selected() {
        double[][] all = new double[tokens()][experts()];
        for (int k = 0; k < config.topK(); k++) {
            double[][] hot = oneHot(k);
            for (int t = 0; t < tokens(); t++) {
                for (int e = 0; e < experts(); e++) {
                    all[t][e] += hot[t][e];
                }
            }
        }
        return all;
    }

    double[][] softmax() {
        double[][] p = new double[tokens()][experts()];
        for (int t = 0; t < tokens(); t++) {
            double sum = 0;
            for (double z : logits[t]) {
                sum += Math.exp(z);
            }
            for (int e = 0; e < experts(); e++) {
                p[t][e] = Math.exp(logits[t][e]) / sum;
            }
        }
        return p;
    }
}
