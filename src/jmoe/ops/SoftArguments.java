package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

/**
 * The argument checks of {@link Kernels#normaliseRows}, {@link Kernels#softDispatch} and {@link
 * Kernels#softCombine}, the same for every backend.
 */
public final class SoftArguments {
    private SoftArguments() {}

    /**
     * Checks the arguments of {@link Kernels#normaliseRows}.
     *
     * @param x as there
     * @param factor as there
     * @param epsilon as there
     * @param y as there
     */
    public static void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
        Check.floating("x", x, "[rows, columns]", 2);
        Check.rowMajor("x", x);
        if (!Double.isFinite(factor)) {
            throw new IllegalArgumentException("factor: expected a finite number, got " + factor);
        }
        if (!(epsilon >= 0 && epsilon < Double.POSITIVE_INFINITY)) {
            throw new IllegalArgumentException(
                    "epsilon: expected a finite number of at least 0, got " + epsilon);
        }
        output("y", y, "rows", x.dim(0), "columns", x.dim(1));
        Check.disjoint("y", y, "x", x);
    }

    /**
     * Checks the arguments of {@link Kernels#softDispatch}.
     *
     * @param x as there
     * @param logits as there
     * @param rows as there
     */
    public static void softDispatch(Tensor x, Tensor logits, Tensor rows) {
        Check.floating("x", x, "[tokens, hidden]", 2);
        Check.rowMajor("x", x);
        logits(logits, "tokens", x.dim(0), "numSlots", logits.rank() == 2 ? logits.dim(1) : 0);
        output("rows", rows, "numSlots", logits.dim(1), "hidden", x.dim(1));
        Check.disjoint("rows", rows, "x", x);
        Check.disjoint("rows", rows, "logits", logits);
    }

    /**
     * Checks the arguments of {@link Kernels#softCombine}.
     *
     * @param rows as there
     * @param logits as there
     * @param y as there
     */
    public static void softCombine(Tensor rows, Tensor logits, Tensor y) {
        Check.floating("rows", rows, "[numSlots, hidden]", 2);
        Check.rowMajor("rows", rows);
        logits(logits, "tokens", logits.rank() == 2 ? logits.dim(0) : 0, "numSlots", rows.dim(0));
        output("y", y, "tokens", logits.dim(0), "hidden", rows.dim(1));
        Check.disjoint("y", y, "rows", rows);
        Check.disjoint("y", y, "logits", logits);
    }

    private static void logits(
            Tensor logits, String rowDim, long rows, String columnDim, long columns) {
        Check.matrix("logits", logits, DType.F32, rowDim, rows, columnDim, columns);
        if (rows > Integer.MAX_VALUE || columns > Integer.MAX_VALUE) {
            throw Check.mismatch("logits", "fewer than 2^31 tokens and slots", logits);
        }
    }

    private static void output(
            String name, Tensor output, String rowDim, long rows, String columnDim, long columns) {
        Check.floatMatrix(name, output, rowDim, rows, columnDim, columns);
        Check.rowMajor(name, output);
        Check.writable(name, output);
    }
}
