package jmoe.ops;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * An output amid memory of a known pattern, huge as a number: accumulating into it shows, and so
 * does every byte written beside what the operation defines.
 *
 * @param tensor the output
 * @param around its memory with a margin on both sides
 */
record Poisoned(Tensor tensor, MemorySegment around) {
    private static final byte PATTERN = (byte) 0xfe;
    private static final long MARGIN_BYTES = 192;

    /** Allocates and poisons. */
    static Poisoned allocate(Arena arena, DType dtype, long... shape) {
        long elements = 1;
        for (long dim : shape) {
            elements *= dim;
        }
        long bytes = dtype.numBytes(elements);
        MemorySegment around =
                arena.allocate(bytes + 2 * MARGIN_BYTES, Tensor.ALIGNMENT_BYTES).fill(PATTERN);
        return new Poisoned(Tensor.of(around.asSlice(MARGIN_BYTES, bytes), dtype, shape), around);
    }

    /** Poisons an output that lies elsewhere. */
    static void fill(Tensor tensor) {
        tensor.data().fill(PATTERN);
    }

    /** Fails if the margins changed, or an entry of the first dimension from the given one on. */
    void assertUntouchedFrom(String op, String name, long entry) {
        long entryBytes = tensor.dim(0) == 0 ? 0 : tensor.numBytes() / tensor.dim(0);
        assertPattern(op, name, 0, MARGIN_BYTES);
        assertPattern(op, name, MARGIN_BYTES + entry * entryBytes, around.byteSize());
    }

    /**
     * Fails if the margin in front changed, or an entry of the first dimension before the given.
     */
    void assertUntouchedBefore(String op, String name, long entry) {
        long entryBytes = tensor.dim(0) == 0 ? 0 : tensor.numBytes() / tensor.dim(0);
        assertPattern(op, name, 0, MARGIN_BYTES + entry * entryBytes);
    }

    private void assertPattern(String op, String name, long fromByte, long toByte) {
        for (long i = fromByte; i < toByte; i++) {
            if (around.get(JAVA_BYTE, i) != PATTERN) {
                throw new AssertionError(
                        "%s, %s: wrote byte %d relative to output %s, outside of what it defines"
                                .formatted(op, name, i - MARGIN_BYTES, tensor));
            }
        }
    }
}
