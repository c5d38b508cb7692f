package jmoe.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.train.ExpertLoad.Counts;
import jmoe.train.SelectionBiasUpdate.Form;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;

final class SelectionBiasUpdateTest {
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
}
