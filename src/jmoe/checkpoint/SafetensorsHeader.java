package jmoe.checkpoint;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import tools.jackson.core.JacksonException;
import tools.jackson.core.JsonParser;
import tools.jackson.core.JsonToken;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The checked header of a safetensors file: 8 bytes of little-endian length, then a JSON object of
 * that length, then the data, every byte of which belongs to exactly one tensor.
 *
 * @param metadata the free-form strings
 * @param entries the tensors in the order of their data
 * @param dataOffset file offset of the data, in bytes
 */
record SafetensorsHeader(Map<String, String> metadata, List<Entry> entries, long dataOffset) {
    /** Limit of the format. */
    static final long MAX_HEADER_BYTES = 100_000_000;

    static final String METADATA = "__metadata__";
    static final int LENGTH_BYTES = 8;

    /** More than any writer produces; keeps messages short. */
    private static final int MAX_RANK = 64;

    private static final String DAMAGED = "; the file is damaged or incomplete, fetch it again";
    private static final String GIT_LFS = "version https://git-lfs";
    private static final ValueLayout.OfLong LITTLE_ENDIAN_LONG =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    /** One tensor; offsets in bytes from the start of the data. */
    record Entry(String name, DType dtype, long[] shape, long begin, long end) {}

    /**
     * Reads and checks.
     *
     * @throws CheckpointException naming the violation
     */
    static SafetensorsHeader read(Path file, MemorySegment data) {
        long headerBytes = headerBytes(file, data);
        byte[] header = data.asSlice(LENGTH_BYTES, headerBytes).toArray(JAVA_BYTE);
        if (header[0] != '{') {
            throw new CheckpointException(
                    file + ": header must begin with '{' but begins with " + describe(header[0]));
        }
        long dataOffset = LENGTH_BYTES + headerBytes;
        Parse parse = new Parse(file, data.byteSize() - dataOffset);
        try (JsonParser parser = Json.stream(header)) {
            parse.object(parser);
        } catch (JacksonException e) {
            throw Json.invalid(file + ": header", e);
        }
        parse.entries.sort(Comparator.comparingLong(Entry::begin).thenComparingLong(Entry::end));
        checkContiguous(file, parse.entries, parse.dataBytes);
        return new SafetensorsHeader(
                Collections.unmodifiableMap(parse.metadata),
                List.copyOf(parse.entries),
                dataOffset);
    }

    /** Length of the JSON, compared with the limit and the file before anything is allocated. */
    private static long headerBytes(Path file, MemorySegment data) {
        long fileBytes = data.byteSize();
        if (fileBytes < LENGTH_BYTES) {
            throw new CheckpointException(
                    file
                            + ": has "
                            + fileBytes
                            + " bytes; a safetensors file begins with 8 bytes of header length"
                            + DAMAGED);
        }
        checkNotPointer(file, data);
        long headerBytes = data.get(LITTLE_ENDIAN_LONG, 0);
        if (headerBytes < 0 || headerBytes > MAX_HEADER_BYTES) {
            throw new CheckpointException(
                    file
                            + ": header length "
                            + Long.toUnsignedString(headerBytes)
                            + " is above the limit of "
                            + MAX_HEADER_BYTES
                            + " bytes; this is not a safetensors file or it is damaged");
        }
        if (headerBytes == 0) {
            throw new CheckpointException(file + ": header length is 0, expected a JSON object");
        }
        if (headerBytes > fileBytes - LENGTH_BYTES) {
            throw new CheckpointException(
                    file
                            + ": header length "
                            + headerBytes
                            + " reaches beyond the file of "
                            + fileBytes
                            + " bytes"
                            + DAMAGED);
        }
        return headerBytes;
    }

    private static void checkNotPointer(Path file, MemorySegment data) {
        MemorySegment magic = MemorySegment.ofArray(GIT_LFS.getBytes(StandardCharsets.US_ASCII));
        if (data.byteSize() >= magic.byteSize()
                && data.asSlice(0, magic.byteSize()).mismatch(magic) < 0) {
            throw new CheckpointException(
                    file + ": is a Git LFS pointer and not the data; run 'git lfs pull'");
        }
    }

