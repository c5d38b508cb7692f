package jmoe.train;

import jmoe.tensor.Check;
import jmoe.tensor.Tensor;

/**
 * {@code coefficient / E^2 sum_ij (w_i . w_j - [i = j])^2} over the rows of a router's weight, each
 * divided by its length: keeps experts from being asked for by the same tokens (ERNIE 4.5). A row
 * of zeros is orthogonal to all, and 1 away from having a length.
 *
 * @param coefficient 0.001 there
 */
public record RouterOrthogonality(double coefficient) {
    /**
     * The loss, times its coefficient.
     *
     * @param weight F32, F16, BF16 or F64 [numExperts, hidden], on the host
     * @return its value; 0 without experts
     */
    public double value(Tensor weight) {
        Check.floating("weight", weight, "[numExperts, hidden]", 2);
        Check.host("weight", weight);
        int numExperts = Math.toIntExact(weight.dim(0));
        double[][] rows = new double[numExperts][];
        for (int e = 0; e < numExperts; e++) {
            rows[e] = normalised(weight, e);
        }
        double sum = 0;
        for (int i = 0; i < numExperts; i++) {
            for (int j = 0; j <= i; j++) {
                double off = dot(rows[i], rows[j]) - (i == j ? 1 : 0);
                sum += (i == j ? 1 : 2) * off * off;
            }
        }
        return numExperts == 0 ? 0 : coefficient * sum / ((double) numExperts * numExperts);
    }

    private static double[] normalised(Tensor weight, int expert) {
        double[] row = new double[Math.toIntExact(weight.dim(1))];
        for (int h = 0; h < row.length; h++) {
            row[h] = weight.getDouble((long) expert * row.length + h);
        }
        double length = Math.sqrt(dot(row, row));
        for (int h = 0; h < row.length && length > 0; h++) {
            row[h] /= length;
        }
        return row;
    }

    private static double dot(double[] a, double[] b) {
        double sum = 0;
        for (int h = 0; h < a.length; h++) {
            sum += a[h] * b[h];
        }
        return sum;
    }
}
