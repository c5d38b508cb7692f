package jmoe.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.GuardedMemory;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

final class TensorTest {
    private static final long HUGE = 1L << 40;

    @Test
    void of_viewsFirstBytes() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment data = arena.allocate(100);
            Tensor tensor = Tensor.of(data, DType.F32, 3, 2);
            assertThat(tensor.data().byteSize()).isEqualTo(24);
            assertThat(tensor.data().address()).isEqualTo(data.address());
            assertThat(tensor.numElements()).isEqualTo(6);
            assertThat(tensor.numBytes()).isEqualTo(24);
            assertThat(tensor.rank()).isEqualTo(2);
            assertThat(tensor.dim(0)).isEqualTo(3);
            assertThat(tensor.describe()).isEqualTo("F32 [3, 2]");
            assertThat(tensor.isDevice()).isFalse();
        }
    }

    @Test
    void of_rejectsTooSmallAndHeapMemory() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment data = arena.allocate(23);
            assertThatThrownBy(() -> Tensor.of(data, DType.F32, 3, 2))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("data: expected at least 24 bytes for F32 [3, 2], got 23");
        }
        assertThatThrownBy(() -> Tensor.of(MemorySegment.ofArray(new float[6]), DType.F32, 6))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageMatching("data: expected off-heap memory, got .+");
    }

    @Test
    void of_atAnyAlignment() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment data = arena.allocate(64, 64);
            for (int offset = 0; offset < 16; offset++) {
                Tensor f64 = Tensor.of(data.asSlice(offset), DType.F64, 2);
                f64.setDouble(1, Math.PI);
                assertThat(f64.getDouble(1)).isEqualTo(Math.PI);
                Tensor i32 = Tensor.of(data.asSlice(offset), DType.I32, 2);
                i32.setInt(1, offset - 7);
                assertThat(i32.getInt(1)).isEqualTo(offset - 7);
                assertThat(i32.getLong(1)).isEqualTo(offset - 7);
            }
        }
    }

    @Test
    void shape_mayHoldZeros() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor empty = Tensor.allocate(arena, DType.F32, 3, 0, 5);
            assertThat(empty.numElements()).isZero();
            assertThat(empty.data().byteSize()).isZero();
            assertThat(empty.slice(1, 2).shape()).containsExactly(2, 0, 5);
            assertThat(empty.row(2).shape()).containsExactly(0, 5);
            assertThat(empty.reshape(0).numElements()).isZero();
            Tensor none = Tensor.allocate(arena, DType.Q8_0, 0, 32);
            assertThat(none.slice(0, 0).numBytes()).isZero();
            // More than 2^63 elements but for the zero.
            assertThat(Tensor.allocate(arena, DType.F32, HUGE, HUGE, 0).numElements()).isZero();
            assertThat(Tensor.allocate(arena, DType.F32, 0, HUGE, HUGE).numElements()).isZero();
        }
    }

    @Test
    void shape_thatOverflows_isRejected() {
        MemorySegment none = MemorySegment.NULL;
        long[][] shapes = {
            {HUGE, HUGE},
            {Long.MAX_VALUE, 2},
            {1L << 32, 1L << 31},
            {1L << 32, 1L << 32},
            {3, Long.MAX_VALUE / 2},
            {Long.MAX_VALUE, Long.MAX_VALUE, Long.MAX_VALUE}
        };
        for (long[] shape : shapes) {
            assertThatThrownBy(() -> Tensor.of(none, DType.U8, shape))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("2^63 - 1 elements");
            assertThatThrownBy(() -> Tensor.device(0, DType.U8, shape))
                    .isInstanceOf(IllegalArgumentException.class);
        }
        // As many elements as fit, but not as many bytes.
        assertThatThrownBy(() -> Tensor.of(none, DType.F32, Long.MAX_VALUE))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("2^63 - 1 bytes");
        assertThatThrownBy(() -> Tensor.of(none, DType.F32, 2, -1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("shape: expected dimensions >= 0, got [2, -1]");
        assertThatThrownBy(() -> Tensor.of(none, DType.F32, -1, 0))
                .isInstanceOf(IllegalArgumentException.class);
    }

    @Test
    void scalar_hasOneElementAndNoRows() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor scalar = Tensor.allocate(arena, DType.F64);
            scalar.setDouble(0, 2.5);
            assertThat(scalar.rank()).isZero();
            assertThat(scalar.numElements()).isEqualTo(1);
            assertThat(scalar.getDouble(0)).isEqualTo(2.5);
            assertThat(scalar.reshape(1, 1).getDouble(0)).isEqualTo(2.5);
            assertThat(scalar.describe()).isEqualTo("F64 []");
            assertThatThrownBy(() -> scalar.slice(0, 1))
                    .isInstanceOf(IndexOutOfBoundsException.class);
        }
    }

    @Test
    void shape_isCopied() {
        try (Arena arena = Arena.ofConfined()) {
            long[] shape = {2, 3};
            Tensor tensor = Tensor.of(arena.allocate(24), DType.F32, shape);
            shape[0] = 9;
            tensor.shape()[1] = 9;
            long[] other = {6};
            Tensor flat = tensor.reshape(other);
            other[0] = 9;
            assertThat(tensor.shape()).containsExactly(2, 3);
            assertThat(flat.shape()).containsExactly(6);
        }
    }

    @Test
    void slice_viewsSameMemory() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor tensor = counted(arena, 5, 3);
            Tensor middle = tensor.slice(2, 2);
            assertThat(middle.shape()).containsExactly(2, 3);
            assertThat(middle.getDouble(0)).isEqualTo(6);
            middle.setDouble(5, -1);
            assertThat(tensor.getDouble(11)).isEqualTo(-1);
            assertThat(tensor.row(4).shape()).containsExactly(3);
            assertThat(tensor.row(4).getDouble(2)).isEqualTo(14);
            assertThat(tensor.slice(5, 0).numElements()).isZero();
        }
    }

    @Test
    void slice_outOfRange_isRejected() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor tensor = counted(arena, 5, 3);
            long[][] ranges = {
                {-1, 2},
                {4, 2},
                {0, 6},
                {6, 0},
                {2, -1},
                {Long.MAX_VALUE, 2},
                {2, Long.MAX_VALUE},
                {Long.MIN_VALUE, 1},
                {1, Long.MIN_VALUE}
            };
            for (long[] range : ranges) {
                assertThatThrownBy(() -> tensor.slice(range[0], range[1]))
                        .isInstanceOf(IndexOutOfBoundsException.class)
                        .hasMessageContaining("F32 [5, 3]");
            }
            assertThatThrownBy(() -> tensor.row(5)).isInstanceOf(IndexOutOfBoundsException.class);
            Tensor device = Tensor.device(4096, DType.F32, 5, 3);
            assertThatThrownBy(() -> device.slice(4, 2))
                    .isInstanceOf(IndexOutOfBoundsException.class);
        }
    }

    @Test
    void reshape_keepsElements() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor tensor = counted(arena, 4, 3);
            assertThat(tensor.reshape(2, 6).row(1).getDouble(0)).isEqualTo(6);
            assertThatThrownBy(() -> tensor.reshape(5, 2))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("reshape: expected 12 elements as in F32 [4, 3], got [5, 2]");
            assertThatThrownBy(() -> tensor.reshape(-4, -3))
                    .isInstanceOf(IllegalArgumentException.class);
        }
    }

    @Test
    void blockTypes_areCutBetweenBlocksOnly() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor q8 = Tensor.allocate(arena, DType.Q8_0, 3, 64);
            assertThat(q8.numBytes()).isEqualTo(3 * 68);
            assertThat(q8.row(1).data().address()).isEqualTo(q8.data().address() + 68);
            assertThat(q8.reshape(2, 96).numBytes()).isEqualTo(3 * 68);
            assertThatThrownBy(() -> q8.reshape(12, 16))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("whole blocks of 32 for Q8_0");
            // 64 elements fill blocks, but each row of 16 does not.
            assertThatThrownBy(() -> Tensor.allocate(arena, DType.Q8_0, 4, 16))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("whole blocks of 32 for Q8_0");
            assertThatThrownBy(() -> Tensor.allocate(arena, DType.F4))
                    .isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> q8.getDouble(0))
                    .isInstanceOf(UnsupportedOperationException.class)
                    .hasMessageContaining("Q8_0");
            Tensor vector = Tensor.allocate(arena, DType.MXFP4, 64);
            assertThatThrownBy(() -> vector.slice(0, 16))
                    .isInstanceOf(IllegalArgumentException.class);
        }
    }

    /** Device memory of an arena closes like any other; host memory plays the device here. */
    @Test
    void deviceTensor_ofAnArena_isNotReadAndCloses() {
        Arena arena = Arena.ofConfined();
        MemorySegment memory = arena.allocate(60, 4);
        Tensor device = Tensor.device(memory, DType.F32, 5, 3);
        Tensor last = device.slice(1, 4).row(3).reshape(1, 3);
        assertThat(last.data().address()).isEqualTo(memory.address() + 48);
        assertThat(last.toString()).isEqualTo("F32 [1, 3] on device");
        assertThatThrownBy(() -> device.getDouble(0)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> last.getInt(0)).isInstanceOf(IndexOutOfBoundsException.class);
        Check.vector("x", last.reshape(3), DType.F32, "n", 3);
        arena.close();
        assertThatThrownBy(() -> Check.vector("x", last.reshape(3), DType.F32, "n", 3))
                .isInstanceOf(IllegalStateException.class);
        assertThatThrownBy(() -> Tensor.device(MemorySegment.NULL, DType.F32, 1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("data: expected at least 4 bytes for F32 [1], got 0");
    }

    @Test
    void deviceTensor_throwsOnHostAccess() {
        Tensor device = Tensor.device(0x7f00_0000_0000L, DType.F32, 5, 3);
        assertThat(device.isDevice()).isTrue();
        assertThat(device.numBytes()).isEqualTo(60);
        assertThat(device.toString()).isEqualTo("F32 [5, 3] on device");
        Tensor last = device.slice(1, 4).row(3).reshape(1, 3);
        assertThat(last.isDevice()).isTrue();
        assertThat(last.data().address()).isEqualTo(0x7f00_0000_0000L + 48);
        assertThatThrownBy(() -> last.getDouble(0)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> last.getInt(0)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> last.setDouble(0, 1))
                .isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> last.setInt(0, 1)).isInstanceOf(IndexOutOfBoundsException.class);
    }

    @Test
    void getLong_widensByType() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment ones = arena.allocate(8).fill((byte) 0xff);
            assertThat(Tensor.of(ones, DType.I64, 1).getLong(0)).isEqualTo(-1);
            assertThat(Tensor.of(ones, DType.I32, 1).getLong(0)).isEqualTo(-1);
            assertThat(Tensor.of(ones, DType.I16, 1).getLong(0)).isEqualTo(-1);
            assertThat(Tensor.of(ones, DType.I8, 1).getLong(0)).isEqualTo(-1);
            assertThat(Tensor.of(ones, DType.U32, 1).getLong(0)).isEqualTo(0xffff_ffffL);
            assertThat(Tensor.of(ones, DType.U16, 1).getLong(0)).isEqualTo(0xffff);
            assertThat(Tensor.of(ones, DType.U8, 8).getLong(7)).isEqualTo(0xff);
            assertThatThrownBy(() -> Tensor.of(ones, DType.F32, 1).getLong(0))
                    .isInstanceOf(UnsupportedOperationException.class);
        }
    }

    @Test
    void access_outsideOfElements_isRejected() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor tensor = counted(arena, 5, 3);
            for (long index : new long[] {-1, 15, 1L << 32, Long.MAX_VALUE / 4 + 1}) {
                assertThatThrownBy(() -> tensor.getDouble(index))
                        .as("index %d", index)
                        .isInstanceOf(IndexOutOfBoundsException.class);
            }
        }
    }

    @Test
    void access_afterClose_throws() {
        Arena arena = Arena.ofConfined();
        Tensor tensor = Tensor.allocate(arena, DType.F32, 2);
        arena.close();
        assertThatThrownBy(() -> tensor.getDouble(0)).isInstanceOf(IllegalStateException.class);
    }

    @Test
    @Tag("large")
    void elementsBeyond2To31_areAddressed() {
        Assumptions.assumeTrue(GuardedMemory.available());
        try (GuardedMemory memory = new GuardedMemory()) {
            long rows = (1L << 31) / 1000 + 10;
            Tensor tensor = memory.sparse(DType.F32, rows, 1000);
            long last = tensor.numElements() - 1;
            assertThat(last).isGreaterThan(1L << 31);
            tensor.setDouble(last, 7);
            tensor.setInt(last - 1, 8);
            assertThat(tensor.row(rows - 1).getDouble(999)).isEqualTo(7);
            assertThat(tensor.slice(rows - 2, 2).getInt(1998)).isEqualTo(8);
            assertThat(tensor.reshape(tensor.numElements()).getFloat(last)).isEqualTo(7);
            assertThat(tensor.getDouble(last & 0x7fff_ffff)).isZero();
        }
    }

    @Test
    void scaled_multipliesCodesByTheirRowsFactor() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor scaled = scaled(arena);
            assertThat(scaled.dtype()).isEqualTo(DType.I8);
            assertThat(scaled.describe()).isEqualTo("scaled I8 [2, 3, 4]");
            assertThat(scaled).hasToString("scaled I8 [2, 3, 4]");
            assertThat(scaled.numBytes()).isEqualTo(24);
            for (int i = 0; i < 24; i++) {
                assertThat(scaled.getLong(i)).isEqualTo(i - 128);
                assertThat(scaled.getDouble(i)).isEqualTo(0.125 * (i / 4 + 1) * (i - 128));
                assertThat(scaled.getFloat(i)).isEqualTo((float) scaled.getDouble(i));
            }
            assertThatThrownBy(() -> scaled.setDouble(0, 1))
                    .isInstanceOf(UnsupportedOperationException.class)
                    .hasMessageContaining("I8");
            assertThat(scaled.reshape(24 / 4, 4).scale().shape()).containsExactly(6);
            assertThat(counted(arena, 2).scale()).isNull();
        }
    }

    /** A view of rows has their factors; what would cut rows has none to have. */
    @Test
    void scaled_keepsItsScaleInViewsAndCopies() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor scaled = scaled(arena);
            assertThat(scaled.slice(1, 1).getDouble(4)).isEqualTo(scaled.getDouble(16));
            assertThat(scaled.row(1).getDouble(4)).isEqualTo(scaled.getDouble(16));
            assertThat(scaled.row(1).row(1).getDouble(2)).isEqualTo(scaled.getDouble(18));
            assertThat(scaled.row(1).row(1).slice(1, 2).getDouble(1))
                    .isEqualTo(scaled.getDouble(18));
            assertThat(scaled.reshape(6, 4).getDouble(23)).isEqualTo(scaled.getDouble(23));
            assertThat(scaled.slice(2, 0).scale().shape()).containsExactly(0, 3);
            Tensor copy = scaled.copy(arena);
            double last = scaled.getDouble(23);
            scaled.data().fill((byte) 0);
            scaled.scale().setDouble(5, 7);
            assertThat(copy.getDouble(23)).isEqualTo(last);
            for (long[] shape : new long[][] {{2, 12}, {24}, {4, 3, 2}}) {
                assertThatThrownBy(() -> scaled.reshape(shape))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageMatching(
                                "reshape: expected rows of 4 as in scaled I8 \\[2, 3, 4], each of"
                                        + " which has one scale, got .+");
            }
            assertThatThrownBy(() -> scaled.row(0).row(0).row(0))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("reshape: expected rows of 1");
        }
    }

    @Test
    void scaled_refusesOtherTypesAndShapes() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor codes = Tensor.allocate(arena, DType.I8, 2, 3);
            Tensor scale = Tensor.allocate(arena, DType.F32, 2);
            Tensor scaled = Tensor.scaled(codes, scale);
            for (Tensor wrong :
                    new Tensor[] {
                        Tensor.allocate(arena, DType.U8, 2, 3),
                        Tensor.allocate(arena, DType.I8),
                        scaled
                    }) {
                assertThatThrownBy(() -> Tensor.scaled(wrong, scale))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(
                                "codes: expected I8 of at least one dimension, got "
                                        + wrong.describe());
            }
            for (Tensor wrong :
                    new Tensor[] {
                        Tensor.allocate(arena, DType.F32, 3),
                        Tensor.allocate(arena, DType.F32, 2, 1),
                        Tensor.allocate(arena, DType.F64, 2)
                    }) {
                assertThatThrownBy(() -> Tensor.scaled(codes, wrong))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(
                                "scale: expected F32 [2], one per row, got " + wrong.describe());
            }
            assertThatThrownBy(() -> Tensor.scaled(codes, Tensor.device(64, DType.F32, 2)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "scale: expected memory on the same side as the codes, I8 [2, 3],"
                                    + " got F32 [2] on device");
        }
    }

    @Test
    void scaled_ofDeviceAndPreparedCodes() {
        Tensor device =
                Tensor.scaled(
                        Tensor.device(4096, DType.I8, 5, 3, 4),
                        Tensor.device(8192, DType.F32, 5, 3));
        assertThat(device).hasToString("scaled I8 [5, 3, 4] on device");
        Tensor last = device.slice(1, 4).row(3);
        assertThat(last.data().address()).isEqualTo(4096 + 48);
        assertThat(last.scale().data().address()).isEqualTo(8192 + 48);
        try (Arena arena = Arena.ofConfined()) {
            Layout layout =
                    new Layout() {
                        private final MemorySegment memory = arena.allocate(64);

                        @Override
                        public MemorySegment memory() {
                            return memory;
                        }

                        @Override
                        public String describe() {
                            return "heaps";
                        }
                    };
            Tensor scale = Tensor.allocate(arena, DType.F32, 5);
            Tensor prepared = Tensor.scaled(Tensor.prepared(layout, DType.I8, 5, 4), scale);
            assertThat(prepared).hasToString("scaled I8 [5, 4] in heaps");
            assertThat(prepared.layout()).isSameAs(layout);
            assertThat(prepared.scale()).isSameAs(scale);
            assertThatThrownBy(() -> prepared.row(0))
                    .isInstanceOf(UnsupportedOperationException.class);
            assertThatThrownBy(() -> prepared.getDouble(0))
                    .isInstanceOf(IndexOutOfBoundsException.class);
        }
    }

    /** Codes from -128 on; an eighth, two eighths and so on as the factors of rows. */
    private static Tensor scaled(Arena arena) {
        Tensor codes = Tensor.allocate(arena, DType.I8, 2, 3, 4);
        Tensor scale = Tensor.allocate(arena, DType.F32, 2, 3);
        for (int i = 0; i < 24; i++) {
            codes.data().set(JAVA_BYTE, i, (byte) (i - 128));
        }
        for (int row = 0; row < 6; row++) {
            scale.setDouble(row, 0.125 * (row + 1));
        }
        return Tensor.scaled(codes, scale);
    }

    private static Tensor counted(Arena arena, long... shape) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, shape);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, i);
        }
        return tensor;
    }
}
