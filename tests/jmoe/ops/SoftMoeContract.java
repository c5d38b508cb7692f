package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.util.Arrays;

/**
 * {@link Kernels#normaliseRows}, {@link Kernels#softDispatch} and {@link Kernels#softCombine},
 * against the equations of Puigcerver et al. 2023: D and C as matrices, and their products.
 */
interface SoftMoeContract extends Contract {
    /** Slots are experts here; the pattern decides nothing. */
    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void softDispatchAndCombine_areWhatTheEquationsSay(Case c) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Cases.normal(arena, DType.F32, c.seed(), c.tokens(), c.numExperts());
            Tensor x = Cases.normal(arena, c.dtype(0), 1, c.tokens(), c.hidden());
            Tensor slots = Cases.normal(arena, c.dtype(0), 2, c.numExperts(), c.hidden());
            dispatch(c.toString(), x, logits, c.dtype(1));
            combine(c.toString(), slots, logits, c.dtype(2));
        }
    }

    @Tag("broad")
    @Test
    default void softDispatchAndCombine_mixAllTypes() {
        // Columns of whole vectors, of no whole one, and of more than a tile.
        for (int hidden : new int[] {72, 37, 515}) {
            try (Arena arena = Arena.ofConfined()) {
                Tensor logits = Cases.normal(arena, DType.F32, 3, 35, 41);
                for (DType from : Cases.FLOATING) {
                    Tensor x = Cases.normal(arena, from, 1, 35, hidden);
                    Tensor slots = Cases.normal(arena, from, 2, 41, hidden);
                    for (DType to : Cases.FLOATING) {
                        dispatch("H=" + hidden, x, logits, to);
                        combine("H=" + hidden, slots, logits, to);
                    }
                }
            }
        }
    }

    /** Logits so far apart that exponentials overflow, or that one source is all there is. */
    @ParameterizedTest
    @ValueSource(doubles = {0, 30, 1e4, 1e30})
    default void softDispatchAndCombine_ofLargeLogits_areWhatTheEquationsSay(double spread) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Cases.normal(arena, DType.F32, 3, 19, 23);
            for (int i = 0; i < logits.numElements(); i++) {
                logits.setDouble(i, spread * logits.getDouble(i));
            }
            Tensor x = Cases.normal(arena, DType.F32, 1, 19, 9);
            Tensor slots = Cases.normal(arena, DType.F32, 2, 23, 9);
            dispatch("spread " + spread, x, logits, DType.F32);
            combine("spread " + spread, slots, logits, DType.F32);
        }
    }

    /** NaN and infinities stay in the slots and tokens whose softmax they belong to. */
    @Test
    default void softDispatchAndCombine_ofSpecialLogits_areWhatTheEquationsSay() {
        double[] special = {Double.NaN, 1 / 0.0, -1 / 0.0};
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.F32, 1, 5, 9);
            Tensor slots = Cases.normal(arena, DType.F32, 2, 7, 9);
            for (double value : special) {
                Tensor logits = Cases.normal(arena, DType.F32, 3, 5, 7);
                logits.setDouble(2 * 7 + 3, value);
                dispatch("one " + value, x, logits, DType.F32);
                combine("one " + value, slots, logits, DType.F32);
                for (int i = 0; i < 7; i++) {
                    logits.setDouble(4 * 7 + i, value);
                }
                for (int t = 0; t < 5; t++) {
                    logits.setDouble(t * 7 + 6, value);
                }
                dispatch("all " + value, x, logits, DType.F32);
                combine("all " + value, slots, logits, DType.F32);
            }
        }
    }

    /** Nothing to mix gives zeros, nowhere to mix to nothing. */
    @Test
    default void softDispatchAndCombine_takeNoTokensAndNoSlots() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor none = Tensor.allocate(arena, DType.F32, 0, 5);
            Tensor some = Cases.normal(arena, DType.F32, 1, 3, 5);
            dispatch("no tokens", none, Tensor.allocate(arena, DType.F32, 0, 3), DType.F32);
            dispatch("no slots", some, Tensor.allocate(arena, DType.F32, 3, 0), DType.F32);
            combine("no slots", none, Tensor.allocate(arena, DType.F32, 3, 0), DType.F32);
            combine("no tokens", some, Tensor.allocate(arena, DType.F32, 0, 3), DType.F32);
        }
    }

    @Tag("broad")
    @Test
    default void normaliseRows_isWhatTheEquationSays() {
        for (int columns : new int[] {1, 7, 8, 37, 72, 2056}) {
            for (DType from : Cases.FLOATING) {
                for (DType to : Cases.FLOATING) {
                    for (double epsilon : new double[] {0, 1e-6, 0.5}) {
                        normaliseRows(columns, from, epsilon, to);
                    }
                }
            }
        }
    }

    private void normaliseRows(int columns, DType from, double epsilon, DType to) {
        try (Arena arena = Arena.ofConfined()) {
            String name = "%d columns, %s to %s, epsilon %s".formatted(columns, from, to, epsilon);
            Tensor x = Cases.normal(arena, from, columns, 11, columns);
            for (int i = 0; i < columns; i++) {
                x.setDouble(3L * columns + i, 0);
            }
            Tensor want = Tensor.allocate(arena, DType.F64, 11, columns);
            for (int row = 0; row < 11; row++) {
                double squares = 0;
                for (int i = 0; i < columns; i++) {
                    squares += Math.pow(x.getDouble((long) row * columns + i), 2);
                }
                for (int i = 0; i < columns; i++) {
                    long at = (long) row * columns + i;
                    want.setDouble(at, -3 * x.getDouble(at) / (Math.sqrt(squares) + epsilon));
                }
            }
            Poisoned y = Poisoned.allocate(arena, to, 11, columns);
            backend().normaliseRows(x, -3, epsilon, y.tensor());
            Tolerance.assertClose("normaliseRows", name, y.tensor(), want, columns + 3);
            y.assertUntouchedFrom("normaliseRows", name, 11);
        }
    }

    @Test
    default void normaliseRows_refusesNumbersThatAreNone() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Tensor.allocate(arena, DType.F32, 2, 3);
            Tensor y = Tensor.allocate(arena, DType.F32, 2, 3);
            assertThatThrownBy(() -> backend().normaliseRows(x, 1 / 0.0, 0, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("factor: expected a finite number, got Infinity");
            assertThatThrownBy(() -> backend().normaliseRows(x, 1, -1, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("epsilon: expected a finite number of at least 0, got -1.0");
        }
    }

    /** A token's mixture depends on its own logits only. */
    @Test
    default void softCombine_doesNotDependOnBatch() {
        Case c = new Case(37, 45, 1, 70, 1, Pattern.UNIFORM);
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Cases.normal(arena, DType.F32, 1, c.tokens(), c.numExperts());
            Tensor slots = Cases.normal(arena, DType.BF16, 2, c.numExperts(), c.hidden());
            Tensor y = Tensor.allocate(arena, DType.F32, c.tokens(), c.hidden());
            backend().softCombine(slots, logits, y);
            for (int first : new int[] {0, 1, 31, 36}) {
                Tensor own = Tensor.allocate(arena, DType.F32, 1, c.hidden());
                backend().softCombine(slots, logits.slice(first, 1), own);
                assertThat(own.data().mismatch(y.slice(first, 1).data()))
                        .as("token %d", first)
                        .isEqualTo(-1);
            }
        }
    }

    private void dispatch(String name, Tensor x, Tensor logits, DType out) {
        int tokens = (int) logits.dim(0);
        int slots = (int) logits.dim(1);
        double[][] weights = new double[slots][tokens];
        for (int s = 0; s < slots; s++) {
            for (int t = 0; t < tokens; t++) {
                weights[s][t] = logits.getDouble((long) t * slots + s);
            }
        }
        try (Arena arena = Arena.ofConfined()) {
            Tensor want = mixed(arena, weights, x);
            Poisoned rows = Poisoned.allocate(arena, out, slots, x.dim(1));
            backend().softDispatch(x, logits, rows.tensor());
            String full = "%s, x %s to %s".formatted(name, x, out);
            Tolerance.assertClose("softDispatch", full, rows.tensor(), want, 2.0 * tokens + 8);
            rows.assertUntouchedFrom("softDispatch", full, slots);
        }
    }

    private void combine(String name, Tensor rows, Tensor logits, DType out) {
        int tokens = (int) logits.dim(0);
        int slots = (int) logits.dim(1);
        double[][] weights = new double[tokens][slots];
        for (int t = 0; t < tokens; t++) {
            for (int s = 0; s < slots; s++) {
                weights[t][s] = logits.getDouble((long) t * slots + s);
            }
        }
        try (Arena arena = Arena.ofConfined()) {
            Tensor want = mixed(arena, weights, rows);
            Poisoned y = Poisoned.allocate(arena, out, tokens, rows.dim(1));
            backend().softCombine(rows, logits, y.tensor());
            String full = "%s, rows %s to %s".formatted(name, rows, out);
            Tolerance.assertClose("softCombine", full, y.tensor(), want, 2.0 * slots + 8);
            y.assertUntouchedFrom("softCombine", full, tokens);
        }
    }

    /** Each row of logits as a softmax, times the matrix. */
    private static Tensor mixed(Arena arena, double[][] logits, Tensor from) {
        int hidden = (int) from.dim(1);
        Tensor sums = Tensor.allocate(arena, DType.F64, logits.length, hidden);
        for (int i = 0; i < logits.length; i++) {
            double[] weights = softmax(logits[i]);
            for (int h = 0; h < hidden; h++) {
                double sum = 0;
                for (int j = 0; j < weights.length; j++) {
                    sum += weights[j] * from.getDouble((long) j * hidden + h);
                }
                sums.setDouble((long) i * hidden + h, sum);
            }
        }
        return sums;
    }

    /** By quotients: 1 / sum_j exp(z_j - z_i). */
    private static double[] softmax(double[] z) {
        double[] weights = new double[z.length];
        double none = Double.NEGATIVE_INFINITY;
        boolean defined = Arrays.stream(z).anyMatch(v -> v > none);
        defined &= Arrays.stream(z).allMatch(v -> v < Double.POSITIVE_INFINITY);
        for (int i = 0; i < z.length; i++) {
            double own = z[i];
            double sum = Arrays.stream(z).map(v -> Math.exp(v - own)).sum();
            weights[i] = !defined ? Double.NaN : own == none ? 0 : 1 / sum;
        }
        return weights;
    }
}
