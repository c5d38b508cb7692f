package jmoe.nativecpu;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.MemoryLayout.PathElement.groupElement;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.ops.Activation;
import jmoe.ops.Cases;
import jmoe.ops.GuardedMemory;
import jmoe.tensor.DType;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.function.Consumer;

/** The functions of the library by themselves: what they refuse, and where they write. */
class NativeLibraryTest {
    private static final int INPUTS = 40;
    private static final int COLUMNS = 37;
    private static final int TOKENS = 5;
    private static final int TOP_K = 2;

    /** A product of some tokens, with everything that it is made of. */
    private static final class Operands implements AutoCloseable {
        private final Arena arena = Arena.ofConfined();
        private final NativeLibrary library;
        private final MemorySegment product = arena.allocate(Product.LAYOUT);
        private final MemorySegment x = arena.allocate(TOKENS * INPUTS * 4L);
        private final MemorySegment rowToSlot = arena.allocate(TOKENS * TOP_K * 4L);
        private final MemorySegment weight = arena.allocate(2L * COLUMNS * INPUTS * 4);
        private final MemorySegment y = arena.allocate(TOKENS * TOP_K * COLUMNS * 4L);
        private final long blocks;
        private MemorySegment scratch;

        Operands(NativeLibrary library, DType type) {
            this.library = library;
            new Product(
                            INPUTS,
                            COLUMNS,
                            (long) TOKENS * TOP_K,
                            TOP_K,
                            2,
                            false,
                            type,
                            type,
                            DType.F32,
                            Activation.SWIGLU,
                            false)
                    .write(library.tier(), product);
            for (int row = 0; row < TOKENS * TOP_K; row++) {
                rowToSlot.setAtIndex(JAVA_INT, row, row);
            }
            blocks = library.blocks(product);
            scratch = arena.allocate(scratchBytes(), 64);
        }

        final long scratchBytes() {
            return library.scratchBytes(product, TOKENS * TOP_K, blocks);
        }

        void set(String field, long value) {
            long offset = Product.LAYOUT.byteOffset(groupElement(field));
            if (Product.LAYOUT.select(groupElement(field)).byteSize() == Long.BYTES) {
                product.set(JAVA_LONG, offset, value);
            } else {
                product.set(JAVA_INT, offset, (int) value);
            }
        }

        int multiply(MemorySegment slotWeights, long group, long row, long block, long blocks) {
            return library.multiply(
                    product,
                    x,
                    rowToSlot,
                    slotWeights,
                    weight,
                    MemorySegment.NULL,
                    MemorySegment.NULL,
                    y,
                    scratch,
                    group,
                    row,
                    TOKENS * TOP_K,
                    block,
                    blocks);
        }

        int multiply() {
            return multiply(MemorySegment.NULL, 0, 0, 0, blocks);
        }

        @Override
        public void close() {
            arena.close();
        }
    }

    private static void assertRefused(Tier tier, int result, Consumer<Operands> change) {
        try (Operands operands = new Operands(BuiltLibrary.EMULATED.open(tier), DType.F32)) {
            assertThat(operands.multiply()).isEqualTo(NativeLibrary.OK);
            change.accept(operands);
            assertThat(operands.multiply()).isEqualTo(result);
        }
    }

    @ParameterizedTest
    @EnumSource
    void multiply_refusesASlotThatDoesNotExist(Tier tier) {
        for (int slot : new int[] {-1, TOKENS * TOP_K, Integer.MIN_VALUE, Integer.MAX_VALUE, -7}) {
            for (int row : new int[] {0, 4, TOKENS * TOP_K - 1}) {
                assertRefused(
                        tier,
                        NativeLibrary.BAD_SLOT,
                        o -> o.rowToSlot.setAtIndex(JAVA_INT, row, slot));
            }
        }
        assertThat(GroupedGemm.failure(NativeLibrary.BAD_SLOT, 10))
                .isInstanceOf(IndexOutOfBoundsException.class)
                .hasMessage(
                        "rowToSlot: expected 0 to 9, got another slot; another thread must not"
                                + " change it meanwhile");
    }