    private static String describe(byte first) {
        return first > ' ' && first < 127
                ? "'" + (char) first + "'"
                : "byte 0x" + Integer.toHexString(first & 0xff);
    }

    /** Tensors follow each other without a hole or an overlap and end with the file. */
    private static void checkContiguous(Path file, List<Entry> entries, long dataBytes) {
        long covered = 0;
        for (Entry entry : entries) {
            if (entry.begin() != covered) {
                throw new CheckpointException(
                        file
                                + ": tensor "
                                + CheckpointException.quoted(entry.name())
                                + ": begins at byte "
                                + entry.begin()
                                + " of the data but the tensor before it ends at byte "
                                + covered
                                + (entry.begin() < covered ? ": they overlap" : ": a hole"));
            }
            covered = entry.end();
        }
        if (covered != dataBytes) {
            throw new CheckpointException(
                    file
                            + ": has "
                            + (dataBytes - covered)
                            + " bytes after the last tensor that belong to none"
                            + DAMAGED);
        }
    }

    /** One pass over the JSON; holds only what is kept. */
    private static final class Parse {
        private final Path file;
        private final long dataBytes;
        private final Map<String, String> metadata = new LinkedHashMap<>();
        private final List<Entry> entries = new ArrayList<>();

        Parse(Path file, long dataBytes) {
            this.file = file;
            this.dataBytes = dataBytes;
        }

        void object(JsonParser parser) {
            parser.nextToken();
            while (parser.nextToken() == JsonToken.PROPERTY_NAME) {
                String name = parser.currentName();
                parser.nextToken();
                if (name.equals(METADATA)) {
                    metadata(parser);
                } else {
                    entries.add(entry(name, parser));
                }
            }
            if (parser.nextToken() != null) {
                throw new CheckpointException(file + ": header has more JSON after its object");
            }
        }

        private void metadata(JsonParser parser) {
            if (parser.currentToken() != JsonToken.START_OBJECT) {
                throw new CheckpointException(
                        file + ": __metadata__: expected an object of strings, got " + got(parser));
            }
            while (parser.nextToken() == JsonToken.PROPERTY_NAME) {
                String key = parser.currentName();
                if (parser.nextToken() != JsonToken.VALUE_STRING) {
                    throw new CheckpointException(
                            file
                                    + ": __metadata__: "
                                    + CheckpointException.quoted(key)
                                    + ": expected a string, got "
                                    + got(parser));
                }
                String value = parser.getString();
                if (!StandardCharsets.UTF_8.newEncoder().canEncode(value)) {
                    throw new CheckpointException(
                            file
                                    + ": __metadata__: "
                                    + CheckpointException.quoted(key)
                                    + " holds half a surrogate pair");
                }
                metadata.put(key, value);
            }
        }

        private Entry entry(String name, JsonParser parser) {
            if (parser.currentToken() != JsonToken.START_OBJECT) {
                throw violation(name, "expected an object, got " + got(parser));
            }
            DType dtype = null;
            long[] shape = null;
            long[] offsets = null;
            while (parser.nextToken() == JsonToken.PROPERTY_NAME) {
                String key = parser.currentName();
                parser.nextToken();
                switch (key) {
                    case "dtype" -> dtype = dtype(name, parser);
                    case "shape" -> shape = integers(name, key, parser);
                    case "data_offsets" -> offsets = integers(name, key, parser);
                    default -> parser.skipChildren();
                }
            }
            if (dtype == null || shape == null || offsets == null) {
                String missing = dtype == null ? "dtype" : shape == null ? "shape" : "data_offsets";
                throw violation(name, missing + " is missing");
            }
            return checked(name, dtype, shape, offsets);
        }

        private DType dtype(String name, JsonParser parser) {
            if (parser.currentToken() != JsonToken.VALUE_STRING) {
                throw violation(name, "dtype: expected a string, got " + got(parser));
            }
            String text = parser.getString();
            DType dtype = dtypeOrNull(text);
            if (dtype == null) {
                throw violation(
                        name,
                        "dtype "
                                + CheckpointException.quoted(text)
                                + " is not known; known are "
                                + dtypes());
            }
            return dtype;
        }

