package jmoe.ops;

import jmoe.ops.Kernels.Residual;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/**
 * Experts of several sizes, and the equations of Wang et al. 2024 in double: {@code y[t] =
 * addend[t] + factor * sum_k w[t,k] E_id(x[t])} with {@code E_e(x) = (silu(x gate_e^T) * (x
 * up_e^T)) down_e^T}, whatever the size of e.
 */
public final class SizedExperts {
    private SizedExperts() {}

    /**
     * Random weights, so small that sums are about 1.
     *
     * @param arena owner of the memory
     * @param type of the weights
     * @param hidden H
     * @param sizes number of experts and I of each class
     * @return a bank for each class
     */
    public static List<ExpertWeights> random(
            Arena arena, DType type, int hidden, List<SizeClass> sizes) {
        List<ExpertWeights> classes = new ArrayList<>();
        for (SizeClass size : sizes) {
            int seed = 10 * classes.size();
            int width = size.intermediate();
            classes.add(
                    new ExpertWeights(
                            scaled(arena, type, seed + 1, size.numExperts(), 2 * width, hidden),
                            scaled(arena, type, seed + 2, size.numExperts(), hidden, width),
                            null,
                            null,
                            Activation.SWIGLU));
        }
        return classes;
    }

    private static Tensor scaled(Arena arena, DType type, long seed, long... shape) {
        Tensor tensor = Cases.normal(arena, type, seed, shape);
        double scale = 1 / Math.sqrt(shape[2]);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, scale * tensor.getDouble(i));
        }
        return tensor;
    }

    /** What the equations say. */
    public static final class Oracle {
        /** F64 [tokens, H]. */
        public final Tensor y;

        /** By element, the sum of the squares of what may be rounded on the way to it. */
        public final double[] squares;

        /**
         * Computes.
         *
         * @param arena owner of the memory of y
         * @param x tokens
         * @param classes the experts
         * @param routing in: topkIds, topkWeights; ids of no expert here add nothing
         * @param residual what else is added; no identity
         */
        public Oracle(
                Arena arena,
                Tensor x,
                List<ExpertWeights> classes,
                Routing routing,
                Residual residual) {
            int hidden = (int) x.dim(1);
            y = Tensor.allocate(arena, DType.F64, x.shape());
            squares = new double[(int) y.numElements()];
            Tensor addend = residual.addend();
            for (int i = 0; addend != null && i < squares.length; i++) {
                y.setDouble(i, addend.getDouble(i % addend.numElements()));
            }
            for (int slot = 0; slot < routing.topkIds().numElements(); slot++) {
                int expert = routing.topkIds().getInt(slot);
                double weight = residual.factor() * routing.topkWeights().getDouble(slot);
                for (ExpertWeights ofClass : classes) {
                    if (expert >= 0 && expert < ofClass.numExperts()) {
                        add(x, slot / routing.topK(), ofClass, expert, weight, hidden);
                    }
                    expert -= ofClass.numExperts();
                }
            }
        }

        private void add(
                Tensor x, int token, ExpertWeights bank, int expert, double weight, int hidden) {
            int width = (int) bank.intermediate();
            double[] inner = new double[width];
            for (int i = 0; i < width; i++) {
                double gate = 0;
                double up = 0;
                for (int h = 0; h < hidden; h++) {
                    double value = x.getDouble((long) token * hidden + h);
                    long first = 2L * expert * width;
                    gate += value * bank.gateUp().getDouble((first + i) * hidden + h);
                    up += value * bank.gateUp().getDouble((first + width + i) * hidden + h);
                }
                inner[i] = gate / (1 + Math.exp(-gate)) * up;
            }
            for (int h = 0; h < hidden; h++) {
                double sum = 0;
                double terms = 0;
                for (int i = 0; i < width; i++) {
                    double down = bank.down().getDouble(((long) expert * hidden + h) * width + i);
                    sum += down * inner[i];
                    terms += down * inner[i] * down * inner[i];
                }
                int at = token * hidden + h;
                y.setDouble(at, y.getDouble(at) + weight * sum);
                squares[at] += weight * weight * (sum * sum + terms);
            }
        }
    }
}
