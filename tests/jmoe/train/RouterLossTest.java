package jmoe.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.train.RouterBatch.Counted;
import jmoe.train.RouterLoss.Divergence;
import jmoe.train.RouterLoss.Importance;
import jmoe.train.RouterLoss.LoadShare;
import jmoe.train.RouterLoss.Threshold;
import jmoe.train.RouterLoss.Variance;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/** Each loss against its paper's equation, written once more over arrays. */
final class RouterLossTest {
    private static final double ALPHA = 0.7;

    private static final List<RouterLoss> ALL =
            List.of(
                    RouterLoss.LoadBalance.ofSwitch(ALPHA),
                    RouterLoss.LoadBalance.ofGShard(ALPHA),
                    new RouterLoss.LoadBalance(ALPHA, Counted.KEPT, LoadShare.OF_SLOTS),
                    new RouterLoss.SequenceBalance(ALPHA),
                    new RouterLoss.DeviceBalance(ALPHA, 1),
                    new RouterLoss.CommunicationBalance(ALPHA, 1, 1),
                    new RouterLoss.ImportanceVariation(
                            ALPHA, Variance.POPULATION, Importance.WEIGHTS),
                    new RouterLoss.ZLoss(ALPHA),
                    new RouterLoss.KlDivergence(ALPHA, Divergence.FROM_UNIFORM),
                    new RouterLoss.KlDivergence(ALPHA, Divergence.FROM_MEAN),
                    new RouterLoss.TokenEntropy(ALPHA),
                    new RouterLoss.MeanEntropy(ALPHA, Double.NaN),
                    new RouterLoss.MutualInformation(ALPHA));

    private final Arena arena = Arena.ofAuto();

    private RoutedBatch softmax(int tokens, int experts, int topK) {
        return RoutedBatch.random(
                arena, tokens + experts, tokens, RouterConfig.softmaxTopK(experts, topK, false));
    }

    private static double[] columnMeans(double[][] rows, int columns) {
        double[] means = new double[columns];
        for (int e = 0; e < columns; e++) {
            int column = e;
            means[e] = Arrays.stream(rows).mapToDouble(row -> row[column]).average().orElse(0);
        }
        return means;
    }

    private static double meanOfProducts(double[] a, double[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += a[i] * b[i];
        }
        return sum / a.length;
    }

    private static double entropy(double[] p) {
        return Arrays.stream(p).map(x -> -x * Math.log(x)).sum();
    }

    private static void assertValue(RouterLoss loss, RouterBatch batch, double want) {
        assertThat(loss.value(batch)).isCloseTo(want, within(1e-12 * Math.max(1, Math.abs(want))));
    }

    /** Mesh TensorFlow: density and its proxy, mean over experts, times E^2. */
    @ParameterizedTest
    @CsvSource({"7,4,1", "64,8,2", "33,60,6", "5,1,1", "9,8,8"})
    void loadBalance_isMeanOfDensityAndProxyTimesSquareOfExperts(int tokens, int experts, int k) {
        RoutedBatch of = softmax(tokens, experts, k);
        double squared = (double) experts * experts;
        double[] proxy = columnMeans(of.softmax(), experts);
        double[] all = columnMeans(of.selected(), experts);
        double[] first = columnMeans(of.oneHot(0), experts);
        double want = ALPHA * squared * meanOfProducts(all, proxy);
        assertValue(RouterLoss.LoadBalance.ofSwitch(ALPHA), of.batch, want);
        assertValue(
                new RouterLoss.LoadBalance(ALPHA, Counted.ALL, LoadShare.OF_SLOTS),
                of.batch,
                want / k);
        double ofFirst = ALPHA * squared * meanOfProducts(first, proxy);
        assertValue(RouterLoss.LoadBalance.ofGShard(ALPHA), of.batch, ofFirst);
        assertValue(
                new RouterLoss.LoadBalance(ALPHA, Counted.FIRST, LoadShare.OF_SLOTS),
                of.batch,
                ofFirst);
    }

