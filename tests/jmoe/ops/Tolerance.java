package jmoe.ops;

import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Tensor;

/**
 * The one formula for how far a backend may be from the reference: an element passes if
 *
 * <pre>
 * |got - want| &lt;= eps(out) |want| + 4 eps(acc) sqrt(reduction) rms(want) + eps(mid) rms(want)
 * </pre>
 *
 * with one last term per stored intermediate. {@code want} comes from the reference in double on
 * the same inputs; rms is taken over its finite elements. NaN equals NaN, infinities equal
 * infinities of their sign, and what rounds to infinity in the output type must be infinite.
 *
 * <p>eps of a stored type is half its unit in the last place: a result that was truncated instead
 * of rounded fails. eps(acc) is a whole unit of F32, since the accumulators of tensor cores
 * truncate.
 */
public final class Tolerance {
    private static final double ACCUMULATOR = 0x1p-23;
    private static final double SAFETY = 4;

    /** Dependent roundings of an activation: exp, sum, quotient, two products. */
    public static final double ACTIVATION_ROUNDINGS = 5;

    /** Largest slope of x sigmoid(x), and of x sigmoid(a x) for any a. */
    private static final double SILU_SLOPE = 1.1;

    private Tolerance() {}

    /** Largest relative error of one rounding to the type. */
    private static double eps(DType dtype) {
        return switch (dtype) {
            case F64 -> 0x1p-53;
            case F32 -> 0x1p-24;
            case F16 -> 0x1p-11;
            case BF16 -> 0x1p-8;
            default -> throw new IllegalArgumentException(dtype + " is not rounded to");
        };
    }

    /**
     * Fails at the worst element, if any, that is too far from what was wanted.
     *
     * @param op operation, for the message
     * @param name case, for the message
     * @param got result of the backend
     * @param want result of the reference, F64, same number of elements
     * @param reduction terms of the longest sum behind an element
     * @param intermediates types in which the backend stored what it computed on the way
     */
    public static void assertClose(
            String op,
            String name,
            Tensor got,
            Tensor want,
            double reduction,
            DType... intermediates) {
        double rms = rms(want);
        double base = SAFETY * ACCUMULATOR * Math.sqrt(reduction) * rms;
        for (DType intermediate : intermediates) {
            base += eps(intermediate) * rms;
        }
        double eps = eps(got.dtype());
        double worstExcess = 0;
        long worst = -1;
        for (long i = 0; i < want.numElements(); i++) {
            double excess = excess(got.getDouble(i), want.getDouble(i), eps, base, got.dtype());
            if (excess > worstExcess) {
                worstExcess = excess;
                worst = i;
            }
        }
        if (worst >= 0) {
            double w = want.getDouble(worst);
            throw new AssertionError(
                    "%s, %s: element %d of %s: got %s, want %s, bound %s"
                            .formatted(
                                    op,
                                    name,
                                    worst,
                                    got.describe(),
                                    got.getDouble(worst),
                                    w,
                                    eps * Math.abs(w) + base));
        }
    }

    /**
     * As {@link #assertClose}, where numbers that were rounded on the way are large for some
     * elements and small for others: instead of their type's eps of rms(want), an element may be
     * off by four times that of the root of the sum of their squares, each as it enters the
     * element.
     *
     * @param op operation, for the message
     * @param name case, for the message
     * @param got result of the backend
     * @param want result of the reference, F64, same number of elements
     * @param reduction terms of the longest sum behind an element
     * @param intermediate in which numbers were stored on the way
     * @param squares by element, the sum of the squares of these numbers
     */
    public static void assertRounded(
            String op,
            String name,
            Tensor got,
            Tensor want,
            double reduction,
            DType intermediate,
            double[] squares) {
        double base = SAFETY * ACCUMULATOR * Math.sqrt(reduction) * rms(want);
        double eps = eps(got.dtype());
        for (int i = 0; i < squares.length; i++) {
            double w = want.getDouble(i);
            double around = base + SAFETY * eps(intermediate) * Math.sqrt(squares[i]);
            if (excess(got.getDouble(i), w, eps, around, got.dtype()) > 0) {
                throw new AssertionError(
                        "%s, %s: element %d of %s: got %s, want %s, bound %s"
                                .formatted(
                                        op,
                                        name,
                                        i,
                                        got.describe(),
                                        got.getDouble(i),
                                        w,
                                        eps * Math.abs(w) + around));
            }
        }
    }

