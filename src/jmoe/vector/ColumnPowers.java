package jmoe.vector;

import jmoe.threads.Workers;

/** A softmax over the tokens that are served, for each expert. */
final class ColumnPowers {
    private float[] maxima = new float[0];

    /** Of the powers; NaN where the softmax is undefined. */
    private double[] sums = new double[0];

    /** Sums up the columns of a batch. */
    void compute(Route.Batch batch, Workers workers) {
        int numExperts = batch.config().numExperts();
        if (maxima.length < numExperts) {
            maxima = new float[numExperts];
            sums = new double[numExperts];
        }
        workers.run(
                numExperts,
                1,
                (worker, from, to) -> {
                    for (int e = (int) from; e < to; e++) {
                        sum(batch, e);
                    }
                });
    }

    private void sum(Route.Batch batch, int expert) {
        int numExperts = batch.config().numExperts();
        boolean undefined = false;
        float max = Float.NEGATIVE_INFINITY;
        for (int token = 0; token < batch.tokens(); token++) {
            if (batch.serves(token)) {
                float z = batch.logits().getFloat((long) token * numExperts + expert);
                undefined |= Float.isNaN(z);
                max = z > max ? z : max;
            }
        }
        double sum = undefined || Float.isInfinite(max) ? Double.NaN : 0;
        for (int token = 0; token < batch.tokens() && !Double.isNaN(sum); token++) {
            if (batch.serves(token)) {
                float z = batch.logits().getFloat((long) token * numExperts + expert);
                sum += Math.exp((double) z - max);
            }
        }
        maxima[expert] = max;
        sums[expert] = sum;
    }

    /** The share of a token in an expert's softmax. */
    double score(double logit, int expert) {
        return Math.exp(logit - maxima[expert]) / sums[expert];
    }
}