        private long[] integers(String name, String key, JsonParser parser) {
            if (parser.currentToken() != JsonToken.START_ARRAY) {
                throw violation(name, key + ": expected a list of integers, got " + got(parser));
            }
            long[] values = new long[4];
            int count = 0;
            while (parser.nextToken() != JsonToken.END_ARRAY) {
                if (count == MAX_RANK) {
                    throw violation(name, key + ": more than " + MAX_RANK + " integers");
                }
                if (count == values.length) {
                    values = Arrays.copyOf(values, 2 * count);
                }
                values[count++] = integer(name, key, parser);
            }
            return Arrays.copyOf(values, count);
        }

        private long integer(String name, String key, JsonParser parser) {
            if (parser.currentToken() != JsonToken.VALUE_NUMBER_INT) {
                throw violation(name, key + ": expected an integer, got " + got(parser));
            }
            String digits = parser.getString();
            if (digits.startsWith("-")) {
                throw violation(
                        name, key + ": " + CheckpointException.oneLine(digits) + " is negative");
            }
            if (parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER) {
                throw violation(
                        name,
                        key + ": " + CheckpointException.oneLine(digits) + " is above 2^63 - 1");
            }
            return parser.getLongValue();
        }

        private Entry checked(String name, DType dtype, long[] shape, long[] offsets) {
            if (offsets.length != 2) {
                throw violation(name, "data_offsets: expected 2 integers, got " + offsets.length);
            }
            long begin = offsets[0];
            long end = offsets[1];
            if (begin > end) {
                throw violation(name, "data_offsets: begin " + begin + " is after end " + end);
            }
            if (end > dataBytes) {
                throw violation(
                        name,
                        "data_offsets "
                                + Arrays.toString(offsets)
                                + " reach beyond the "
                                + dataBytes
                                + " bytes of data"
                                + DAMAGED);
            }
            long bytes = numBytes(name, dtype, shape);
            if (bytes != end - begin) {
                throw violation(
                        name,
                        dtype
                                + " "
                                + Arrays.toString(shape)
                                + " has "
                                + bytes
                                + " bytes but data_offsets hold "
                                + (end - begin));
            }
            return new Entry(name, dtype, shape, begin, end);
        }

        private long numBytes(String name, DType dtype, long[] shape) {
            long elements = 1;
            try {
                for (long dim : shape) {
                    elements = Math.multiplyExact(elements, dim);
                }
                if (dtype.blockElements() > 1
                        && (shape.length == 0
                                || shape[shape.length - 1] % dtype.blockElements() != 0)) {
                    throw violation(
                            name,
                            dtype
                                    + " "
                                    + Arrays.toString(shape)
                                    + ": the last dimension does not fill whole bytes");
                }
                return Math.multiplyExact(
                        elements / dtype.blockElements(), (long) dtype.blockBytes());
            } catch (ArithmeticException e) {
                throw violation(
                        name, dtype + " " + Arrays.toString(shape) + " overflows 2^63 - 1 bytes");
            }
        }

        private CheckpointException violation(String name, String what) {
            return new CheckpointException(
                    file + ": tensor " + CheckpointException.quoted(name) + ": " + what);
        }

        private static String got(JsonParser parser) {
            return switch (parser.currentToken()) {
                case null -> "the end of the header";
                case START_OBJECT -> "an object";
                case START_ARRAY -> "a list";
                case VALUE_STRING -> "a string";
                default -> CheckpointException.oneLine(parser.getString());
            };
        }
    }

    /** The type of that name in a safetensors header; the block types exist in GGUF only. */
    static @Nullable DType dtypeOrNull(String text) {
        for (DType dtype : DType.values()) {
            if (dtype.name().equals(text) && isStorable(dtype)) {
                return dtype;
            }
        }
        return null;
    }

    /** Whether the format has the type. */
    static boolean isStorable(DType dtype) {
        return dtype.blockElements() < 32;
    }

    private static String dtypes() {
        return Arrays.stream(DType.values())
                .filter(SafetensorsHeader::isStorable)
                .map(DType::name)
                .reduce((a, b) -> a + ", " + b)
                .orElseThrow();
    }
}
