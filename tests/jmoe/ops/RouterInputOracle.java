package jmoe.ops;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/** {@link InputTransform}s once more, as the equations of their sources read. */
final class RouterInputOracle {
    private RouterInputOracle() {}

    /** What a jitter multiplies an element by. */
    static float factor(InputTransform.Jitter jitter, int token, int column, int step) {
        int[] counter = {token, column / 4, step, -1};
        long word = ShapeLogitsOracle.philox(counter, jitter.seed())[column % 4];
        double low = 1 - jitter.epsilon();
        double high = 1 + jitter.epsilon();
        return (float) (low + (high - low) * ((word + 0.5) / 0x1p32));
    }

    static Tensor jitter(Arena arena, Tensor x, InputTransform.Jitter jitter, int step) {
        Tensor want = Tensor.allocate(arena, DType.F64, x.shape());
        for (int token = 0; token < x.dim(0); token++) {
            for (int column = 0; column < x.dim(1); column++) {
                double value = x.row(token).getDouble(column);
                want.row(token).setDouble(column, value * factor(jitter, token, column, step));
            }
        }
        return want;
    }

    /** {@code <p / (|p| + epsilon), v / (|v| + epsilon)>} with {@code p = W x}, or x itself. */
    static Tensor cosines(
            Arena arena, Tensor x, @Nullable Tensor projection, Tensor weight, double epsilon) {
        Tensor want = Tensor.allocate(arena, DType.F64, x.dim(0), weight.dim(1));
        for (int token = 0; token < x.dim(0); token++) {
            double[] p = values(x, token, x.dim(1));
            if (projection != null) {
                double[] whole = p;
                p = new double[(int) projection.dim(1)];
                for (int i = 0; i < p.length; i++) {
                    p[i] = dot(whole, values(projection, i, whole.length));
                }
            }
            for (int e = 0; e < weight.dim(1); e++) {
                double[] v = values(weight, e, p.length);
                double lengths =
                        (Math.sqrt(dot(p, p)) + epsilon) * (Math.sqrt(dot(v, v)) + epsilon);
                want.row(token).setDouble(e, dot(p, v) / lengths);
            }
        }
        return want;
    }

    private static double[] values(Tensor matrix, long row, long columns) {
        double[] values = new double[(int) columns];
        for (int i = 0; i < columns; i++) {
            values[i] = matrix.getDouble(row * columns + i);
        }
        return values;
    }

    private static double dot(double[] a, double[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += a[i] * b[i];
        }
        return sum;
    }
}
