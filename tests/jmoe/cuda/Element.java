package jmoe.cuda;

import jmoe.tensor.Floats;

import java.util.Locale;

/** What matrix instructions multiply. */
enum Element {
    BF16(2),
    F16(2),
    /** An F32 of which the lower 13 bits are not read. */
    TF32(4),
    E4M3(1),
    S8(1);

    private static final int[] E4M3_CODES = {0x00, 0x38, 0x40, 0x44};

    private final int bytes;

    Element(int bytes) {
        this.bytes = bytes;
    }

    /** The type that a symbol names between underscores. */
    static Element in(String symbol) {
        for (Element element : values()) {
            if (("_" + symbol + "_")
                    .contains("_" + element.name().toLowerCase(Locale.ROOT) + "_")) {
                return element;
            }
        }
        throw new IllegalArgumentException(symbol + ": names no element type");
    }

    int bytes() {
        return bytes;
    }

    /** Elements along k of one instruction: 32 bytes of them, of either matrix. */
    int depth() {
        return 32 / bytes;
    }

    /** The code of an integer from -3 to 3, which every type has. */
    int code(int value) {
        return switch (this) {
            case BF16 -> Floats.floatToBf16(value) & 0xffff;
            case F16 -> Floats.floatToF16(value) & 0xffff;
            case TF32 -> Float.floatToRawIntBits(value);
            case E4M3 -> E4M3_CODES[Math.abs(value)] | (value < 0 ? 0x80 : 0);
            case S8 -> value & 0xff;
        };
    }

    /** The number of a code. */
    double value(int code) {
        return switch (this) {
            case BF16 -> Floats.bf16ToFloat((short) code);
            case F16 -> Floats.f16ToFloat((short) code);
            case TF32 -> Float.intBitsToFloat(code);
            case S8 -> (byte) code;
            case E4M3 -> e4m3(code);
        };
    }

    private static double e4m3(int code) {
        int exponent = code >> 3 & 0xf;
        int fraction = code & 7;
        double magnitude =
                exponent == 0 ? fraction * 0x1p-9 : Math.scalb(1 + fraction / 8.0, exponent - 7);
        return (code & 0x80) != 0 ? -magnitude : magnitude;
    }

    /** A code of a number of any sign and fraction and of a size near 1, from random bits. */
    int code(long random) {
        int exponent = (int) (random >>> 32 & 3) - 2;
        return switch (this) {
            case BF16 -> (int) (random & 0x807f) | 127 + exponent << 7;
            case F16 -> (int) (random & 0x83ff) | 15 + exponent << 10;
            case TF32 -> (int) (random & 0x807fe000) | 127 + exponent << 23;
            case E4M3 -> (int) (random & 0x87) | 7 + exponent << 3;
            case S8 -> (int) (random & 0xff);
        };
    }

    /**
     * How exact a sum of products is at least, relative to the sum of their magnitudes; how the
     * matrix units round is not documented.
     */
    double tolerance() {
        return switch (this) {
            case S8 -> 0;
            case E4M3 -> 0x1p-11;
            case BF16, F16, TF32 -> 0x1p-19;
        };
    }
}
