package jmoe.ops;

import jmoe.ops.Kernels.Residual;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * Constant experts as Jin et al. 2024 write them, in double: {@code E(x) = a1 x + a2 v} with {@code
 * [a1, a2] = softmax(W x)}.
 */
public final class ConstantOracle {
    /** Roundings of the softmax and of the sum of a slot, besides those of the logits. */
    private static final double ROUNDINGS = 8;

    /** F64 [tokens, H]: addend and constant experts. */
    public final Tensor y;

    /** By element, the sum of the squares of what may be off by a rounding of F32 on the way. */
    public final double[] squares;

    /**
     * Computes.
     *
     * @param arena owner of the memory of y
     * @param x tokens
     * @param routing in: topkIds, topkWeights
     * @param experts the constants
     * @param firstId id of the first one
     * @param residual addend and factor
     */
    public ConstantOracle(
            Arena arena,
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual) {
        int hidden = (int) x.dim(1);
        y = Tensor.allocate(arena, DType.F64, x.shape());
        squares = new double[(int) y.numElements()];
        Tensor addend = residual.addend();
        for (int i = 0; addend != null && i < squares.length; i++) {
            y.setDouble(i, addend.getDouble(i % addend.numElements()));
        }
        for (int slot = 0; slot < routing.topkIds().numElements(); slot++) {
            int id = routing.topkIds().getInt(slot);
            double weight = residual.factor() * routing.topkWeights().getDouble(slot);
            for (int c = 0; c < experts.numConstants(); c++) {
                if (id == firstId + c && weight != 0) {
                    add(x, slot / routing.topK() * hidden, experts, c, weight, hidden);
                }
            }
        }
    }

    private void add(
            Tensor x, int first, ConstantExperts experts, int c, double weight, int hidden) {
        double[] logits = new double[2];
        double terms = 0;
        for (int row = 0; row < 2; row++) {
            for (int h = 0; h < hidden; h++) {
                double mixing = experts.mixing().getDouble((2L * c + row) * hidden + h);
                double term = mixing * x.getDouble(first + h);
                logits[row] += term;
                terms += term * term;
            }
        }
        double largest = Math.max(logits[0], logits[1]);
        double ofX = Math.exp(logits[0] - largest);
        double ofV = Math.exp(logits[1] - largest);
        double a1 = ofX / (ofX + ofV);
        double a2 = ofV / (ofX + ofV);
        double moved = a1 * a2 * Math.sqrt((hidden + ROUNDINGS) * terms);
        for (int h = 0; h < hidden; h++) {
            double own = x.getDouble(first + h);
            double v = experts.vectors().getDouble((long) c * hidden + h);
            int at = first + h;
            y.setDouble(at, y.getDouble(at) + weight * (a1 * own + a2 * v));
            double roundings = ROUNDINGS * (a1 * own * a1 * own + a2 * v * a2 * v);
            squares[at] += weight * weight * (moved * moved * (own - v) * (own - v) + roundings);
        }
    }
}
