package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;

/** {@link Kernels#allocate}, {@link Kernels#copy}, {@link Kernels#fill}. */
interface MemoryContract extends Contract {
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "I32", "U8"})
    default void copy_bringsEveryByteThereAndBack(DType type) {
        try (Arena arena = Arena.ofConfined()) {
            for (int rows : new int[] {0, 1, 7}) {
                Tensor host = Tensor.allocate(arena, type, rows, 5);
                for (long i = 0; i < host.numBytes(); i++) {
                    host.data().set(JAVA_BYTE, i, (byte) (3 * i + 1));
                }
                Tensor there = backend().allocate(arena, type, rows, 5);
                Tensor moved = backend().allocate(arena, type, rows, 5);
                Tensor back = Tensor.allocate(arena, type, rows, 5);
                assertThat(there.shape()).containsExactly(rows, 5);
                assertThat(there.dtype()).isEqualTo(type);
                backend().copy(host, there);
                backend().copy(there, moved);
                backend().copy(moved, back);
                assertThat(back.data().mismatch(host.data())).isEqualTo(-1);
                Tensor other = Tensor.allocate(arena, type, rows, 5);
                backend().copy(back, other);
                assertThat(other.data().mismatch(host.data())).isEqualTo(-1);
            }
        }
    }

    @Test
    default void fill_setsThatPartAndNoOther() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor there = backend().allocate(arena, DType.I32, 9);
            backend().fill(there, 17);
            backend().fill(there.slice(3, 4), -1);
            backend().fill(there.slice(2, 0), 5);
            backend().synchronise();
            Tensor host = Tensor.allocate(arena, DType.I32, 9);
            backend().copy(there, host);
            for (int i = 0; i < 9; i++) {
                assertThat(host.getInt(i)).isEqualTo(i >= 3 && i < 7 ? -1 : 17);
            }
            backend().fill(host, 4);
            assertThat(host.getInt(8)).isEqualTo(4);
        }
    }

    @Test
    default void copyAndFill_refuseWhatTheyCannotDo() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor host = Tensor.allocate(arena, DType.F32, 2, 3);
            Tensor there = backend().allocate(arena, DType.F32, 2, 3);
            assertThatThrownBy(() -> backend().copy(host.reshape(3, 2), there))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("to: expected F32 [3, 2] as from, got F32 [2, 3]");
            assertThatThrownBy(() -> backend().copy(there, there))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("to: expected memory of its own, got memory shared with from");
            Tensor readOnly = Tensor.of(host.data().asReadOnly(), DType.F32, 2, 3);
            assertThatThrownBy(() -> backend().copy(there, readOnly))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("to: expected writable memory, got a read-only segment");
            backend().copy(readOnly, there);
            assertThatThrownBy(() -> backend().fill(there, 1))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("tensor: expected I32 of any shape, got F32 [2, 3]");
            Arena closed = Arena.ofConfined();
            Tensor gone = backend().allocate(closed, DType.F32, 2, 3);
            closed.close();
            assertThatThrownBy(() -> backend().copy(gone, host))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("from: its arena is closed");
        }
    }
}
