package jmoe.vector;

import jdk.incubator.vector.FloatVector;

import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

/** {@code y[r] = factor x[r] / (|x[r]| + epsilon)}, rows in parallel. */
final class NormaliseRows {
    /** Elements that are worth handing to another thread. */
    private static final long GRAIN_ELEMENTS = 16 * 1024;

    private final Workers workers;
    private final float[][] first;
    private final float[][] second;

    NormaliseRows(Workers workers) {
        this.workers = workers;
        first = new float[workers.count()][Chunks.COLUMNS];
        second = new float[workers.count()][Chunks.COLUMNS];
    }

    void normalise(Tensor x, double factor, double epsilon, Tensor y) {
        Elements in = Elements.of(x, workers);
        Elements out = Elements.of(y, workers);
        long columns = x.dim(1);
        long grain = Math.max(1, GRAIN_ELEMENTS / Math.max(1, columns));
        workers.run(
                x.dim(0),
                grain,
                (worker, from, to) -> {
                    for (long row = from; row < to; row++) {
                        double squares = squares(in, row, columns, first[worker], second[worker]);
                        float multiplier = (float) (factor / (Math.sqrt(squares) + epsilon));
                        multiply(in, row, columns, multiplier, first[worker], out);
                    }
                });
    }

    private static double squares(Elements in, long row, long columns, float[] a, float[] b) {
        double squares = 0;
        for (long column = 0; column < columns; column += Chunks.COLUMNS) {
            int count = (int) Math.min(Chunks.COLUMNS, columns - column);
            in.read(row * columns + column, count, a, 0);
            System.arraycopy(a, 0, b, 0, Lanes.padded(count));
            squares += DotProduct.of(a, b, Lanes.padded(count));
        }
        return squares;
    }

    private static void multiply(
            Elements in, long row, long columns, float factor, float[] values, Elements out) {
        for (long column = 0; column < columns; column += Chunks.COLUMNS) {
            int count = (int) Math.min(Chunks.COLUMNS, columns - column);
            in.read(row * columns + column, count, values, 0);
            for (int i = 0; i < count; i += Lanes.COUNT) {
                FloatVector.fromArray(Lanes.FLOATS, values, i).mul(factor).intoArray(values, i);
            }
            out.write(values, 0, count, row * columns + column);
        }
    }
}
