package jmoe.checkpoint;

import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * The checked header of a NumPy array file, formats 1.0 to 3.0: magic, version, length, then a
 * Python dictionary literal.
 *
 * @param dtype element type
 * @param bigEndian whether elements have the most significant byte first
 * @param fortranOrder whether the first dimension varies fastest
 * @param shape dimensions
 * @param dataOffset bytes before the data
 * @param dataBytes bytes of the data
 */
record NpyHeader(
        DType dtype,
        boolean bigEndian,
        boolean fortranOrder,
        long[] shape,
        long dataOffset,
        long dataBytes) {
    private static final byte[] MAGIC = {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y'};

    /**
     * Headers of plain types have about 120 bytes; structured types, the long ones, are refused.
     */
    private static final int MAX_HEADER_BYTES = 1_000_000;

    /**
     * Reads up to the data.
     *
     * @param name what the stream is, for messages
     * @throws CheckpointException if the header is not valid or names an unsupported type
     */
    static NpyHeader read(String name, InputStream in) throws IOException {
        try {
            byte[] preamble = exactly(in, MAGIC.length + 2);
            if (!Arrays.equals(preamble, 0, MAGIC.length, MAGIC, 0, MAGIC.length)) {
                throw new CheckpointException(name + ": does not begin as a NumPy array");
            }
            int major = preamble[MAGIC.length] & 0xff;
            int minor = preamble[MAGIC.length + 1] & 0xff;
            if (major < 1 || major > 3 || minor != 0) {
                throw new CheckpointException(
                        name
                                + ": NumPy format "
                                + major
                                + "."
                                + minor
                                + " is not known; known are 1.0, 2.0 and 3.0");
            }
            byte[] lengthBytes = exactly(in, major == 1 ? 2 : 4);
            long headerBytes = littleEndian(lengthBytes);
            if (headerBytes > MAX_HEADER_BYTES) {
                throw new CheckpointException(
                        name
                                + ": header length "
                                + headerBytes
                                + " is above the limit of "
                                + MAX_HEADER_BYTES
                                + " bytes");
            }
            byte[] header = exactly(in, (int) headerBytes);
            return parse(
                    name,
                    text(name, header, major),
                    preamble.length + lengthBytes.length + headerBytes);
        } catch (EOFException e) {
            throw new CheckpointException(name + ": ends inside its header", e);
        }
    }

    private static byte[] exactly(InputStream in, int count) throws IOException {
        byte[] bytes = in.readNBytes(count);
        if (bytes.length < count) {
            throw new EOFException();
        }
        return bytes;
    }

    private static long littleEndian(byte[] bytes) {
        long value = 0;
        for (int i = bytes.length - 1; i >= 0; i--) {
            value = (value << 8) | (bytes[i] & 0xff);
        }
        return value;
    }

    private static String text(String name, byte[] header, int major) {
        Charset charset = major == 3 ? StandardCharsets.UTF_8 : StandardCharsets.ISO_8859_1;
        try {
            return charset.newDecoder().decode(ByteBuffer.wrap(header)).toString();
        } catch (CharacterCodingException e) {
            throw new CheckpointException(name + ": header is not valid UTF-8", e);
        }
    }

    private static NpyHeader parse(String name, String text, long dataOffset) {
        PythonLiteral literal = new PythonLiteral(name, text);
        String descr = null;
        Boolean fortranOrder = null;
        long[] shape = null;
        literal.expect('{');
        while (!literal.accept('}')) {
            String key = literal.string();
            literal.expect(':');
            boolean first =
                    switch (key) {
                        case "descr" -> descr == null;
                        case "fortran_order" -> fortranOrder == null;
                        case "shape" -> shape == null;
                        default -> false;
                    };
            if (!first) {
                throw literal.violation(
                        "key " + CheckpointException.quoted(key) + " is unknown or given twice");
            }
            switch (key) {
                case "descr" -> descr = descr(name, literal);
                case "fortran_order" -> fortranOrder = literal.bool();
                default -> shape = literal.integers();
            }
            if (!literal.accept(',')) {
                literal.expect('}');
                break;
            }
        }
        literal.end();
        if (descr == null || fortranOrder == null || shape == null) {
            throw literal.violation(
                    "key '"
                            + (descr == null
                                    ? "descr"
                                    : fortranOrder == null ? "fortran_order" : "shape")
                            + "' is missing");
        }
        DType dtype = dtype(name, descr);
        return new NpyHeader(
                dtype,
                descr.charAt(0) == '>',
                fortranOrder,
                shape,
                dataOffset,
                numBytes(name, dtype, shape));
    }

    private static String descr(String name, PythonLiteral literal) {
        if (literal.next('[')) {
            throw new CheckpointException(
                    name + ": a structured array is not supported; save each field by itself");
        }
        return literal.string();
    }

    private static DType dtype(String name, String descr) {
        DType dtype = descr.isEmpty() ? null : dtypeOrNull(descr.substring(1));
        String marks = dtype != null && dtype.blockBytes() == 1 ? "<>|" : "<>";
        if (dtype == null || marks.indexOf(descr.charAt(0)) < 0) {
            throw new CheckpointException(
                    name
                            + ": dtype "
                            + CheckpointException.quoted(descr)
                            + " is not supported; supported are f2, f4, f8, i1, i2, i4, i8, u1, u2,"
                            + " u4, u8 and b1, save it with .astype('float32')");
        }
        return dtype;
    }

    private static @Nullable DType dtypeOrNull(String kind) {
        return switch (kind) {
            case "f2" -> DType.F16;
            case "f4" -> DType.F32;
            case "f8" -> DType.F64;
            case "i1" -> DType.I8;
            case "i2" -> DType.I16;
            case "i4" -> DType.I32;
            case "i8" -> DType.I64;
            case "u1" -> DType.U8;
            case "u2" -> DType.U16;
            case "u4" -> DType.U32;
            case "u8" -> DType.U64;
            case "b1" -> DType.BOOL;
            default -> null;
        };
    }

    private static long numBytes(String name, DType dtype, long[] shape) {
        try {
            long bytes = dtype.blockBytes();
            for (long dim : shape) {
                bytes = Math.multiplyExact(bytes, dim);
            }
            return bytes;
        } catch (ArithmeticException e) {
            throw new CheckpointException(
                    name
                            + ": "
                            + dtype
                            + " "
                            + Arrays.toString(shape)
                            + " overflows 2^63 - 1 bytes",
                    e);
        }
    }

    /**
     * Compares with what there is.
     *
     * @throws CheckpointException if there are fewer or more bytes of data
     */
    void checkDataBytes(String name, long bytes) {
        if (bytes != dataBytes) {
            throw new CheckpointException(
                    name
                            + ": "
                            + dtype
                            + " "
                            + Arrays.toString(shape)
                            + " has "
                            + dataBytes
                            + " bytes but "
                            + bytes
                            + " follow the header; the file is damaged or incomplete");
        }
    }

    /** Whether the data is already a row-major little-endian tensor. */
    boolean isDense() {
        return !(bigEndian && dtype.blockBytes() > 1) && !(fortranOrder && shape.length > 1);
    }
}
