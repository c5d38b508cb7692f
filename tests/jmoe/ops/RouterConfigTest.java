package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Capacity.Priority;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.RouterConfig.Selection;

import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class RouterConfigTest {
    @ParameterizedTest
    @ValueSource(doubles = {-1e-9, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY})
    void records_refuseNumbersThatAreNegativeOrNotFinite(double wrong) {
        String atLeast0 = "a finite number of at least 0";
        assertRefused(() -> new Selection.SparseMixer(wrong), "jitter", atLeast0, wrong);
        assertRefused(() -> new Normalisation.Sum(wrong), "epsilon", atLeast0, wrong);
        assertRefused(() -> new Normalisation.ClampedSum(wrong), "min", atLeast0, wrong);
        assertRefused(() -> new Normalisation.PNorm(wrong), "p", "a finite number above 0", wrong);
        assertRefused(() -> new CapacityLimit.Fraction(wrong), "tokenFraction", atLeast0, wrong);
        if (!Double.isFinite(wrong)) {
            ThrowingCallable factor = () -> config(4, 2, new Selection.TopK(), wrong, null);
            assertRefused(factor, "factor", "a finite number", wrong);
        }
    }

    @Test
    void records_takeTheLeastNumbers() {
        assertThat(new Selection.SparseMixer(0).jitter()).isZero();
        assertThat(new Normalisation.Sum(0).epsilon()).isZero();
        assertThat(new Normalisation.ClampedSum(0).min()).isZero();
        assertThat(new Normalisation.PNorm(Double.MIN_VALUE).p()).isPositive();
        assertThat(new Selection.ProductKeys(1).numKeys()).isOne();
    }

    @Test
    void records_refuseCountsThatAreTooSmall() {
        assertRefused(() -> new Selection.ProductKeys(-2), "numKeys", "at least 1", -2);
        assertRefused(() -> new Selection.ProductKeys(0), "numKeys", "at least 1", 0);
        assertRefused(() -> new CapacityLimit.Tokens(-5), "maxTokens", "at least 0", -5);
        assertRefused(() -> new Normalisation.PNorm(0), "p", "a finite number above 0", 0.0);
    }

    /** Its weights are normalised already; they have no scores to queue by. */
    @Test
    void config_refusesCapacityWithSparseMixer() {
        Capacity capacity = new Capacity(new CapacityLimit.Tokens(2), Priority.POSITION, false);
        Selection mixer = new Selection.SparseMixer(0.1);
        ThrowingCallable both = () -> config(4, 2, mixer, 1, capacity);
        assertRefused(both, "capacity", "none with SparseMixer", capacity);
    }

    private static RouterConfig config(
            int experts,
            int topK,
            Selection selection,
            double factor,
            @Nullable Capacity capacity) {
        return new RouterConfig(
                experts,
                topK,
                Score.SOFTMAX,
                selection,
                new Normalisation.None(),
                factor,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    private static void assertRefused(
            ThrowingCallable call, String name, String expected, Object got) {
        assertThatThrownBy(call)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(name + ": expected " + expected + ", got " + got);
    }
}
