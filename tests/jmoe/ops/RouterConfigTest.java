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

import java.util.Collections;
import java.util.List;

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

    @ParameterizedTest
    @ValueSource(doubles = {-1e-9, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY})
    void transforms_refuseNumbersThatAreNegativeOrNotFinite(double wrong) {
        String above0 = "a finite number above 0";
        assertRefused(() -> new LogitTransform.Temperature(wrong), "tau", above0, wrong);
        assertRefused(() -> new LogitTransform.Standardise(wrong), "lambda", above0, wrong);
        assertRefused(() -> new LogitTransform.Cap(wrong), "limit", above0, wrong);
        assertRefused(() -> new LogitTransform.Cap(0), "limit", above0, 0.0);
        String atLeast0 = "a finite number of at least 0";
        ThrowingCallable fixed = () -> new LogitTransform.FixedNoise(1, wrong);
        assertRefused(fixed, "deviation", atLeast0, wrong);
        assertRefused(() -> new LogitTransform.GumbelNoise(1, wrong), "scale", atLeast0, wrong);
        assertThat(new LogitTransform.FixedNoise(1, 0).deviation()).isZero();
    }

    @Test
    void rules_refuseTransformsThatTheyCannotHave() {
        LogitTransform cap = new LogitTransform.Cap(1);
        RouterConfig plain = RouterConfig.softmaxTopK(4, 1, true);
        assertThat(plain.logitTransforms()).isEmpty();
        assertThat(plain.withLogitTransforms(List.of(cap, cap)).logitTransforms())
                .containsExactly(cap, cap);
        assertThat(plain.withLogitTransforms(List.of(cap)).withLogitTransforms(List.of()))
                .isEqualTo(plain);
        ThrowingCallable many = () -> plain.withLogitTransforms(Collections.nCopies(9, cap));
        assertRefused(many, "logitTransforms", "at most 8", 9);
        RouterConfig keys = config(4, 2, new Selection.ProductKeys(2), 1, null);
        assertRefused(
                () -> keys.withLogitTransforms(List.of(cap)),
                "logitTransforms",
                "none with product keys, whose experts have no logits of their own",
                List.of(cap));
        List<LogitTransform> twice =
                List.of(new LogitTransform.LearnedNoise(1), new LogitTransform.LearnedNoise(2));
        ThrowingCallable two = () -> plain.withLogitTransforms(twice);
        assertRefused(two, "logitTransforms", "at most one LearnedNoise", twice);
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
