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
 *
 * <p>With an I8 weight a backend may round the rows of x as well, see {@link Kernels#groupedGemm};
 * what that may add to each sum is {@link #roundedRows}.
 */
public final class Tolerance {
    private static final double ACCUMULATOR = 0x1p-23;
    private static final double SAFETY = 4;

    /** Dependent roundings of an activation: exp, sum, quotient, two products. */
    public static final double ACTIVATION_ROUNDINGS = 5;

    /** Largest slope of x sigmoid(x), and of x sigmoid(a x) for any a. */
    private static final double SILU_SLOPE = 1.1;

    /** Largest slope of x Phi(x), at sqrt 2, and of its approximation by tanh. */
    private static final double GELU_SLOPE = 1.13;

    /** Largest slope of the sigmoid. */
    private static final double SIGMOID_SLOPE = 0.25;

    /** Steps on one side of zero to which a row of x may be rounded. */
    private static final int STEPS = 127;

    /** Sums of uniform errors are beyond so many of their deviations once in 500 million. */
    private static final double DEVIATIONS = 6;

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
        double[] none = new double[Math.toIntExact(want.numElements())];
        assertClose(op, name, got, want, reduction, none, intermediates);
    }

    /**
     * As {@link #assertClose(String, String, Tensor, Tensor, double, DType...)}, where an element
     * may be off by more.
     *
     * @param op operation, for the message
     * @param name case, for the message
     * @param got result of the backend
     * @param want result of the reference, F64, same number of elements
     * @param reduction terms of the longest sum behind an element
     * @param more by element, in addition
     * @param intermediates types in which the backend stored what it computed on the way
     */
    public static void assertClose(
            String op,
            String name,
            Tensor got,
            Tensor want,
            double reduction,
            double[] more,
            DType... intermediates) {
        double rms = rms(want);
        double base = SAFETY * ACCUMULATOR * Math.sqrt(reduction) * rms;
        for (DType intermediate : intermediates) {
            base += eps(intermediate) * rms;
        }
        double eps = eps(got.dtype());
        double worstExcess = 0;
        int worst = -1;
        for (int i = 0; i < want.numElements(); i++) {
            double bound = base + more[i];
            double excess = excess(got.getDouble(i), want.getDouble(i), eps, bound, got.dtype());
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
                                    eps * Math.abs(w) + base + more[worst]));
        }
    }

    /**
     * How far sums may be off because the rows of x were rounded to {@code s = max|x| / 127} times
     * whole numbers. That puts each x off by at most s / 2, anything in between being equally
     * likely: by a deviation of s / sqrt(12), and the sum over the inputs by
     *
     * <pre>
     * 6 s / sqrt(12) sqrt(sum w^2)       never more than        s / 2 sum |w|
     * </pre>
     *
     * <p>Where {@code 1 / s} is no F32, all of x may be missing.
     *
     * @param x [rows, inputs] what is multiplied, before it is rounded
     * @param weight [groups, outputs, inputs]
     * @param expertOffsets I32 [groups + 1]
     * @return by element of the result, as many rows as have a group
     */
    public static double[] roundedRows(Tensor x, Tensor weight, Tensor expertOffsets) {
        int inputs = (int) weight.dim(2);
        int outputs = (int) weight.dim(1);
        double[] more = new double[Cases.rows(expertOffsets) * outputs];
        // What F32 makes of x in steps may be on the other side of the middle between two.
        double half = 0.5 + STEPS * ACCUMULATOR;
        double deviations = DEVIATIONS / Math.sqrt(12);
        for (int e = 0; e < weight.dim(0); e++) {
            for (int row = expertOffsets.getInt(e); row < expertOffsets.getInt(e + 1); row++) {
                double step = 0;
                for (int k = 0; k < inputs; k++) {
                    double size = Math.abs(x.getDouble((long) row * inputs + k));
                    step = Math.max(step, size / STEPS);
                }
                for (int n = 0; n < outputs; n++) {
                    double sum = 0;
                    double squares = 0;
                    for (int k = 0; k < inputs; k++) {
                        double w = weight.getDouble(((long) e * outputs + n) * inputs + k);
                        sum += Math.abs(w);
                        squares += w * w;
                    }
                    double usual = deviations * step * Math.sqrt(squares);
                    more[row * outputs + n] =
                            1 / step > Float.MAX_VALUE
                                    ? STEPS * step * sum
                                    : Math.min(usual, half * step * sum);
                }
            }
        }
        return more;
    }

    /**
     * Fails unless rows of x were rounded to nearest, if at all: then errors have the deviation
     * that {@link #roundedRows} reckons with, while truncating doubles it. Only for many sums of
     * many terms.
     *
     * @param op operation, for the message
     * @param name case, for the message
     * @param got F32, result of the backend
     * @param want F64, result of the reference
     * @param more from {@link #roundedRows}
     */
    public static void assertNearest(
            String op, String name, Tensor got, Tensor want, double[] more) {
        double squares = 0;
        for (int i = 0; i < more.length; i++) {
            double deviation = more[i] / DEVIATIONS;
            double error = (got.getDouble(i) - want.getDouble(i)) / deviation;
            squares += error * error;
        }
        double rms = Math.sqrt(squares / more.length);
        if (!(rms <= 1.1)) {
            throw new AssertionError(
                    "%s, %s: errors are %s times what rounding to nearest gives"
                            .formatted(op, name, rms));
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
        double[] none = new double[Math.toIntExact(gateUp.numElements())];
        assertActivation(op, name, got, want, gateUp, activation, reduction, none);
    }

    /**
     * As {@link #assertActivation(String, String, Tensor, Tensor, Tensor, Activation, double)},
     * where sums may be off by more.
     *
     * @param op operation, for the message
     * @param name case, for the message
     * @param got [rows, I], result of the backend
     * @param want F64 [rows, I], result of the reference
     * @param gateUp F64 [rows, 2I] or [rows, I], what the reference activated
     * @param activation the function
     * @param reduction terms of a sum
     * @param more by element of gateUp, in addition
     */
    public static void assertActivation(
            String op,
            String name,
            Tensor got,
            Tensor want,
            Tensor gateUp,
            Activation activation,
            double reduction,
            double[] more) {
        double sumError = SAFETY * ACCUMULATOR * Math.sqrt(reduction) * rms(gateUp);
        double roundings = SAFETY * ACCUMULATOR * Math.sqrt(ACTIVATION_ROUNDINGS);
        long width = want.dim(1);
        for (long row = 0; row < want.dim(0); row++) {
            for (long i = 0; i < width; i++) {
                long at = row * width + i;
                long gateAt = row * gateUp.dim(1) + i;
                long lastAt = gateAt + gateUp.dim(1) - width;
                double last = Math.abs(gateUp.getDouble(lastAt));
                double gate = activation.gated() ? Math.abs(gateUp.getDouble(gateAt)) : 0;
                double lastMore = more[(int) lastAt];
                double gateMore = more[(int) gateAt];
                double lastError = sumError + lastMore;
                double slope = gateSlope(activation.kind());
                double gateError = slope * (sumError + gateMore);
                // Where both are off by more, neither factor is what the reference has.
                double error =
                        switch (activation.kind()) {
                            case SWIGLU, GEGLU, GEGLU_TANH, REGLU, BILINEAR ->
                                    (last + lastMore) * gateError + gate * lastError;
                            case GLU -> (last + lastMore) * gateError + lastError;
                            case CLAMPED_SWIGLU ->
                                    (last + lastMore + 1) * gateError + gate * lastError;
                            case SILU -> SILU_SLOPE * lastError;
                            case GELU, GELU_TANH -> GELU_SLOPE * lastError;
                            case RELU, LINEAR -> lastError;
                            case SQUARED_RELU -> (2 * last + lastMore) * lastError;
                        };
                double w = want.getDouble(at);
                double base = error + roundings * Math.abs(w);
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

    /** Largest slope of what is multiplied by the up half. */
    private static double gateSlope(Activation.Kind kind) {
        return switch (kind) {
            case GEGLU, GEGLU_TANH -> GELU_SLOPE;
            case REGLU, BILINEAR -> 1;
            case GLU -> SIGMOID_SLOPE;
            default -> SILU_SLOPE;
        };
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
