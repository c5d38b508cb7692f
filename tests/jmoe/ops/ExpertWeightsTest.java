package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;

final class ExpertWeightsTest {
    private final Arena arena = Arena.ofAuto();

    private Tensor plain(DType dtype, long... shape) {
        return Tensor.allocate(arena, dtype, shape);
    }

    private Tensor scaled(long... shape) {
        return Quantisation.of(plain(DType.F32, shape), arena);
    }

    private static ExpertWeights bank(Tensor gateUp, Tensor down) {
        return new ExpertWeights(gateUp, down, null, null, Activation.SWIGLU);
    }

    @Test
    void bank_takesCodesWithAScale() {
        ExpertWeights bank = bank(scaled(2, 6, 5), scaled(2, 5, 3));
        assertThat(bank.numExperts()).isEqualTo(2);
        assertThat(bank.hidden()).isEqualTo(5);
        assertThat(bank.intermediate()).isEqualTo(3);
    }

    @Test
    void bank_refusesCodesWithoutAScale() {
        assertThatThrownBy(() -> bank(plain(DType.I8, 2, 6, 5), scaled(2, 5, 3)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith(
                        "gateUp: expected F32, F16, BF16, F64 or scaled I8 [numExperts, gateUp,"
                                + " hidden], got I8 [2, 6, 5]; give the codes their factors by"
                                + " Tensor.scaled");
        assertThatThrownBy(() -> bank(scaled(2, 6, 5), plain(DType.I8, 2, 5, 3)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith("down: expected F32, F16, BF16, F64 or scaled I8 ")
                .hasMessageContaining("by Tensor.scaled");
    }

    @Test
    void bank_isOfOneType() {
        assertThatThrownBy(() -> bank(scaled(2, 6, 5), plain(DType.F32, 2, 5, 3)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "down: expected scaled I8 [numExperts=2, hidden=5, intermediate=3], got"
                                + " F32 [2, 5, 3]");
        assertThatThrownBy(() -> bank(plain(DType.BF16, 2, 6, 5), scaled(2, 5, 3)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "down: expected BF16 [numExperts=2, hidden=5, intermediate=3], got scaled"
                                + " I8 [2, 5, 3]");
    }

    @Test
    void router_refusesCodes() {
        assertThatThrownBy(() -> new RouterWeights(scaled(1, 4, 5), null, null))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "weight: expected F32, F16 or BF16 [1, numLogits, hidden], got scaled I8"
                                + " [1, 4, 5]");
    }

    @Test
    void copy_refusesAScale() {
        Tensor scaled = scaled(2, 3);
        Tensor codes = plain(DType.I8, 2, 3);
        assertThatThrownBy(() -> Arguments.copy(scaled, codes))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "from: expected elements without a scale, got scaled I8 [2, 3]; copy it by"
                                + " Tensor.copy");
        assertThatThrownBy(() -> Arguments.copy(codes, scaled))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith("to: expected elements without a scale, got scaled I8");
        Arguments.copy(codes, plain(DType.I8, 2, 3));
    }
}
