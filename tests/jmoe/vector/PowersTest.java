package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;

class PowersTest {
    @Test
    void compute_isTheExponentialToTheLastBits() {
        double[] logits = new double[1001];
        for (int e = 0; e < logits.length; e++) {
            logits[e] = 3.25 - e * 0.61803f;
        }
        double[] powers = powers(logits);
        for (int e = 0; e < logits.length; e++) {
            double want = Math.exp((float) logits[e] - 3.25);
            assertThat(powers[e]).isBetween(want * (1 - 4e-16), want * (1 + 4e-16));
        }
    }

    @Test
    void compute_ofWhatIsNoNumber() {
        double inf = Double.POSITIVE_INFINITY;
        assertThat(powers(1, Double.NaN, 1, -inf)).containsExactly(1, 0, 1, Math.exp(-700));
        assertThat(powers(inf, 3, inf)).containsExactly(1, Math.exp(-700), 1);
        assertThat(powers(-inf, Double.NaN)).containsExactly(1, 0);
        assertThat(powers(Double.NaN)).containsExactly(0);
        assertThat(powers(Float.MAX_VALUE, -Float.MAX_VALUE)).containsExactly(1, Math.exp(-700));
    }

    private static double[] powers(double... logits) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor tensor = Tensor.allocate(arena, DType.F32, 1, logits.length);
            Powers powers = new Powers(logits.length);
            for (int e = 0; e < logits.length; e++) {
                tensor.setDouble(e, logits[e]);
            }
            powers.compute(new Elements(tensor.data(), DType.F32), 0);
            double[] first = new double[logits.length];
            System.arraycopy(powers.powers, 0, first, 0, first.length);
            for (int e = first.length; e < powers.powers.length; e++) {
                assertThat(powers.powers[e]).isZero();
            }
            return first;
        }
    }
}
