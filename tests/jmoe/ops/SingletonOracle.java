package jmoe.ops;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * Experts of a single neuron once more, straight from the equations of PEER: {@code y = sum_i w_i
 * activation(u_i . x) v_i}, and how far from it a backend that sums in F32 may be.
 */
final class SingletonOracle {
    /** Largest slope of GELU, which is above those of the others but the squared one. */
    private static final double SLOPE = 1.13;

    /** Dependent roundings from the sum to the neuron. */
    private static final int ROUNDINGS = 8;

    /** F64 [tokens, H]. */
    final Tensor y;

    /** By element, the sum of the squares of what was rounded on the way to it. */
    final double[] squares;

    SingletonOracle(
            Arena arena, Tensor x, Tensor ids, @Nullable Tensor weights, SingletonExperts experts) {
        int hidden = (int) x.dim(1);
        int slots = (int) ids.dim(1);
        Activation.Kind kind = experts.activation().kind();
        y = Tensor.allocate(arena, DType.F64, x.shape());
        squares = new double[(int) y.numElements()];
        for (int slot = 0; slot < ids.numElements(); slot++) {
            int token = slot / slots;
            long id = ids.getInt(slot);
            double w = weights == null ? 1 : weights.getDouble(slot);
            if (id < 0 || id >= experts.numExperts() || w == 0) {
                continue;
            }
            double sum = 0;
            double terms = 0;
            for (int h = 0; h < hidden; h++) {
                double term =
                        x.getDouble((long) token * hidden + h)
                                * experts.up().getDouble(id * hidden + h);
                sum += term;
                terms += term * term;
            }
            double neuron = w * activated(kind, sum);
            if (neuron == 0) {
                continue;
            }
            double rounded = w * slope(kind, sum) * Math.sqrt((hidden + ROUNDINGS) * terms);
            for (int h = 0; h < hidden; h++) {
                double v = experts.down().getDouble(id * hidden + h);
                int at = token * hidden + h;
                y.setDouble(at, y.getDouble(at) + neuron * v);
                squares[at] += rounded * v * rounded * v;
            }
        }
    }

    private static double activated(Activation.Kind kind, double a) {
        return switch (kind) {
            case GELU -> a * below(a);
            case GELU_TANH -> {
                double z = Math.sqrt(2 / Math.PI) * (a + 0.044715 * a * a * a);
                yield a / (1 + Math.exp(-2 * z));
            }
            case SILU -> a / (1 + Math.exp(-a));
            case LINEAR -> a;
            case RELU -> positive(a);
            case SQUARED_RELU -> positive(a) * positive(a);
            default -> throw new IllegalArgumentException(kind + " has a gate");
        };
    }

    private static double positive(double a) {
        return a > 0 || Double.isNaN(a) ? a : 0;
    }

    /** A bound of the slope around a. */
    private static double slope(Activation.Kind kind, double a) {
        return kind == Activation.Kind.SQUARED_RELU ? 2 * positive(a) + 1 : SLOPE;
    }

    /** The probability of a normal number below a, by the series of its integral from 0. */
    private static double below(double a) {
        if (!(Math.abs(a) < 8.5)) {
            return Double.isNaN(a) || a == Double.NEGATIVE_INFINITY ? Double.NaN : a > 0 ? 1 : 0;
        }
        double term = a;
        double sum = a;
        for (int n = 3; sum + term != sum; n += 2) {
            term *= a * a / n;
            sum += term;
        }
        return 0.5 + sum * Math.exp(-a * a / 2) / Math.sqrt(2 * Math.PI);
    }
}
