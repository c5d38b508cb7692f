package jmoe.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.train.RouterBatch.Counted;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.lang.foreign.Arena;
import java.util.Arrays;

final class RouterBatchTest {
    private static final RouterConfig CONFIG = RouterConfig.softmaxTopK(4, 2, true);

    private final Arena arena = Arena.ofAuto();

    private RouterBatch batch() {
        return RoutedBatch.random(arena, 1, 5, CONFIG).batch;
    }

    private static void assertRefused(Runnable make, String message) {
        assertThatThrownBy(make::run)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(message);
    }

    @Test
    void counts_areOfAllOrFirstChoices() {
        double[][] logits = {{3, 2, 1, 0}, {3, 1, 2, 0}, {0, 1, 2, 3}};
        RouterBatch batch = RoutedBatch.of(arena, logits, CONFIG, null).batch;
        assertThat(batch.counts(Counted.ALL)).containsExactly(2, 1, 2, 1);
        assertThat(batch.counts(Counted.FIRST)).containsExactly(2, 0, 0, 1);
        assertThat(batch.counts(Counted.KEPT)).containsExactly(2, 1, 2, 1);
        assertThat(batch.numServed()).isEqualTo(3);
    }

    @Test
    void counts_leaveOutTokensThatAreNotServed() {
        Tensor types = RoutedBatch.ints(arena, 0, -1);
        RouterBatch batch = RoutedBatch.of(arena, new double[2][4], CONFIG, types).batch;
        // Whoever routed left something there.
        batch.routing().topkIds().setInt(2, 3);
        assertThat(batch.counts(Counted.ALL)).containsExactly(1, 1, 0, 0);
        assertThat(batch.numServed()).isEqualTo(1);
    }

    @Test
    void probabilities_ofSigmoidScores_addUpToOne() {
        RouterConfig config =
                new RouterConfig(
                        3,
                        1,
                        Score.SIGMOID,
                        new Selection.TopK(),
                        new Normalisation.None(),
                        1,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        RouterBatch batch =
                RoutedBatch.of(arena, new double[][] {{0, Math.log(3), -1e4}}, config, null).batch;
        double[] p = new double[3];
        batch.probabilities(0, p);
        assertThat(p[0]).isCloseTo(0.4, within(1e-7));
        assertThat(p[1]).isCloseTo(0.6, within(1e-7));
        assertThat(p[2]).isZero();
    }

    @Test
    void meanProbabilities_ofLargeLogits_areFinite() {
        double[][] logits = {{1e30, 0, 0, 0}, {-1e30, -1e30, -1e30, -1e30}};
        RouterBatch batch = RoutedBatch.of(arena, logits, CONFIG, null).batch;
        assertThat(batch.meanProbabilities()).containsExactly(0.625, 0.125, 0.125, 0.125);
        assertThat(Arrays.stream(batch.meanProbabilities()).sum()).isEqualTo(1);
    }

    @Test
    void batch_refusesWhatDoesNotFitTogether() {
        RouterBatch batch = batch();
        Tensor other = Tensor.allocate(arena, DType.F32, 5, 3);
        assertRefused(
                () -> new RouterBatch(other, CONFIG, batch.routing()),
                "logits: expected F32 [tokens=5, numExperts=4], got F32 [5, 3]");
        RouterConfig three = RouterConfig.softmaxTopK(4, 3, true);
        assertRefused(
                () -> new RouterBatch(batch.logits(), three, batch.routing()),
                "routing: expected topK=3 and at most numExperts=4, got 2 and 4");
        Tensor types = Tensor.allocate(arena, DType.I32, 4);
        assertRefused(
                () -> new RouterBatch(batch.logits(), CONFIG, batch.routing(), types, null, null),
                "tokenTypes: expected I32 [tokens=5], got I32 [4]");
        RouterBatch.Noise noise = new RouterBatch.Noise(batch.logits(), other);
        assertRefused(
                () -> new RouterBatch(batch.logits(), CONFIG, batch.routing(), null, null, noise),
                "deviations: expected F32 [tokens=5, numExperts=4], got F32 [5, 3]");
        RouterConfig keys =
                new RouterConfig(
                        4,
                        2,
                        Score.SOFTMAX,
                        new Selection.ProductKeys(2),
                        new Normalisation.None(),
                        1,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        assertRefused(
                () -> new RouterBatch(batch.logits(), keys, Routing.allocate(arena, 5, 2, 4)),
                "config: expected a logit for each expert, got ProductKeys[numKeys=2]");
    }

    @ParameterizedTest
    @CsvSource({"1 5,1,0", "0 4,4,1", "0 3 2 5,2,2", "0 6 5,6,1", "5,5,0"})
    void batch_refusesSequencesThatDoNotCoverIt(String text, int wrong, int at) {
        int[] numbers = Arrays.stream(text.split(" ")).mapToInt(Integer::parseInt).toArray();
        Tensor offsets = RoutedBatch.ints(arena, numbers);
        RouterBatch batch = batch();
        assertRefused(
                () -> new RouterBatch(batch.logits(), CONFIG, batch.routing(), null, offsets, null),
                "sequenceOffsets: expected to rise from 0 to tokens=5, got " + wrong + " at " + at);
    }
}
