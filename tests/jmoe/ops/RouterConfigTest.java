package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Capacity.Priority;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;

import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.util.Collections;
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
        assertRefused(() -> new Normalisation.ClampedSum(wrong), "minSum", atLeast0, wrong);
        assertRefused(() -> new Normalisation.PNorm(wrong), "p", "a finite number above 0", wrong);
        assertRefused(() -> new CapacityLimit.Fraction(wrong), "tokenFraction", atLeast0, wrong);
        assertRefused(() -> new Selection.TopP(wrong, 1), "p", "a finite number above 0", wrong);
        assertRefused(() -> new Selection.EntropyK(wrong, 1), "alpha", atLeast0, wrong);
        assertRefused(() -> new Selection.Sinkhorn(wrong, 9), "tolerance", atLeast0, wrong);
        if (!Double.isFinite(wrong)) {
            ThrowingCallable factor = () -> config(4, 2, new Selection.TopK(), wrong, null);
            assertRefused(factor, "factor", "a finite number", wrong);
        }
    }

    @Test
    void records_takeTheLeastNumbers() {
        assertThat(new Selection.SparseMixer(0).jitter()).isZero();
        assertThat(new Normalisation.Sum(0).epsilon()).isZero();
        assertThat(new Normalisation.ClampedSum(0).minSum()).isZero();
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
        assertRefused(() -> new LogitTransform.GumbelNoise(1, wrong), "factor", atLeast0, wrong);
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
    void rules_refuseInputsThatTheyCannotHave() {
        InputTransform jitter = new InputTransform.Jitter(1, 0.01);
        InputTransform cosine = new InputTransform.Cosine(0);
        RouterConfig plain = RouterConfig.softmaxTopK(4, 1, true);
        assertThat(plain.inputTransforms()).isEmpty();
        LogitTransform cap = new LogitTransform.Cap(1);
        RouterConfig both =
                plain.withInputTransforms(List.of(jitter, cosine))
                        .withLogitTransforms(List.of(cap));
        assertThat(both.inputTransforms()).containsExactly(jitter, cosine);
        assertThat(both.withInputTransforms(List.of()).logitTransforms()).containsExactly(cap);
        String order = "at most a Jitter and then a Cosine";
        for (List<InputTransform> wrong :
                List.of(
                        List.of(cosine, jitter),
                        List.of(jitter, jitter),
                        List.of(cosine, cosine),
                        List.of(jitter, cosine, cosine))) {
            assertRefused(() -> plain.withInputTransforms(wrong), "inputTransforms", order, wrong);
        }
        RouterConfig keys = config(4, 2, new Selection.ProductKeys(2), 1, null);
        assertThat(keys.withInputTransforms(List.of(jitter)).inputTransforms()).hasSize(1);
        assertRefused(
                () -> keys.withInputTransforms(List.of(cosine)),
                "inputTransforms",
                "no Cosine with product keys, whose logits are sums",
                List.of(cosine));
        RouterConfig hash = config(4, 2, new Selection.Hash(), 1, null);
        assertRefused(
                () -> hash.withInputTransforms(List.of(jitter)),
                "inputTransforms",
                "none with a hash, which reads no input",
                List.of(jitter));
    }

    @Test
    void inputTransforms_refuseNumbersThatAreNone() {
        for (double wrong : new double[] {-0.1, Double.NaN, 1 / 0.0}) {
            assertRefused(() -> new InputTransform.Jitter(1, wrong), "epsilon", "0 to 1", wrong);
            String atLeast0 = "a finite number of at least 0";
            assertRefused(() -> new InputTransform.Cosine(wrong), "epsilon", atLeast0, wrong);
        }
        assertRefused(() -> new InputTransform.Jitter(1, 1.01), "epsilon", "0 to 1", 1.01);
    }

    @Test
    void records_refuseCountsThatAreTooSmall() {
        assertRefused(() -> new Selection.ProductKeys(-2), "numKeys", "at least 1", -2);
        assertRefused(() -> new Selection.ProductKeys(0), "numKeys", "at least 1", 0);
        assertRefused(() -> new CapacityLimit.Tokens(-5), "maxSlots", "at least 0", -5);
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

    @Test
    void config_refusesCapacityWithRulesThatChooseByBatch() {
        Capacity capacity = new Capacity(new CapacityLimit.Tokens(2), Priority.POSITION, false);
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
            assertRefused(() -> config(16, 3, p, 1, null), "minExperts", "1 to topK=3", wrong);
            Selection entropy = new Selection.EntropyK(1, wrong);
            assertRefused(
                    () -> config(16, 3, entropy, 1, null), "minExperts", "1 to topK=3", wrong);
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
        Capacity later = new Capacity(new CapacityLimit.Tokens(1), Priority.POSITION, true);
        assertRefused(
                () -> config(4, 2, two, 1, later),
                "capacity",
                "one that does not normalise with TwoLevel",
                later);
        Capacity ranked = new Capacity(new CapacityLimit.Tokens(1), Priority.PROBABILITY, false);
        assertRefused(
                () -> config(4, 2, new Selection.Hash(), 1, ranked),
                "capacity",
                "one by position or by weight with Hash, which has no probabilities",
                ranked);
    }

    @Test
    void numLogits_areThoseOfTheSelection() {
        assertThat(config(16, 2, new Selection.TopK(), 1, null).numLogits()).isEqualTo(16);
        assertThat(config(16, 2, new Selection.ProductKeys(4), 1, null).numLogits()).isEqualTo(8);
        assertThat(config(16, 2, new Selection.Hash(), 1, null).numLogits()).isZero();
    }

    @Test
    void layer_refusesRoutersOfDifferentLogits() {
        RouterConfig best = config(4, 2, new Selection.TopK(), 1, null);
        RouterConfig hash = config(4, 2, new Selection.Hash(), 1, null);
        assertThatThrownBy(() ->
                        new MoeConfig(
                                "test",
                                8,
                                8,
                                4,
                                0,
                                Activation.SWIGLU,
                                List.of(best, hash),
                                List.of(8, 8),
                                0,
                                false,
                                1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("routers: expected one numLogits=4, got " + hash);
    }

    @Test
    void config_refusesFormsOfExpertChoiceThatNobodyHas() {
        Selection overTokens = new Selection.ExpertChoice(1, 4, Scope.TOKENS);
        assertThatThrownBy(() -> with(overTokens, Score.SIGMOID, new Normalisation.None()))
                .hasMessage("score: expected SOFTMAX with scope TOKENS, got SIGMOID");
        assertThatThrownBy(() -> new Selection.ExpertChoice(1, 4, Scope.LOCAL))
                .hasMessage("scope: expected GLOBAL or TOKENS, got LOCAL");
        assertThatThrownBy(() -> new Selection.ExpertChoice(1, 0, Scope.GLOBAL))
                .hasMessage("minTokens: expected at least 1, got 0");
        Selection ofGroups = new Selection.OnePerGroup(2, Scope.TOKENS);
        assertThatThrownBy(() -> with(ofGroups, Score.SOFTMAX, new Normalisation.None()))
                .hasMessage("scope: expected GLOBAL or LOCAL, got TOKENS");
        assertThatThrownBy(
                        () -> with(new Selection.TopK(), Score.SOFTMAX, new Normalisation.Count()))
                .hasMessage("normalisation: expected Count with ExpertChoice only, got TopK[]");
    }

    private static RouterConfig with(
            Selection selection, Score score, Normalisation normalisation) {
        return new RouterConfig(4, 2, score, selection, normalisation, 1, false, null, -1);
    }

    @Test
    void expertChoice_takesAtLeastSoManyTokens() {
        assertThat(new Selection.ExpertChoice(1.5).tokensPerExpert(10, 4)).isEqualTo(3);
        assertThat(new Selection.ExpertChoice(0.1).tokensPerExpert(10, 4)).isEqualTo(1);
        Selection.ExpertChoice mesh = new Selection.ExpertChoice(1.5, 4, Scope.TOKENS);
        assertThat(mesh.tokensPerExpert(10, 4)).isEqualTo(4);
        assertThat(mesh.tokensPerExpert(3, 4)).isEqualTo(3);
        assertThat(mesh.tokensPerExpert(100, 4)).isEqualTo(37);
    }

    @Test
    void config_refusesNextChoicesThatAreNotDefined() {
        Capacity next =
                new Capacity(new CapacityLimit.Tokens(1), Priority.POSITION, false)
                        .withOverflow(new Capacity.Overflow.NextChoice(2));
        Selection topP = new Selection.TopP(0.5, 1);
        assertThatThrownBy(() -> config(4, 2, topP, 1, next))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "overflow: expected Drop or Ring, because only TopK, ProductKeys and"
                                + " GroupLimited by MAX or TOP2_SUM have a next choice, got "
                                + topP);
        assertThatThrownBy(() ->
                        new RouterConfig(
                                4,
                                2,
                                Score.NONE,
                                new Selection.TopK(),
                                new Normalisation.None(),
                                1,
                                false,
                                next,
                                RouterConfig.ALL_TOKENS))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("score: expected SOFTMAX or SIGMOID with NextChoice, got NONE");
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