    @Test
    void loadBalance_ofEvenLoad_isCoefficientTimesChoices() {
        double[][] logits = new double[12][4];
        for (int t = 0; t < logits.length; t++) {
            logits[t][t % 4] = 2;
            logits[t][(t + 1) % 4] = 1;
        }
        RoutedBatch of = RoutedBatch.of(arena, logits, RouterConfig.softmaxTopK(4, 2, true), null);
        assertValue(RouterLoss.LoadBalance.ofSwitch(ALPHA), of.batch, 2 * ALPHA);
        assertValue(
                new RouterLoss.LoadBalance(ALPHA, Counted.ALL, LoadShare.OF_SLOTS),
                of.batch,
                ALPHA);
    }

    /** Second gates are those without the first, divided by what is left. */
    @Test
    void secondChoice_leavesTheFirstOut() {
        RoutedBatch of = softmax(31, 7, 2);
        double[][] rest = of.softmax();
        double[][] first = of.oneHot(0);
        for (int t = 0; t < rest.length; t++) {
            for (int e = 0; e < 7; e++) {
                rest[t][e] *= 1 - first[t][e];
            }
            double sum = Arrays.stream(rest[t]).sum() + 1e-9;
            int token = t;
            rest[t] = Arrays.stream(rest[token]).map(p -> p / sum).toArray();
        }
        double want =
                49 * meanOfProducts(columnMeans(of.oneHot(1), 7), columnMeans(rest, 7)) * ALPHA;
        assertValue(new RouterLoss.SecondChoice(ALPHA), of.batch, want);
        assertThatThrownBy(() -> new RouterLoss.SecondChoice(1).value(softmax(3, 4, 1).batch))
                .hasMessage("topK: expected at least 2 for a loss of second choices, got 1");
    }

