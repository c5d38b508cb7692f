package jmoe.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.Random;

final class RouterOrthogonalityTest {
    private final Arena arena = Arena.ofAuto();

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
