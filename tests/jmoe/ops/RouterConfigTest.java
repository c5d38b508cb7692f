package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.RouterConfig.Capacity;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.RouterConfig.Selection;

import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

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
        assertRefused(() -> new Selection.TopP(wrong, 1), "p", "a finite number above 0", wrong);
        assertRefused(() -> new Selection.EntropyK(wrong, 1), "alpha", atLeast0, wrong);
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
    void config_refusesGroupsThatDoNotDivideOrHold() {
        Selection five = new Selection.OnePerGroup(5, Scope.GLOBAL);
        assertRefused(
                () -> config(16, 5, five, 1, null), "numGroups", "a divisor of numExperts=16", 5);
        Selection none = new Selection.TwoLevel(0, 1, 1);
        assertRefused(
                () -> config(16, 1, none, 1, null), "numGroups", "a divisor of numExperts=16", 0);
        Selection four = new Selection.OnePerGroup(4, Scope.GLOBAL);
        assertRefused(() -> config(16, 3, four, 1, null), "topK", "numGroups=4", 3);
        Selection wide = new Selection.TwoLevel(4, 5, 1);
        assertRefused(() -> config(16, 5, wide, 1, null), "topGroups", "1 to numGroups=4", 5);
        Selection deep = new Selection.TwoLevel(4, 1, 5);
        assertRefused(
                () -> config(16, 5, deep, 1, null), "perGroup", "1 to the group's 4 experts", 5);
        Selection six = new Selection.TwoLevel(4, 3, 2);
        assertRefused(() -> config(16, 5, six, 1, null), "topK", "topGroups * perGroup=6", 5);
        Selection share = new Selection.GroupLimited(4, 3, GroupScore.TOP_SHARE_SUM);
        assertRefused(
                () -> config(16, 2, share, 1, null),
                "topGroups",
                "at most topK=2 with TOP_SHARE_SUM",
                3);
    }

    @Test
    void config_refusesLeastNumbersOutsideOfK() {
        for (int wrong : new int[] {-1, 0, 4}) {
            Selection p = new Selection.TopP(0.5, wrong);
            assertRefused(() -> config(16, 3, p, 1, null), "min", "1 to topK=3", wrong);
            Selection entropy = new Selection.EntropyK(1, wrong);
            assertRefused(() -> config(16, 3, entropy, 1, null), "min", "1 to topK=3", wrong);
        }
    }

    /** A softmax in groups, or of groups, is nothing for scores that look at one logit. */
    @Test
    void config_refusesScoresAndSumsThatLevelsDoNotHave() {
        Selection local = new Selection.OnePerGroup(2, Scope.LOCAL);
        ThrowingCallable sigmoid = () -> with(2, Score.SIGMOID, local, new Normalisation.None());
        assertRefused(sigmoid, "score", "SOFTMAX with scope LOCAL", Score.SIGMOID);
        Selection two = new Selection.TwoLevel(2, 1, 2);
        ThrowingCallable plain = () -> with(2, Score.NONE, two, new Normalisation.None());
        assertRefused(plain, "score", "SOFTMAX with TwoLevel", Score.NONE);
        Normalisation guarded = new Normalisation.Sum(1e-9);
        ThrowingCallable sum = () -> with(2, Score.SOFTMAX, two, guarded);
        String sums = "None or Sum with epsilon 0 with TwoLevel";
        assertRefused(sum, "normalisation", sums, guarded);
        Capacity later = new Capacity(1, Double.NaN, false, true);
        assertRefused(
                () -> config(4, 2, two, 1, later),
                "capacity",
                "one that does not normalise with TwoLevel",
                later);
        Capacity ranked = new Capacity(1, Double.NaN, true, false);
        assertRefused(
                () -> config(4, 2, new Selection.Hash(), 1, ranked),
                "capacity",
                "one by position with Hash, which has no probabilities",
                ranked);
    }

    @Test
    void numLogits_areThoseOfTheSelection() {
        assertThat(config(16, 2, new Selection.TopK(), 1, null).numLogits()).isEqualTo(16);
        assertThat(config(16, 2, new Selection.ProductKeys(4), 1, null).numLogits()).isEqualTo(8);
        assertThat(config(16, 2, new Selection.Hash(), 1, null).numLogits()).isZero();
    }

    /** A layer is given rows, not the ids that they are of. */
    @Test
    void layer_refusesHash() {
        RouterConfig hash = config(4, 2, new Selection.Hash(), 1, null);
        assertThatThrownBy(() ->
                        new MoeConfig(
                                "test",
                                8,
                                8,
                                4,
                                0,
                                Activation.SWIGLU,
                                List.of(hash),
                                List.of(8),
                                0,
                                false,
                                1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith("routers: expected rules that read logits, got ")
                .hasMessageEndingWith(
                        "a layer does not know its tokens' ids, so call Kernels.route");
    }

    @Test
    void limit_isTheShareOfTokensRoundedUp() {
        assertThat(new Capacity(7, Double.NaN, false, false).limit(100)).isEqualTo(7);
        assertThat(new Capacity(7, 0.25, false, false).limit(101)).isEqualTo(26);
    }

    private static RouterConfig with(
            int topK, Score score, Selection selection, Normalisation normalisation) {
        return new RouterConfig(
                4, topK, score, selection, normalisation, 1, false, null, RouterConfig.ALL_TOKENS);
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
