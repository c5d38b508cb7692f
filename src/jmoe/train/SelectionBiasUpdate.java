package jmoe.train;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

/**
 * Balance without a loss: after each step the selection bias of an expert rises if its load was
 * below the mean, and falls if it was above (Wang et al. 2024, DeepSeek-V3). Counts are those of
 * the whole step: with several batches or devices, of all of them together.
 *
 * @param rate 0.001 in DeepSeek-V3
 * @param form how the distance from the mean counts
 */
public record SelectionBiasUpdate(double rate, Form form) {
    /** How the distance d = mean - load counts. */
    public enum Form {
        /** b += rate sign(d), as published. */
        SIGN,
        /** b += rate d, in slots. */
        DIFFERENCE
    }

    /**
     * Changes a bias.
     *
     * @param selectionBias inout, F32 [numExperts], on the host
     * @param load of the step; ERNIE and Megatron take what was assigned
     */
    public void apply(Tensor selectionBias, ExpertLoad.Counts load) {
        long[] counts = load.perExpert();
        Check.vector("selectionBias", selectionBias, DType.F32, "numExperts", counts.length);
        Check.host("selectionBias", selectionBias);
        Check.writable("selectionBias", selectionBias);
        double mean = (double) load.sum() / counts.length;
        for (int e = 0; e < counts.length; e++) {
            double distance = mean - counts[e];
            double step = form == Form.SIGN ? Math.signum(distance) : distance;
            selectionBias.setDouble(e, selectionBias.getDouble(e) + rate * step);
        }
    }
}
