package jmoe.reference;

import jmoe.tensor.Tensor;

/** The two sums of Soft-MoE, and rows of one length, as their formulas. */
final class ReferenceSoftMix {
    private ReferenceSoftMix() {}

    static void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
        long columns = x.dim(1);
        for (long row = 0; row < x.dim(0); row++) {
            double squares = 0;
            for (long i = row * columns; i < (row + 1) * columns; i++) {
                squares += x.getDouble(i) * x.getDouble(i);
            }
            for (long i = row * columns; i < (row + 1) * columns; i++) {
                y.setDouble(i, factor * x.getDouble(i) / (Math.sqrt(squares) + epsilon));
            }
        }
    }

    static void dispatch(Tensor x, Tensor logits, Tensor rows) {
        int tokens = Math.toIntExact(logits.dim(0));
        long slots = logits.dim(1);
        double[] weights = new double[tokens];
        for (long slot = 0; slot < slots; slot++) {
            for (int token = 0; token < tokens; token++) {
                weights[token] = logits.getDouble(token * slots + slot);
            }
            softmax(weights);
            sum(x, weights, rows, slot);
        }
    }

    static void combine(Tensor rows, Tensor logits, Tensor y) {
        int slots = Math.toIntExact(logits.dim(1));
        double[] weights = new double[slots];
        for (long token = 0; token < logits.dim(0); token++) {
            for (int slot = 0; slot < slots; slot++) {
                weights[slot] = logits.getDouble(token * slots + slot);
            }
            softmax(weights);
            sum(rows, weights, y, token);
        }
    }

    /** NaN throughout if any logit is, or if the largest is infinite. */
    private static void softmax(double[] values) {
        double max = Double.NEGATIVE_INFINITY;
        for (double value : values) {
            max = Math.max(max, value);
        }
        double sum = 0;
        for (int i = 0; i < values.length; i++) {
            values[i] = Math.exp(values[i] - max);
            sum += values[i];
        }
        for (int i = 0; i < values.length; i++) {
            values[i] /= sum;
        }
    }

    private static void sum(Tensor from, double[] weights, Tensor to, long row) {
        long hidden = to.dim(1);
        for (long h = 0; h < hidden; h++) {
            double sum = 0;
            for (int i = 0; i < weights.length; i++) {
                sum += weights[i] * from.getDouble(i * hidden + h);
            }
            to.setDouble(row * hidden + h, sum);
        }
    }
}
