package jmoe.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.util.List;

final class DTypeTest {
    @Test
    void numBytes_ofPlainTypes_isElementsTimesWidth() {
        assertThat(DType.F64.numBytes(3)).isEqualTo(24);
        assertThat(DType.F32.numBytes(3)).isEqualTo(12);
        assertThat(DType.F16.numBytes(3)).isEqualTo(6);
        assertThat(DType.BF16.numBytes(3)).isEqualTo(6);
        assertThat(DType.C64.numBytes(3)).isEqualTo(24);
        assertThat(DType.U8.numBytes(3)).isEqualTo(3);
    }

    @Test
    void numBytes_ofBlockTypes_countsBlocks() {
        assertThat(DType.F4.numBytes(6)).isEqualTo(3);
        assertThat(DType.F6_E2M3.numBytes(8)).isEqualTo(6);
        assertThat(DType.Q8_0.numBytes(64)).isEqualTo(68);
        assertThat(DType.Q4_0.numBytes(64)).isEqualTo(36);
        assertThat(DType.Q4_1.numBytes(32)).isEqualTo(20);
        assertThat(DType.Q5_0.numBytes(32)).isEqualTo(22);
        assertThat(DType.Q5_1.numBytes(32)).isEqualTo(24);
        assertThat(DType.MXFP4.numBytes(32)).isEqualTo(17);
    }

    @ParameterizedTest
    @EnumSource
    void numBytes_rejectsWhatIsNoNumberOfBlocks(DType dtype) {
        assertThat(dtype.numBytes(0)).isZero();
        assertThatThrownBy(() -> dtype.numBytes(-dtype.blockElements()))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining(dtype.name());
        if (dtype.blockElements() > 1) {
            assertThatThrownBy(() -> dtype.numBytes(dtype.blockElements() + 1L))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("multiple of " + dtype.blockElements());
        }
    }

    @ParameterizedTest
    @EnumSource
    void numBytes_reachesTo2To63(DType dtype) {
        long most = Long.MAX_VALUE / dtype.blockElements() * dtype.blockElements();
        if (dtype.blockBytes() <= dtype.blockElements()) {
            assertThat(dtype.numBytes(most))
                    .isEqualTo(most / dtype.blockElements() * dtype.blockBytes());
        } else {
            assertThatThrownBy(() -> dtype.numBytes(most))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("2^63 - 1 bytes");
        }
    }

    @ParameterizedTest
    @EnumSource
    void isFloating_onlyOfTypesThatAreComputedWith(DType dtype) {
        assertThat(dtype.isFloating())
                .isEqualTo(List.of("F64", "F32", "F16", "BF16").contains(dtype.name()));
    }
}
