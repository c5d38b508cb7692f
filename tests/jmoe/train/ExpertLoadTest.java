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
import jmoe.train.ExpertLoad.Counts;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;

final class ExpertLoadTest {
    private static Counts counts(long... perExpert) {
        return new Counts(perExpert);
    }

    @Test
    void counts_ofUnevenLoad_areMeasured() {
        Counts counts = counts(6, 0, 2, 0);
        assertThat(counts.sum()).isEqualTo(8);
        // Mean 2, squares of distances 16 + 4 + 0 + 4.
        assertThat(counts.variation()).isCloseTo(Math.sqrt(6) / 2, within(1e-15));
        assertThat(counts.maxViolation()).isEqualTo(2);
        assertThat(counts.spread()).isEqualTo(6);
        assertThat(counts.idle()).isEqualTo(2);
        double entropy = -0.75 * Math.log(0.75) - 0.25 * Math.log(0.25);
        assertThat(counts.entropy()).isCloseTo(entropy, within(1e-15));
    }

    @Test
    void counts_ofEvenLoad_areZeroAndTheLogarithmOfExperts() {
        Counts counts = counts(5, 5, 5);
        assertThat(counts.variation()).isZero();
        assertThat(counts.maxViolation()).isZero();
        assertThat(counts.idle()).isZero();
        assertThat(counts.entropy()).isCloseTo(Math.log(3), within(1e-15));
    }

    @Test
    void counts_ofNothing_haveNoMean() {
        Counts counts = counts(0, 0);
        assertThat(counts.variation()).isNaN();
        assertThat(counts.maxViolation()).isNaN();
        assertThat(counts.entropy()).isNaN();
        assertThat(counts.idle()).isEqualTo(2);
        assertThatThrownBy(ExpertLoadTest::counts)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("perExpert: expected at least 1, got none");
    }

    @Test
    void counts_areNotChangedFromOutside() {
        long[] numbers = {1, 2};
        Counts counts = new Counts(numbers);
        numbers[0] = 9;
        counts.perExpert()[1] = 9;
        assertThat(counts).isEqualTo(counts(1, 2)).hasToString("[1, 2]");
        assertThat(counts.hashCode()).isEqualTo(counts(1, 2).hashCode());
    }

    /** Four tokens ask for expert 1 first; two of them find a place. */
    @Test
    void of_tellsWhatACapacityDropped() {
        double[][] logits = {{0, 9, 1}, {1, 9, 0}, {0, 9, 1}, {0, 9, 1}, {9, 1, 0}};
        RouterConfig config =
                new RouterConfig(
                        3,
                        1,
                        Score.SOFTMAX,
                        new Selection.TopK(),
                        new Normalisation.None(),
                        1,
                        false,
                        new Capacity(new CapacityLimit.Tokens(2), Priority.POSITION, false),
                        RouterConfig.ALL_TOKENS);
        RoutedBatch of =
                RoutedBatch.of(
                        Arena.ofAuto(),
                        logits,
                        config,
                        RoutedBatch.ints(Arena.ofAuto(), 0, 0, 0, 0, -1));
        ExpertLoad load = ExpertLoad.of(of.batch);
        assertThat(load.assigned()).isEqualTo(counts(0, 4, 0));
        assertThat(load.kept()).isEqualTo(counts(0, 2, 0));
        assertThat(load.tokens()).isEqualTo(4);
        assertThat(load.dropRate()).isEqualTo(0.5);
        assertThat(load.imbalance()).isEqualTo(1);
    }

    /** Three tokens ask for expert 1, which takes one: its neighbours are experts 2 and 0. */
    @Test
    void of_tellsWhatACapacityMoved() {
        double[][] logits = {{0, 9, 1}, {1, 9, 0}, {0, 9, 1}, {9, 1, 0}};
        Capacity one =
                new Capacity(new CapacityLimit.Tokens(1), Priority.POSITION, false)
                        .withOverflow(new Capacity.Overflow.Ring(2));
        RouterConfig free = RouterConfig.softmaxTopK(3, 1, false);
        RouterConfig config =
                new RouterConfig(
                        3,
                        1,
                        free.score(),
                        free.selection(),
                        free.normalisation(),
                        1,
                        false,
                        one,
                        RouterConfig.ALL_TOKENS);
        RoutedBatch of = RoutedBatch.of(Arena.ofAuto(), logits, config, null);
        RoutedBatch asked = RoutedBatch.of(Arena.ofAuto(), logits, free, null);
        assertThat(of.batch.moved(asked.batch.routing())).isEqualTo(1);
        ExpertLoad load = ExpertLoad.of(of.batch);
        assertThat(load.assigned()).isEqualTo(counts(1, 2, 1));
        assertThat(load.kept()).isEqualTo(counts(1, 1, 1));
        RoutedBatch fewer = RoutedBatch.of(Arena.ofAuto(), new double[1][3], free, null);
        assertThatThrownBy(() -> of.batch.moved(fewer.batch.routing()))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("asked: expected tokens=4 and topK=1, got 1 and 1");
    }

    @Test
    void of_withoutTokens_dropsNothing() {
        RouterConfig config = RouterConfig.softmaxTopK(2, 1, true);
        RoutedBatch of = RoutedBatch.of(Arena.ofAuto(), new double[0][2], config, null);
        ExpertLoad load = ExpertLoad.of(of.batch);
        assertThat(load.dropRate()).isZero();
        assertThat(load.imbalance()).isNaN();
    }
}
