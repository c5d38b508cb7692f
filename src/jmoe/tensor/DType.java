package jmoe.tensor;

/**
 * Element type of a {@link Tensor}, named as in a safetensors header (block types: as in GGUF).
 *
 * <p>A type is stored in blocks of {@link #blockElements} consecutive elements of the last
 * dimension, {@link #blockBytes} bytes each; plain types have blocks of one element. Everything is
 * little-endian. The operations compute with F32, F16, BF16 and, in the reference only, F64;
 * weights may also be I8 with a scale, see {@link Tensor#scaled}. I32, I64 and U8 hold indices and
 * bytes. All other types can be listed and viewed; they are not computed with yet.
 */
public enum DType {
    /** IEEE 754 binary64. */
    F64(1, 8),
    /** IEEE 754 binary32. */
    F32(1, 4),
    /** IEEE 754 binary16. */
    F16(1, 2),
    /** The upper half of a binary32. */
    BF16(1, 2),
    /** Signed 64-bit integer. */
    I64(1, 8),
    /** Signed 32-bit integer. */
    I32(1, 4),
    /** Signed 16-bit integer. */
    I16(1, 2),
    /** Signed 8-bit integer; codes of quantised weights. */
    I8(1, 1),
    /** Unsigned 64-bit integer. */
    U64(1, 8),
    /** Unsigned 32-bit integer. */
    U32(1, 4),
    /** Unsigned 16-bit integer. */
    U16(1, 2),
    /** Unsigned 8-bit integer. */
    U8(1, 1),
    /** One byte, 0 or 1. */
    BOOL(1, 1),
    /** Two F32: real, imaginary. */
    C64(1, 8),
    /** Sign, 4 exponent bits (bias 7), 3 mantissa bits; no infinities, S.1111.111 is NaN. */
    F8_E4M3(1, 1),
    /** Sign, 5 exponent bits (bias 15), 2 mantissa bits; infinities and NaN as in IEEE 754. */
    F8_E5M2(1, 1),
    /** A power of two, 2^(code - 127), as a scale; 255 is NaN. */
    F8_E8M0(1, 1),
    /** Sign, 2 exponent bits, 1 mantissa bit; two elements a byte, the first in the low nibble. */
    F4(2, 1),
    /** Sign, 2 exponent bits, 3 mantissa bits; four elements in three bytes. */
    F6_E2M3(4, 3),
    /** Sign, 3 exponent bits, 2 mantissa bits; four elements in three bytes. */
    F6_E3M2(4, 3),
    /** F16 scale d, then 32 I8 q: x = d q. */
    Q8_0(32, 34),
    /** F16 scale d, then 16 bytes of nibbles q (low nibbles are elements 0..15): x = d (q - 8). */
    Q4_0(32, 18),
    /** F16 scale d, F16 minimum m, then nibbles q as in Q4_0: x = d q + m. */
    Q4_1(32, 20),
    /** F16 scale d, 32 high bits, then nibbles; q has 5 bits: x = d (q - 16). */
    Q5_0(32, 22),
    /** F16 scale d, F16 minimum m, 32 high bits, then nibbles; q has 5 bits: x = d q + m. */
    Q5_1(32, 24),
    /** F8_E8M0 scale, then 16 bytes of F4 (low nibbles are elements 0..15): x = scale f4. */
    MXFP4(32, 17);

    private final int blockElements;
    private final int blockBytes;

    DType(int blockElements, int blockBytes) {
        this.blockElements = blockElements;
        this.blockBytes = blockBytes;
    }

    /**
     * Elements that are stored together.
     *
     * @return 1 for plain types
     */
    public int blockElements() {
        return blockElements;
    }

    /**
     * Bytes of one block.
     *
     * @return bytes of {@link #blockElements} elements
     */
    public int blockBytes() {
        return blockBytes;
    }

    /**
     * Whether the operations read and write this type.
     *
     * @return true for F64, F32, F16 and BF16
     */
    public boolean isFloating() {
        return this == F64 || this == F32 || this == F16 || this == BF16;
    }

    /**
     * Bytes of a row of elements.
     *
     * @param elements a multiple of {@link #blockElements}, not negative
     * @return bytes
     * @throws IllegalArgumentException if the elements do not fill whole blocks or the bytes exceed
     *     2^63 - 1
     */
    public long numBytes(long elements) {
        if (elements < 0 || elements % blockElements != 0) {
            throw new IllegalArgumentException(
                    name()
                            + ": expected a multiple of "
                            + blockElements
                            + " elements, got "
                            + elements);
        }
        try {
            return Math.multiplyExact(elements / blockElements, (long) blockBytes);
        } catch (ArithmeticException e) {
            throw new IllegalArgumentException(
                    name() + ": " + elements + " elements do not fit in 2^63 - 1 bytes", e);
        }
    }
}
