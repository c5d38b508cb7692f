package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.RouterConfig.Capacity;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.RouterConfig.Selection;

import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.util.List;

class RouterConfigTest {
    private static final List<Selection> BY_BATCH =
            List.of(
                    new Selection.ExpertChoice(1),
                    new Selection.Sinkhorn(1e-4, 100),
                    new Selection.BalancedAssignment(0.02));

    @ParameterizedTest
    @ValueSource(doubles = {-1e-9, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY})
    void records_refuseNumbersThatAreNegativeOrNotFinite(double wrong) {
        String atLeast0 = "a finite number of at least 0";
        assertRefused(() -> new Selection.SparseMixer(wrong), "jitter", atLeast0, wrong);
        assertRefused(() -> new Normalisation.Sum(wrong), "epsilon", atLeast0, wrong);
        assertRefused(() -> new Normalisation.ClampedSum(wrong), "min", atLeast0, wrong);
        assertRefused(() -> new Normalisation.PNorm(wrong), "p", "a finite number above 0", wrong);
        assertRefused(() -> new Selection.Sinkhorn(wrong, 9), "tolerance", atLeast0, wrong);
        if (!Double.isNaN(wrong)) {
            ThrowingCallable share = () -> new Capacity(0, wrong, false, false);
            assertRefused(share, "tokenFraction", atLeast0, wrong);
        }
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
        assertThat(new Capacity(0, 0, false, false).limit(9)).isZero();
        assertThat(new Selection.ProductKeys(1).numKeys()).isOne();
    }

    @Test
    void records_refuseCountsThatAreTooSmall() {
        assertRefused(() -> new Selection.ProductKeys(-2), "numKeys", "at least 1", -2);
        assertRefused(() -> new Selection.ProductKeys(0), "numKeys", "at least 1", 0);
        ThrowingCallable limit = () -> new Capacity(-5, Double.NaN, false, false);
        assertRefused(limit, "maxTokens", "at least 0", -5);
        assertRefused(() -> new Normalisation.PNorm(0), "p", "a finite number above 0", 0.0);
    }

    /** Its weights are normalised already; they have no scores to queue by. */
    @Test
    void config_refusesCapacityWithSparseMixer() {
        Capacity capacity = new Capacity(2, Double.NaN, false, false);
        Selection mixer = new Selection.SparseMixer(0.1);
        ThrowingCallable both = () -> config(4, 2, mixer, 1, capacity);
        assertRefused(both, "capacity", "none with SparseMixer", capacity);
    }

    @Test
    void config_refusesCapacityWithRulesThatChooseByBatch() {
        Capacity capacity = new Capacity(2, Double.NaN, false, false);
        for (Selection rule : BY_BATCH) {
            ThrowingCallable both = () -> config(4, 1, rule, 1, capacity);
            String name = rule.getClass().getSimpleName();
            assertRefused(both, "capacity", "none with " + name, capacity);
            assertThat(config(4, 1, rule, 1, null).choosesByBatch()).isTrue();
        }
        assertThat(config(4, 1, new Selection.TopK(), 1, null).choosesByBatch()).isFalse();
    }

    @Test
    void config_refusesTwoExpertsPerTokenWithBalancedAssignment() {
        ThrowingCallable two = () -> config(4, 2, new Selection.BalancedAssignment(0.02), 1, null);
        assertRefused(two, "topK", "1 with BalancedAssignment", 2);
    }

    @Test
    void records_refuseBoundsThatDoNotEnd() {
        ThrowingCallable iterations = () -> new Selection.Sinkhorn(1e-4, 0);
        assertRefused(iterations, "maxIterations", "1 to 10000", 0);
        ThrowingCallable epsilon = () -> new Selection.BalancedAssignment(0);
        assertRefused(epsilon, "epsilon", "1e-6 to 1", 0.0);
        ThrowingCallable factor = () -> new Selection.ExpertChoice(0);
        assertRefused(factor, "capacityFactor", "a finite number above 0", 0.0);
    }

    @Test
    void tokensPerExpert_isTheShareRoundedDown() {
        Selection.ExpertChoice choice = new Selection.ExpertChoice(2);
        assertThat(choice.tokensPerExpert(33, 8)).isEqualTo(8);
        assertThat(choice.tokensPerExpert(3, 8)).isEqualTo(1);
        assertThat(choice.tokensPerExpert(3, 1)).isEqualTo(3);
        assertThat(choice.tokensPerExpert(0, 8)).isZero();
        assertThat(new Selection.ExpertChoice(1e300).tokensPerExpert(5, 2)).isEqualTo(5);
    }

    @Test
    void limit_isTheShareOfTokensRoundedUp() {
        assertThat(new Capacity(7, Double.NaN, false, false).limit(100)).isEqualTo(7);
        assertThat(new Capacity(7, 0.25, false, false).limit(101)).isEqualTo(26);
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
