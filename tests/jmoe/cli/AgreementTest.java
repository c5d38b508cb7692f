package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;

final class AgreementTest {
    private static final double NAN = Double.NaN;
    private static final double INFINITY = Double.POSITIVE_INFINITY;

    private static final Agreement.NotFinite NONE = new Agreement.NotFinite(0, 0, 0);

    private final Arena arena = Arena.ofConfined();

    @AfterEach
    void close() {
        arena.close();
    }

    private Tensor floats(double... values) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, 1, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setDouble(i, values[i]);
        }
        return tensor;
    }

    private Tensor ints(int... values) {
        Tensor tensor = Tensor.allocate(arena, DType.I32, 1, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setInt(i, values[i]);
        }
        return tensor;
    }

    @Test
    void error_isRelativeToTheLargestExpected() {
        assertThat(Agreement.error(floats(1, -7), floats(1, -8))).isCloseTo(0.125, within(1e-12));
        assertThat(Agreement.error(floats(1, 2), floats(1, 2))).isZero();
        assertThat(Agreement.error(floats(), floats())).isZero();
    }

    @Test
    void error_ofNumbersThatAreNotFinite() {
        assertThat(Agreement.error(floats(NAN, 1), floats(NAN, 1))).isZero();
        assertThat(Agreement.error(floats(INFINITY, 1), floats(INFINITY, 1))).isZero();
        assertThat(Agreement.error(floats(NAN, 1), floats(0, 1))).isInfinite();
        assertThat(Agreement.error(floats(0, 1), floats(NAN, 1))).isInfinite();
        assertThat(Agreement.error(floats(INFINITY, 1), floats(0, 1))).isInfinite();
        assertThat(Agreement.error(floats(-INFINITY, 1), floats(INFINITY, 1))).isInfinite();
        assertThat(Agreement.error(floats(1e-9), floats(0))).isInfinite();
        assertThat(Agreement.error(floats(1), floats(1, 2))).isInfinite();
    }

    @Test
    void of_countsWhatIsNotFinite() {
        Tensor y = floats(NAN, -INFINITY, 1);
        Agreement.Result result = new Agreement.Result(floats(1), ints(5), floats(NAN), y);
        Agreement same = Agreement.of(result, result);
        assertThat(same.within()).isTrue();
        assertThat(same.notFinite()).isEqualTo(new Agreement.NotFinite(0, 1, 2));
        assertThat(same.worst(same).notFinite()).isEqualTo(new Agreement.NotFinite(0, 2, 4));
    }

    @Test
    void of_comparesExpertsAsSets() {
        Tensor y = floats(1, 2);
        Agreement same =
                Agreement.of(
                        new Agreement.Result(y, ints(5, 2), floats(0.75, 0.25), y),
                        new Agreement.Result(y, ints(2, 5), floats(0.25, 0.75), y));
        assertThat(same.within()).isTrue();
        assertThat(same.weights()).isZero();

        Agreement swapped =
                Agreement.of(
                        new Agreement.Result(y, ints(5, 2), floats(0.25, 0.75), y),
                        new Agreement.Result(y, ints(2, 5), floats(0.25, 0.75), y));
        assertThat(swapped.wrongTokens()).isZero();
        assertThat(swapped.within()).isFalse();

        Agreement other =
                Agreement.of(
                        new Agreement.Result(y, ints(5, 3), floats(0.75, 0.25), y),
                        new Agreement.Result(y, ints(2, 5), floats(0.25, 0.75), y));
        assertThat(other.wrongTokens()).isEqualTo(1);
        assertThat(other.within()).isFalse();
    }

    @Test
    void worst_takesTheLargerOfEach() {
        Agreement a = new Agreement(1, 0, 1e-7, 3e-7, 0, NONE);
        Agreement b = new Agreement(7, 2, 2e-7, 1e-7, 1e-3, NONE);
        assertThat(a.worst(b)).isEqualTo(new Agreement(8, 2, 2e-7, 3e-7, 1e-3, NONE));
        assertThat(a.within()).isTrue();
        assertThat(b.within()).isFalse();
        assertThat(new Agreement(1, 0, 0, 0, Double.NaN, NONE).within()).isFalse();
    }
}
