package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;

import jdk.incubator.vector.DoubleVector;

import jmoe.ops.Selection;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * Sinkhorn's scales of experts. An iteration reads each row of powers once: its sum, and at once
 * what that adds to the sums of the columns, which chunks of tokens keep for themselves until all
 * are added in order.
 */
final class Sinkhorn {
    private static final int CHUNK_TOKENS = 64;
    private static final double LARGEST_SCALE = 1e30;

    private final Workers workers;
    private final @Nullable Powers[] powers;
    private final @Nullable TopK[] tops;
    private final double[][] laneSums;

    /** By chunk: rows of powers as F32, zero for tokens that are not served. */
    private double[][] kernel = new double[0][];

    /** By chunk: sums of the columns. */
    private double[][] columnSums = new double[0][];

    private double[] scales = new double[0];

    Sinkhorn(Workers workers) {
        this.workers = workers;
        powers = new Powers[workers.count()];
        tops = new TopK[workers.count()];
        laneSums = new double[workers.count()][Powers.DOUBLES.length()];
    }

    BatchChoice prepare(Route.Batch batch, Selection.Sinkhorn bounds) {
        int numExperts = batch.config().numExperts();
        int stride = Lanes.padded(numExperts);
        int chunks = Math.ceilDiv(batch.tokens(), CHUNK_TOKENS);
        int served = batch.countServed();
        if (kernel.length < chunks || scales.length != stride) {
            int chunkElements = Math.multiplyExact(CHUNK_TOKENS, stride);
            kernel = new double[chunks][chunkElements];
            columnSums = new double[chunks][stride];
            scales = new double[stride];
        }
        workers.run(chunks, 1, (worker, from, to) -> fillKernel(batch, worker, from, to));
        Arrays.fill(scales, 1);
        double change = Double.POSITIVE_INFINITY;
        for (int i = 0; i < bounds.maxIterations() && !(change < bounds.tolerance()); i++) {
            workers.run(
                    chunks,
                    1,
                    (worker, from, to) -> {
                        for (int chunk = (int) from; chunk < to; chunk++) {
                            sumColumns(chunk, laneSums[worker]);
                        }
                    });
            change = rescale(chunks, served, numExperts);
        }
        return (worker, token, ids) -> best(batch, worker, token, ids);
    }

    private Powers powers(int worker, int numExperts) {
        Powers own = powers[worker];
        if (own == null || !own.serves(numExperts)) {
            own = new Powers(numExperts);
            powers[worker] = own;
        }
        return own;
    }

    private void fillKernel(Route.Batch batch, int worker, long fromChunk, long toChunk) {
        Powers own = powers(worker, batch.config().numExperts());
        int stride = scales.length;
        for (int chunk = (int) fromChunk; chunk < toChunk; chunk++) {
            for (int i = 0; i < CHUNK_TOKENS; i++) {
                int token = chunk * CHUNK_TOKENS + i;
                if (token >= batch.tokens() || !batch.serves(token)) {
                    Arrays.fill(kernel[chunk], i * stride, (i + 1) * stride, 0);
                    continue;
                }
                own.compute(batch.logits(), token);
                for (int e = 0; e < stride; e++) {
                    kernel[chunk][i * stride + e] = (float) own.powers[e];
                }
            }
        }
    }

    private void sumColumns(int chunk, double[] lanes) {
        double[] rows = kernel[chunk];
        double[] sums = columnSums[chunk];
        int stride = scales.length;
        int step = Powers.DOUBLES.length();
        Arrays.fill(sums, 0);
        for (int row = 0; row < rows.length; row += stride) {
            DoubleVector sumOfLanes = DoubleVector.zero(Powers.DOUBLES);
            for (int e = 0; e < stride; e += step) {
                DoubleVector scale = DoubleVector.fromArray(Powers.DOUBLES, scales, e);
                sumOfLanes =
                        DoubleVector.fromArray(Powers.DOUBLES, rows, row + e)
                                .lanewise(FMA, scale, sumOfLanes);
            }
            sumOfLanes.intoArray(lanes, 0);
            double sum = 0;
            for (double lane : lanes) {
                sum += lane;
            }
            if (!(sum > 0)) {
                continue;
            }
            DoubleVector scale = DoubleVector.broadcast(Powers.DOUBLES, 1 / sum);
            for (int e = 0; e < stride; e += step) {
                DoubleVector before = DoubleVector.fromArray(Powers.DOUBLES, sums, e);
                DoubleVector.fromArray(Powers.DOUBLES, rows, row + e)
                        .lanewise(FMA, scale, before)
                        .intoArray(sums, e);
            }
        }
    }

    /** Ends an iteration; returns the mean change. */
    private double rescale(int chunks, int served, int numExperts) {
        double[] sums = columnSums.length == 0 ? new double[numExperts] : columnSums[0];
        for (int chunk = 1; chunk < chunks; chunk++) {
            for (int e = 0; e < numExperts; e++) {
                sums[e] += columnSums[chunk][e];
            }
        }
        double change = 0;
        for (int e = 0; e < numExperts; e++) {
            double scale = Math.min(served / (numExperts * sums[e]), LARGEST_SCALE);
            change += Math.abs(scale - scales[e]);
            scales[e] = scale;
        }
        return change / numExperts;
    }

    private int best(Route.Batch batch, int worker, int token, int[] ids) {
        TopK top = tops[worker];
        if (top == null || !top.keeps(ids.length)) {
            top = new TopK(ids.length);
            tops[worker] = top;
        }
        top.clear();
        int numExperts = batch.config().numExperts();
        Powers own = powers(worker, numExperts);
        own.read(batch.logits(), token);
        double[] rows = kernel[token / CHUNK_TOKENS];
        int first = token % CHUNK_TOKENS * scales.length;
        for (int e = 0; e < numExperts; e++) {
            boolean nan = Float.isNaN(own.row[e]);
            top.offer(nan ? Double.NaN : (float) (rows[first + e] * scales[e]), e);
        }
        top.drain(ids);
        return ids.length;
    }
}