    /** DeepSeek-V3: sigmoid scores over their sum, f = E / (K T) c, a sequence at a time. */
    @Test
    void sequenceBalance_isTheMeanOverSequences() {
        RouterConfig config =
                new RouterConfig(
                        8,
                        3,
                        Score.SIGMOID,
                        new Selection.TopK(),
                        new Normalisation.Sum(1e-20),
                        2.5,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        RoutedBatch of = RoutedBatch.random(arena, 3, 20, config);
        double[][] selected = of.selected();
        int[] bounds = {0, 6, 6, 13, 20};
        double want = 0;
        for (int s = 0; s < 4; s++) {
            int length = bounds[s + 1] - bounds[s];
            for (int e = 0; e < 8 && length > 0; e++) {
                double f = 0;
                double p = 0;
                for (int t = bounds[s]; t < bounds[s + 1]; t++) {
                    double sum = 0;
                    for (double z : of.logits[t]) {
                        sum += 1 / (1 + Math.exp(-z));
                    }
                    f += 8 * selected[t][e] / (3.0 * length);
                    p += 1 / (1 + Math.exp(-of.logits[t][e])) / sum / length;
                }
                want += ALPHA * f * p / 3;
            }
        }
        RouterBatch batch = of.withSequences(RoutedBatch.ints(arena, bounds));
        assertValue(new RouterLoss.SequenceBalance(ALPHA), batch, want);
        RouterLoss whole = new RouterLoss.LoadBalance(ALPHA, Counted.ALL, LoadShare.OF_SLOTS);
        assertValue(new RouterLoss.SequenceBalance(ALPHA), of.batch, whole.value(of.batch));
    }

    /** DeepSeek-V2, equations 25 to 31. */
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 4, 12})
    void deviceAndCommunicationBalance_countDevices(int devices) {
        RoutedBatch of = softmax(40, 12, 3);
        int perDevice = 12 / devices;
        double[] mean = columnMeans(of.softmax(), 12);
        double device = 0;
        double communication = 0;
        int limit = Math.min(3, devices);
        for (int d = 0; d < devices; d++) {
            double f = 0;
            double p = 0;
            for (int e = d * perDevice; e < (d + 1) * perDevice; e++) {
                f += 12 * columnMeans(of.selected(), 12)[e] / 3 / perDevice;
                p += mean[e];
            }
            int first = d * perDevice;
            long sent =
                    Arrays.stream(of.selected())
                            .filter(row -> Arrays.stream(row, first, first + perDevice).sum() > 0)
                            .count();
            device += ALPHA * f * p;
            communication += ALPHA * devices * sent / (limit * 40.0) * p;
        }
        assertValue(new RouterLoss.DeviceBalance(ALPHA, devices), of.batch, device);
        assertValue(
                new RouterLoss.CommunicationBalance(ALPHA, devices, limit),
                of.batch,
                communication);
    }

    @Test
    void deviceLosses_refuseDevicesThatDoNotDivideTheExperts() {
        RoutedBatch of = softmax(4, 6, 2);
        assertThatThrownBy(() -> new RouterLoss.DeviceBalance(1, 4).value(of.batch))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("numDevices: expected a divisor of numExperts=6, got 4");
        assertThatThrownBy(() -> new RouterLoss.CommunicationBalance(1, 2, 3))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("maxDevices: expected 1 to numDevices=2, got 3");
    }

    /** A first choice that leaves nothing to the others has no second gate. */
    @Test
    void secondChoice_ofACertainToken_isFinite() {
        double[][] logits = {{800, 0, 0}};
        RoutedBatch of = RoutedBatch.of(arena, logits, RouterConfig.softmaxTopK(3, 2, true), null);
        assertThat(new RouterLoss.SecondChoice(1).value(of.batch)).isZero();
    }

    /** V-MoE: each token counts with its whole distribution before noise. */
    @Test
    void importanceVariation_ofProbabilitiesIsOfAllExperts() {
        double[] p = {Math.log(4), Math.log(3), Math.log(2), 0};
        double[][] noisy = {{9, 0, 0, 0}, {9, 0, 0, 0}};
        RouterConfig one = RouterConfig.softmaxTopK(4, 1, false);
        RoutedBatch of = RoutedBatch.of(arena, noisy, one, null);
        Tensor clean = Tensor.allocate(arena, DType.F32, 2, 4);
        for (int e = 0; e < 4; e++) {
            clean.setDouble(e, p[e]);
            clean.setDouble(7 - e, p[e]);
        }
        RouterBatch batch = of.withNoise(new RouterBatch.Noise(clean, clean));
        RouterLoss loss =
                new RouterLoss.ImportanceVariation(
                        1, Variance.POPULATION, Importance.PROBABILITIES);
        assertThat(loss.value(batch)).isCloseTo(0, within(1e-12));
        // Without noise the logits themselves: all on one of four is a CV^2 of nearly 3.
        assertThat(loss.value(of.batch)).isBetween(2.99, 3.0);
    }

    @Test
    void importanceVariation_isSquaredInBothForms() {
        RoutedBatch of = softmax(50, 6, 2);
        double[] importance = new double[6];
        double[][] p = of.softmax();
        double[][] selected = of.selected();
        for (int t = 0; t < 50; t++) {
            for (int e = 0; e < 6; e++) {
                importance[e] += p[t][e] * selected[t][e];
            }
        }
        double mean = Arrays.stream(importance).average().orElseThrow();
        double squares = Arrays.stream(importance).map(x -> x * x).average().orElseThrow();
        double population = squares / (mean * mean) - 1;
        double got =
                new RouterLoss.ImportanceVariation(1, Variance.POPULATION, Importance.WEIGHTS)
                        .value(of.batch);
        // Weights are F32.
        assertThat(got).isCloseTo(population, within(1e-6 * population));
        double sample =
                new RouterLoss.ImportanceVariation(1, Variance.SAMPLE, Importance.WEIGHTS)
                        .value(of.batch);
        assertThat(sample).isCloseTo(got * 6 / 5, within(1e-14));
        RoutedBatch single = softmax(3, 1, 1);
        assertThatThrownBy(() ->
                        new RouterLoss.ImportanceVariation(1, Variance.SAMPLE, Importance.WEIGHTS)
                                .value(single.batch))
                .hasMessage("numExperts: expected at least 2 for a sample's variance, got 1");
    }

    /** Shazeer's P(x, i): redrawing one noise value, the others as they were. */
    @ParameterizedTest
    @CsvSource({"1,OF_OTHERS", "3,OF_OTHERS", "5,OF_OTHERS", "1,OF_ALL", "3,OF_ALL", "5,OF_ALL"})
    void loadVariation_sumsProbabilitiesOfBeingSelected(int topK, Threshold threshold) {
        int tokens = 20;
        int experts = 5;
        RoutedBatch of = softmax(tokens, experts, topK);
        Random random = new Random(9);
        double[][] clean = new double[tokens][experts];
        double[][] deviations = new double[tokens][experts];
        double[] load = new double[experts];
        for (int t = 0; t < tokens; t++) {
            for (int e = 0; e < experts; e++) {
                clean[t][e] = (float) (of.logits[t][e] + 0.5 * random.nextGaussian());
                deviations[t][e] = (float) (0.1 + random.nextDouble());
                double[] falling = new double[experts];
                int others = 0;
                for (int j = 0; j < experts; j++) {
                    if (threshold == Threshold.OF_ALL || j != e) {
                        falling[others++] = -of.logits[t][j];
                    }
                }
                Arrays.sort(falling, 0, others);
                double limit = topK > others ? Double.NEGATIVE_INFINITY : -falling[topK - 1];
                load[e] += integratedNormal((clean[t][e] - limit) / deviations[t][e]);
            }
        }
        double mean = Arrays.stream(load).average().orElseThrow();
        double squares = Arrays.stream(load).map(x -> (x - mean) * (x - mean)).sum() / experts;
        RouterBatch batch =
                of.withNoise(
                        new RouterBatch.Noise(
                                RoutedBatch.tensor(arena, clean, experts),
                                RoutedBatch.tensor(arena, deviations, experts)));
        assertThat(new RouterLoss.LoadVariation(1, Variance.POPULATION, threshold).value(batch))
                .isCloseTo(squares / (mean * mean), within(1e-9));
    }

    private static double integratedNormal(double x) {
        if (x == Double.POSITIVE_INFINITY) {
            return 1;
        }
        int steps = 4000;
        double from = -12;
        double width = (Math.clamp(x, -12, 12) - from) / steps;
        double sum = 0;
        for (int i = 0; i <= steps; i++) {
            double at = from + i * width;
            int factor = i == 0 || i == steps ? 1 : i % 2 == 0 ? 2 : 4;
            sum += factor * Math.exp(-at * at / 2);
        }
        return sum * width / 3 / Math.sqrt(2 * Math.PI);
    }

    @Test
    void loadVariation_withoutNoise_isRefused() {
        RoutedBatch of = softmax(4, 6, 2);
        RouterLoss loss = new RouterLoss.LoadVariation(1, Variance.POPULATION, Threshold.OF_OTHERS);
        assertThatThrownBy(() -> loss.value(of.batch))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "noise: expected clean logits and deviations, got null; without noise use"
                                + " ImportanceVariation");
    }

    @Test
    void zLoss_isMeanSquareOfLogOfSum() {
        RoutedBatch of = softmax(23, 9, 2);
        double want = 0;
        for (double[] row : of.logits) {
            double log = Math.log(Arrays.stream(row).map(Math::exp).sum());
            want += ALPHA * log * log / 23;
        }
        assertValue(new RouterLoss.ZLoss(ALPHA), of.batch, want);
    }

    @Test
    void zLoss_ofLargeLogits_doesNotOverflow() {
        RoutedBatch of =
                RoutedBatch.of(
                        arena,
                        new double[][] {{3e4, 0}, {-3e4, -3e4}},
                        RouterConfig.softmaxTopK(2, 1, false),
                        null);
        double second = -3e4 + Math.log(2);
        assertValue(new RouterLoss.ZLoss(1), of.batch, (9e8 + second * second) / 2);
    }

    @Test
    void entropiesAndDivergences_areThoseOfTheirEquations() {
        RoutedBatch of = softmax(29, 10, 2);
        double[] mean = columnMeans(of.softmax(), 10);
        double local =
                Arrays.stream(of.softmax())
                        .mapToDouble(RouterLossTest::entropy)
                        .average()
                        .orElseThrow();
        double global = entropy(mean);
        double fromUniform = Arrays.stream(mean).map(p -> 0.1 * Math.log(0.1 / p)).sum();
        double fromMean = Arrays.stream(mean).map(p -> p * Math.log(p / 0.1)).sum();
        assertValue(new RouterLoss.TokenEntropy(ALPHA), of.batch, ALPHA * local);
        assertValue(new RouterLoss.MeanEntropy(ALPHA, Double.NaN), of.batch, -ALPHA * global);
        assertValue(new RouterLoss.MeanEntropy(ALPHA, 9), of.batch, ALPHA * (9 - global));
        assertValue(new RouterLoss.MeanEntropy(ALPHA, 0.1), of.batch, 0);
        assertValue(new RouterLoss.MutualInformation(ALPHA), of.batch, ALPHA * (local - global));
        assertValue(
                new RouterLoss.KlDivergence(ALPHA, Divergence.FROM_UNIFORM),
                of.batch,
                ALPHA * fromUniform);
        assertValue(
                new RouterLoss.KlDivergence(ALPHA, Divergence.FROM_MEAN),
                of.batch,
                ALPHA * fromMean);
    }

    /** A router that serves nobody has nothing to pay for. */
    @Test
    void losses_withoutTokens_areZero() {
        RouterConfig config = RouterConfig.softmaxTopK(4, 2, true);
        RoutedBatch none = RoutedBatch.of(arena, new double[0][4], config, null);
        RoutedBatch padding =
                RoutedBatch.of(
                        arena, new double[3][4], config, RoutedBatch.ints(arena, -1, -1, -1));
        for (RouterLoss loss : ALL) {
            assertThat(loss.value(none.batch)).as(loss.toString()).isZero();
            assertThat(loss.value(padding.batch)).as(loss.toString()).isZero();
        }
    }

    @Test
    void losses_leavePaddingOut() {
        RouterConfig config = RouterConfig.softmaxTopK(6, 2, true);
        RoutedBatch whole = RoutedBatch.random(arena, 4, 9, config);
        double[][] padded = Arrays.copyOf(whole.logits, 12);
        Arrays.fill(padded, 9, 12, new double[] {9, 9, 9, 0, 0, Double.NaN});
        Tensor types = RoutedBatch.ints(arena, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1);
        RoutedBatch with = RoutedBatch.of(arena, padded, config, types);
        for (RouterLoss loss : ALL) {
            assertValue(loss, with.batch, loss.value(whole.batch));
        }
    }

    @Test
    void losses_ofASingleExpert_areThoseOfEvenLoad() {
        RoutedBatch of = softmax(5, 1, 1);
        assertValue(RouterLoss.LoadBalance.ofSwitch(ALPHA), of.batch, ALPHA);
        assertValue(new RouterLoss.TokenEntropy(ALPHA), of.batch, 0);
        assertValue(
                new RouterLoss.ImportanceVariation(ALPHA, Variance.POPULATION, Importance.WEIGHTS),
                of.batch,
                0);
    }

    @Test
    void losses_ofNanLogits_areNan() {
        double[][] logits = {{1, 2, 3}, {0, Double.NaN, 1}};
        RoutedBatch of = RoutedBatch.of(arena, logits, RouterConfig.softmaxTopK(3, 1, false), null);
        for (RouterLoss loss : ALL) {
            assertThat(loss.value(of.batch)).as(loss.toString()).isNaN();
        }
    }

    @Test
    void loadBalance_ofKeptSlots_leavesOutWhatACapacityDropped() {
        RouterConfig config =
                new RouterConfig(
                        4,
                        2,
                        Score.SOFTMAX,
                        new Selection.TopK(),
                        new Normalisation.Sum(0),
                        1,
                        false,
                        new Capacity(new CapacityLimit.Tokens(3), Priority.POSITION, false),
                        RouterConfig.ALL_TOKENS);
        RoutedBatch of = RoutedBatch.random(arena, 5, 16, config);
        double[] kept = new double[4];
        double[][] selected = of.selected();
        for (int e = 0; e < 4; e++) {
            int expert = e;
            double all = Arrays.stream(selected).mapToDouble(row -> row[expert]).sum();
            kept[e] = Math.min(3, all) / 16;
        }
        double[] mean = columnMeans(of.softmax(), 4);
        assertValue(
                new RouterLoss.LoadBalance(ALPHA, Counted.KEPT, LoadShare.OF_TOKENS),
                of.batch,
                ALPHA * 16 * meanOfProducts(kept, mean));
    }
}