    @Test
    void multiply_refusesNumbersOutOfRange() {
        String[][] wrong = {
            {"inputs", "-1"},
            {"columns", "-1"},
            {"slots", "-1"},
            {"top_k", "0"},
            {"parts", "0"},
            {"parts", "3"},
            {"parts", "1"},
            {"x_type", "3"},
            {"x_type", "-1"},
            {"weight_type", "4"},
            {"weight_type", "3"},
            {"y_type", "3"},
            {"activation", "6"},
            {"activation", "-1"},
            {"activation", "3"},
            {"tier", "0"},
            {"tier", "4"},
            {"weighted", "1"},
        };
        for (String[] field : wrong) {
            assertRefused(
                    Tier.AVX2,
                    NativeLibrary.BAD_PRODUCT,
                    o -> o.set(field[0], Long.parseLong(field[1])));
        }
        try (Operands o = new Operands(BuiltLibrary.EMULATED.open(), DType.F32)) {
            long[][] items = {{-1, 0, 0, 1}, {0, -1, 0, 1}, {0, 0, -1, 1}, {0, 0, 0, -1}};
            for (long[] item : items) {
                assertThat(o.multiply(MemorySegment.NULL, item[0], item[1], item[2], item[3]))
                        .isEqualTo(NativeLibrary.BAD_PRODUCT);
            }
            assertThat(o.multiply(MemorySegment.NULL, 0, 0, 1, o.blocks))
                    .isEqualTo(NativeLibrary.BAD_PRODUCT);
            assertThat(o.multiply(o.x, 0, 0, 0, o.blocks)).isEqualTo(NativeLibrary.BAD_PRODUCT);
            assertThat(o.library.pack(o.product, o.weight, MemorySegment.NULL, 0, o.blocks, 1))
                    .isEqualTo(NativeLibrary.BAD_PRODUCT);
        }
    }

    @Test
    void multiply_refusesATierThatThisMachineDoesNotHave() {
        NativeLibrary real = BuiltLibrary.REAL.open();
        Assumptions.assumeTrue(real.tier() != Tier.AMX, "this machine has every tier");
        try (Operands operands = new Operands(real.at(Tier.AMX), DType.F32)) {
            assertThat(operands.multiply()).isEqualTo(NativeLibrary.BAD_TIER);
        }
    }

    @ParameterizedTest
    @EnumSource
    void multiplyAdds_countsItsOperations(Tier tier) {
        try (Operands operands = new Operands(BuiltLibrary.EMULATED.open(tier), DType.BF16)) {
            assertThat(operands.library.multiplyAdds(operands.product)).isPositive();
            operands.set("tier", 4);
            assertThat(operands.library.multiplyAdds(operands.product)).isZero();
        }
    }

    /** Scratch of exactly the bytes that were asked for, with any content. */
    @ParameterizedTest
    @EnumSource
    void multiply_staysWithinItsScratch(Tier tier) {
        Assumptions.assumeTrue(GuardedMemory.available());
        NativeLibrary library = BuiltLibrary.EMULATED.open(tier);
        for (DType type : Cases.FLOATING) {
            try (Operands operands = new Operands(library, type);
                    GuardedMemory guarded = new GuardedMemory()) {
                long bytes = operands.scratchBytes();
                assertThat(bytes % 64).isZero();
                operands.scratch = guarded.before(bytes).fill((byte) 0xff);
                assertThat(operands.multiply()).isEqualTo(NativeLibrary.OK);
                operands.scratch = guarded.behind(bytes).fill((byte) 0xff);
                assertThat(operands.multiply()).isEqualTo(NativeLibrary.OK);
                // All operands are zeros, so scratch that was read before it was written shows.
                assertThat(operands.y.mismatch(operands.arena.allocate(operands.y.byteSize())))
                        .isEqualTo(-1);
            }
        }
    }
}
