package jmoe.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.train.RouterBatch.Counted;
import jmoe.train.RouterLoss.LoadShare;
import jmoe.train.RouterLoss.Threshold;
import jmoe.train.RouterLoss.Variance;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/** Losses of rules by which tokens have different numbers of experts, and of unusual scores. */
final class RouterSchemesTest {
    private static final double ALPHA = 0.7;
    private static final int TOKENS = 24;
    private static final int EXPERTS = 6;

    private final Arena arena = Arena.ofAuto();

    private static RouterConfig rule(
            int topK, Score score, Selection selection, @Nullable Capacity capacity) {
        return new RouterConfig(
                EXPERTS,
                topK,
                score,
                selection,
                new Normalisation.None(),
                1,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    private RoutedBatch random(int topK, Score score, Selection selection) {
        return RoutedBatch.random(arena, 8, TOKENS, rule(topK, score, selection, null));
    }

    private static void assertValue(RouterLoss loss, RouterBatch batch, double want) {
        assertThat(loss.value(batch)).isCloseTo(want, within(1e-12 * Math.max(1, Math.abs(want))));
    }

    private static double[] means(double[][] rows) {
        double[] means = new double[EXPERTS];
        for (double[] row : rows) {
            for (int e = 0; e < EXPERTS; e++) {
                means[e] += row[e] / rows.length;
            }
        }
        return means;
    }

    private static double sumOfProducts(double[] a, double[] b) {
        return IntStream.range(0, EXPERTS).mapToDouble(e -> a[e] * b[e]).sum();
    }

    private static RouterLoss balance(LoadShare share) {
        return new RouterLoss.LoadBalance(ALPHA, Counted.ALL, share);
    }

    /** Huang 2024: the shortest run of experts whose probabilities reach p. */
    @Test
    void balance_ofTopPDividesByTheSlotsThatThereAre() {
        RoutedBatch of = random(EXPERTS, Score.SOFTMAX, new Selection.TopP(0.6, 1));
        double[] counts = new double[EXPERTS];
        for (double[] p : of.softmax()) {
            Integer[] falling = IntStream.range(0, EXPERTS).boxed().toArray(Integer[]::new);
            Arrays.sort(falling, Comparator.comparingDouble(e -> -p[e]));
            double sum = 0;
            for (int i = 0; sum < 0.6; i++) {
                counts[falling[i]]++;
                sum += p[falling[i]];
            }
        }
        double slots = Arrays.stream(counts).sum();
        assertThat(slots).isBetween(TOKENS + 1.0, EXPERTS * TOKENS - 1.0);
        double products = ALPHA * EXPERTS * sumOfProducts(counts, means(of.softmax()));
        assertValue(balance(LoadShare.OF_SLOTS), of.batch, products / slots);
        assertValue(balance(LoadShare.OF_TOKENS), of.batch, products / TOKENS);
        assertValue(new RouterLoss.SequenceBalance(ALPHA), of.batch, products / slots);
        assertValue(new RouterLoss.DeviceBalance(ALPHA, EXPERTS), of.batch, products / slots);
        assertThat(ExpertLoad.of(of.batch).assigned().sum()).isEqualTo((long) slots);
    }

    /** Every expert has C tokens, so the load is even whatever the router prefers. */
    @ParameterizedTest
    @ValueSource(strings = {"SOFTMAX", "SIGMOID"})
    void balance_ofExpertChoiceIsThatOfEvenLoad(Score score) {
        RoutedBatch of = random(EXPERTS, score, new Selection.ExpertChoice(1.5));
        long each = (long) (1.5 * TOKENS / EXPERTS);
        assertThat(of.batch.counts(Counted.ALL)).containsOnly(each);
        assertThat(of.batch.counts(Counted.KEPT)).containsOnly(each);
        assertValue(balance(LoadShare.OF_SLOTS), of.batch, ALPHA);
        assertValue(balance(LoadShare.OF_TOKENS), of.batch, ALPHA * EXPERTS * each / TOKENS);
        // First choices are the largest logits among the experts that took the token.
        long chosen = Arrays.stream(of.batch.counts(Counted.FIRST)).sum();
        assertThat(chosen).isLessThanOrEqualTo(TOKENS);
        ExpertLoad load = ExpertLoad.of(of.batch);
        assertThat(load.assigned().variation()).isZero();
        assertThat(load.dropRate()).isZero();
        assertThat(load.tokens()).isEqualTo(TOKENS);
    }

    @Test
    void sequenceBalance_ofSqrtSoftplusTakesItsSharesAndItsCounts() {
        RoutedBatch of = random(2, Score.SQRT_SOFTPLUS, new Selection.TopK());
        double[][] p = new double[TOKENS][EXPERTS];
        double[] f = new double[EXPERTS];
        for (int t = 0; t < TOKENS; t++) {
            double[] z = of.logits[t];
            double sum = Arrays.stream(z).map(x -> Math.sqrt(Math.log(1 + Math.exp(x)))).sum();
            double second = Arrays.stream(z).sorted().toArray()[EXPERTS - 2];
            for (int e = 0; e < EXPERTS; e++) {
                p[t][e] = Math.sqrt(Math.log(1 + Math.exp(z[e]))) / sum;
                f[e] += z[e] >= second ? EXPERTS / (2.0 * TOKENS) : 0;
            }
        }
        double want = ALPHA * sumOfProducts(f, means(p));
        assertValue(new RouterLoss.SequenceBalance(ALPHA), of.batch, want);
    }

    /** The softmax stands in for scores that may be negative. */
    @Test
    void scoresThatAreLogits_countAtZeroToo() {
        double[][] logits = {{0, -1, -2, -3, -4, -5}, {3, 0, -1, -2, -9, -9}};
        RouterConfig free = rule(2, Score.NONE, new Selection.TopK(), null);
        RoutedBatch of = RoutedBatch.of(arena, logits, free, null);
        assertThat(of.batch.weight(0, 0)).isZero();
        assertThat(of.batch.counts(Counted.KEPT)).containsExactly(2, 2, 0, 0, 0, 0);
        double want =
                ALPHA
                        * EXPERTS
                        * sumOfProducts(new double[] {1, 1, 0, 0, 0, 0}, means(of.softmax()));
        assertValue(balance(LoadShare.OF_TOKENS), of.batch, want);
        Capacity one = new Capacity(new CapacityLimit.Tokens(1), Priority.POSITION, false);
        RouterConfig limited = rule(2, Score.SOFTMAX, new Selection.TopK(), one);
        RoutedBatch dropped = RoutedBatch.of(arena, logits, limited, null);
        assertThat(dropped.batch.counts(Counted.KEPT)).containsExactly(1, 1, 0, 0, 0, 0);
    }

    @Test
    void scoresThatAreAllZero_haveADistributionOfZeros() {
        double[][] logits = new double[2][EXPERTS];
        Arrays.fill(logits[0], -1e4);
        RouterConfig sigmoid = rule(2, Score.SIGMOID, new Selection.TopK(), null);
        RouterBatch batch = RoutedBatch.of(arena, logits, sigmoid, null).batch;
        double[] p = new double[EXPERTS];
        batch.probabilities(0, p);
        assertThat(p).containsOnly(0);
        assertValue(balance(LoadShare.OF_SLOTS), batch, ALPHA / 2);
    }

    /** Experts that are not active have logits of -infinity. */
    @Test
    void probabilities_ofExpertsThatAreNotThereAreZero() {
        double out = Double.NEGATIVE_INFINITY;
        double[][] logits = {{1, 1, out, out, out, out}};
        RouterConfig softmax = rule(2, Score.SOFTMAX, new Selection.TopK(), null);
        RouterBatch batch = RoutedBatch.of(arena, logits, softmax, null).batch;
        assertThat(batch.meanProbabilities()).containsExactly(0.5, 0.5, 0, 0, 0, 0);
        assertValue(new RouterLoss.TokenEntropy(ALPHA), batch, ALPHA * Math.log(2));
    }

    /** As many slots in every group: nothing is left to balance between them. */
    @Test
    void onePerGroup_isBalancedByDeviceAndHasNoFirstChoice() {
        Selection groups = new Selection.OnePerGroup(3, Scope.GLOBAL);
        RouterBatch batch = random(3, Score.SOFTMAX, groups).batch;
        assertValue(new RouterLoss.DeviceBalance(ALPHA, 3), batch, ALPHA);
        assertValue(new RouterLoss.CommunicationBalance(ALPHA, 3, 3), batch, ALPHA);
        String message =
                "config: expected a rule with a first choice, got "
                        + groups
                        + ", whose slots are those of groups; count all slots";
        for (RouterLoss loss :
                new RouterLoss[] {
                    RouterLoss.LoadBalance.ofGShard(1), new RouterLoss.SecondChoice(1)
                }) {
            assertThatThrownBy(() -> loss.value(batch))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(message);
        }
    }

    @ParameterizedTest
    @CsvSource({"choice", "top-p", "sinkhorn"})
    void loadVariation_isOfTheKBestOnly(String name) {
        Selection selection =
                switch (name) {
                    case "choice" -> new Selection.ExpertChoice(1);
                    case "top-p" -> new Selection.TopP(0.5, 1);
                    default -> new Selection.Sinkhorn(1e-4, 100);
                };
        RoutedBatch of = random(2, Score.SOFTMAX, selection);
        RouterBatch batch =
                of.withNoise(new RouterBatch.Noise(of.batch.logits(), of.batch.logits()));
        RouterLoss loss = new RouterLoss.LoadVariation(1, Variance.POPULATION, Threshold.OF_ALL);
        assertThatThrownBy(() -> loss.value(batch))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "config: expected TopK, by which the K-th logit of a token decides, got "
                                + selection
                                + "; use ImportanceVariation");
    }

    @Test
    void hash_hasNoLogits() {
        RouterConfig hash = rule(2, Score.NONE, new Selection.Hash(), null);
        RouterBatch batch = random(2, Score.SOFTMAX, new Selection.TopK()).batch;
        Routing routing = batch.routing();
        assertThatThrownBy(() -> new RouterBatch(batch.logits(), hash, routing))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("config: expected a logit for each expert, got Hash[]");
    }
}
