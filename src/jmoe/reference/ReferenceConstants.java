package jmoe.reference;

import jmoe.ops.ConstantExperts;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

import java.util.Arrays;

/** Constant experts, one slot after the other. */
final class ReferenceConstants {
    private ReferenceConstants() {}

    static void add(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        int topK = routing.topK();
        int hidden = Math.toIntExact(experts.hidden());
        Tensor addend = residual.addend();
        double[] sum = new double[hidden];
        for (long token = 0; token < routing.tokens(); token++) {
            Arrays.fill(sum, 0);
            for (long slot = token * topK; slot < (token + 1) * topK; slot++) {
                long constant = (long) routing.topkIds().getInt(slot) - firstId;
                double weight = routing.topkWeights().getDouble(slot);
                if (constant < 0 || constant >= experts.numConstants() || weight == 0) {
                    continue;
                }
                double ofX = logit(x, token, experts.mixing(), 2 * constant);
                double ofV = logit(x, token, experts.mixing(), 2 * constant + 1);
                double a1 = 1 / (1 + Math.exp(ofV - ofX));
                double a2 = 1 / (1 + Math.exp(ofX - ofV));
                for (int h = 0; h < hidden; h++) {
                    double own = x.getDouble(token * hidden + h);
                    double vector = experts.vectors().getDouble(constant * hidden + h);
                    sum[h] += weight * (a1 * own + a2 * vector);
                }
            }
            long base = addend != null && addend.dim(0) > 1 ? token * hidden : 0;
            for (int h = 0; h < hidden; h++) {
                double added = addend == null ? 0 : addend.getDouble(base + h);
                y.setDouble(token * hidden + h, added + residual.factor() * sum[h]);
            }
        }
    }

    private static double logit(Tensor x, long token, Tensor mixing, long row) {
        long hidden = x.dim(1);
        double sum = 0;
        for (long h = 0; h < hidden; h++) {
            sum += x.getDouble(token * hidden + h) * mixing.getDouble(row * hidden + h);
        }
        return sum;
    }
}
