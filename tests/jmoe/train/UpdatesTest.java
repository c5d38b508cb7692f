package jmoe.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.train.ExpertLoad.Counts;
import jmoe.train.SelectionBiasUpdate.Form;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.Random;

/** What is adjusted from step to step, and the loss of the router's weight. */
final class UpdatesTest {
    private final Arena arena = Arena.ofAuto();

    private double[] after(Form form, long... load) {
        Tensor bias = Tensor.allocate(arena, DType.F32, load.length);
        bias.setDouble(0, 1);
        new SelectionBiasUpdate(0.25, form).apply(bias, new Counts(load));
        double[] values = new double[load.length];
        for (int e = 0; e < values.length; e++) {
            values[e] = bias.getDouble(e);
        }
        return values;
    }

    @Test
    void selectionBias_risesWhereLoadIsBelowTheMean() {
        assertThat(after(Form.SIGN, 8, 4, 0)).containsExactly(0.75, 0, 0.25);
        assertThat(after(Form.DIFFERENCE, 8, 4, 0)).containsExactly(0, 0, 1);
        assertThat(after(Form.SIGN, 0, 0)).containsExactly(1, 0);
    }

    @Test
    void selectionBias_ofOtherExperts_isRefused() {
        Tensor bias = Tensor.allocate(arena, DType.F32, 3);
        SelectionBiasUpdate update = new SelectionBiasUpdate(1, Form.SIGN);
        assertThatThrownBy(() -> update.apply(bias, new Counts(new long[] {1, 2})))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("selectionBias: expected F32 [numExperts=2], got F32 [3]");
    }

    @Test
    void adaptiveCoefficient_followsTheDropRate() {
        AdaptiveCoefficient skywork = AdaptiveCoefficient.ofSkywork();
        assertThat(skywork.next(0.01, 0)).isCloseTo(0.0099, within(1e-15));
        assertThat(skywork.next(0, 0.02)).isCloseTo(0.01 * 0.004, within(1e-15));
        assertThat(skywork.next(0, 1)).isCloseTo(0.01 * 0.01, within(1e-15));
        assertThatThrownBy(() -> skywork.next(0, 1.5))
                .hasMessage("dropRate: expected 0 to 1, got 1.5");
        assertThatThrownBy(() -> new AdaptiveCoefficient(0.2, 0.01, 2))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith("coefficient: expected slope and max of at least 0");
    }

    /** ERNIE 4.5: the Gram matrix of normalised columns, less the identity. */
    @Test
    void orthogonality_isTheDistanceOfTheGramMatrixFromTheIdentity() {
        int experts = 5;
        int hidden = 3;
        Random random = new Random(1);
        double[][] weight = new double[experts][hidden];
        for (double[] row : weight) {
            for (int h = 0; h < hidden; h++) {
                row[h] = (float) random.nextGaussian();
            }
        }
        double want = 0;
        for (double[] a : weight) {
            for (double[] b : weight) {
                double cosine =
                        (a[0] * b[0] + a[1] * b[1] + a[2] * b[2])
                                / Math.hypot(Math.hypot(a[0], a[1]), a[2])
                                / Math.hypot(Math.hypot(b[0], b[1]), b[2]);
                double off = a == b ? cosine - 1 : cosine;
                want += 0.5 * off * off / 25;
            }
        }
        Tensor tensor = RoutedBatch.tensor(arena, weight, hidden);
        assertThat(new RouterOrthogonality(0.5).value(tensor)).isCloseTo(want, within(1e-14));
        double[][] unit = {{2, 0}, {0, -3}};
        assertThat(new RouterOrthogonality(1).value(RoutedBatch.tensor(arena, unit, 2))).isZero();
        double[][] none = {{0, 0}, {0, 1}};
        assertThat(new RouterOrthogonality(1).value(RoutedBatch.tensor(arena, none, 2)))
                .isEqualTo(0.25);
    }
}
