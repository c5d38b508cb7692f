package jmoe.reference;

import jmoe.tensor.Tensor;

/**
 * A softmax over tokens for each expert. NaN and infinite maxima mean what they do over experts.
 */
final class ReferenceColumns {
    private final double[] maxima;
    private final double[] sums;
    private final boolean[] undefined;

    /** Looks at the tokens that are served. */
    ReferenceColumns(Tensor logits, boolean[] served, int numExperts) {
        maxima = new double[numExperts];
        sums = new double[numExperts];
        undefined = new boolean[numExperts];
        for (int e = 0; e < numExperts; e++) {
            double max = Double.NEGATIVE_INFINITY;
            for (int token = 0; token < served.length; token++) {
                double z = logits.getDouble((long) token * numExperts + e);
                undefined[e] |= served[token] && Double.isNaN(z);
                max = served[token] && z > max ? z : max;
            }
            undefined[e] |= Double.isInfinite(max);
            maxima[e] = max;
            for (int token = 0; token < served.length; token++) {
                double z = logits.getDouble((long) token * numExperts + e);
                sums[e] += served[token] && !Double.isNaN(z) ? power(z, max) : 0;
            }
        }
    }

    private static double power(double z, double max) {
        return Math.exp(z == max ? 0 : z - max);
    }

    /** The scores of a token, and which of them are undefined. */
    void score(double[] logits, double[] scores, boolean[] isUndefined) {
        for (int e = 0; e < logits.length; e++) {
            scores[e] = power(logits[e], maxima[e]) / sums[e];
            isUndefined[e] = undefined[e];
        }
    }
}
