package jmoe.reference;

import jmoe.ops.SingletonExperts;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/** Experts of a single neuron, one slot after the other. */
final class ReferenceSingletons {
    private ReferenceSingletons() {}

    static void sum(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        long topK = topkIds.dim(1);
        int hidden = Math.toIntExact(experts.hidden());
        double[] sum = new double[hidden];
        for (long token = 0; token < topkIds.dim(0); token++) {
            Arrays.fill(sum, 0);
            for (long slot = token * topK; slot < (token + 1) * topK; slot++) {
                long id = topkIds.getInt(slot);
                double weight = weights == null ? 1 : weights.getDouble(slot);
                if (id < 0 || id >= experts.numExperts() || weight == 0) {
                    continue;
                }
                double a = 0;
                for (int h = 0; h < hidden; h++) {
                    a += x.getDouble(token * hidden + h) * experts.up().getDouble(id * hidden + h);
                }
                double neuron = weight * ReferenceActivation.of(experts.activation(), 0, a);
                for (int h = 0; h < hidden && neuron != 0; h++) {
                    sum[h] += neuron * experts.down().getDouble(id * hidden + h);
                }
            }
            for (int h = 0; h < hidden; h++) {
                y.setDouble(token * hidden + h, sum[h]);
            }
        }
    }
}