    /**
     * As {@link #assertClose}, for an activation of sums that were rounded: an error of the gate is
     * multiplied by the up half and one of the up half by the gate.
     *
     * @param op operation, for the message
     * @param name case, for the message
     * @param got [rows, I], result of the backend
     * @param want F64 [rows, I], result of the reference
     * @param gateUp F64 [rows, 2I] or [rows, I], what the reference activated
     * @param activation the function
     * @param reduction terms of a sum
     */
    public static void assertActivation(
            String op,
            String name,
            Tensor got,
            Tensor want,
            Tensor gateUp,
            Activation activation,
            double reduction) {
        double sumError = SAFETY * ACCUMULATOR * Math.sqrt(reduction) * rms(gateUp);
        double roundings = SAFETY * ACCUMULATOR * Math.sqrt(ACTIVATION_ROUNDINGS);
        long width = want.dim(1);
        for (long row = 0; row < want.dim(0); row++) {
            for (long i = 0; i < width; i++) {
                long at = row * width + i;
                double last = Math.abs(gateUp.row(row).getDouble(gateUp.dim(1) - width + i));
                double gate = activation.gated() ? gateUp.row(row).getDouble(i) : 0;
                double slope =
                        switch (activation.kind()) {
                            case SWIGLU -> SILU_SLOPE * last + Math.abs(gate);
                            case CLAMPED_SWIGLU -> SILU_SLOPE * (last + 1) + Math.abs(gate);
                            case SILU -> SILU_SLOPE;
                            case RELU -> 1;
                            case SQUARED_RELU -> 2 * last;
                        };
                double w = want.getDouble(at);
                double base = slope * sumError + roundings * Math.abs(w);
                if (excess(got.getDouble(at), w, eps(got.dtype()), base, got.dtype()) > 0) {
                    throw new AssertionError(
                            "%s, %s: row %d, column %d of %s: got %s, want %s, bound %s"
                                    .formatted(
                                            op,
                                            name,
                                            row,
                                            i,
                                            got.describe(),
                                            got.getDouble(at),
                                            w,
                                            base + eps(got.dtype()) * Math.abs(w)));
                }
            }
        }
    }

    /**
     * Fails unless a sum is what its terms add up to; the terms were rounded to F32 once.
     *
     * @param op operation, for the message
     * @param name case, for the message
     * @param got the sum, computed another way
     * @param terms exact terms
     */
    public static void assertSum(String op, String name, double got, double[] terms) {
        double want = 0;
        double squares = 0;
        for (double term : terms) {
            want += term;
            squares += term * term;
        }
        // sqrt(reduction) rms(terms), the size of a random sum, is the root of the squares.
        double bound = eps(DType.F32) * Math.abs(want) + SAFETY * ACCUMULATOR * Math.sqrt(squares);
        if (!(Math.abs(got - want) <= bound)) {
            throw new AssertionError(
                    "%s, %s: got %s, want %s, bound %s".formatted(op, name, got, want, bound));
        }
    }

    /** 0 if the element passes, else how far it is beyond its bound, in bounds. */
    private static double excess(double got, double want, double eps, double base, DType out) {
        double rounded = rounded(want, out);
        if (got == rounded || got != got && want != want) {
            return 0;
        }
        double bound = eps * Math.abs(want) + base;
        double error = Math.abs(got - want);
        if (!Double.isFinite(got) || !Double.isFinite(rounded)) {
            return Double.POSITIVE_INFINITY;
        }
        return error <= bound ? 0 : error / bound;
    }

    /** The nearest number of the type: what overflows becomes infinite. */
    private static double rounded(double want, DType out) {
        return switch (out) {
            case F32 -> (float) want;
            case F16 -> Floats.f16ToFloat(Floats.doubleToF16(want));
            case BF16 -> Floats.bf16ToFloat(Floats.doubleToBf16(want));
            default -> want;
        };
    }

    private static double rms(Tensor want) {
        double squares = 0;
        long finite = 0;
        for (long i = 0; i < want.numElements(); i++) {
            double value = want.getDouble(i);
            if (Double.isFinite(value)) {
                squares += value * value;
                finite++;
            }
        }
        return finite == 0 ? 0 : Math.sqrt(squares / finite);
    }
}
