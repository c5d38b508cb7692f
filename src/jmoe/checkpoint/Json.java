package jmoe.checkpoint;

import org.jspecify.annotations.Nullable;

import tools.jackson.core.JacksonException;
import tools.jackson.core.JsonGenerator;
import tools.jackson.core.JsonParser;
import tools.jackson.core.StreamReadConstraints;
import tools.jackson.core.StreamReadFeature;
import tools.jackson.core.TokenStreamFactory;
import tools.jackson.core.TokenStreamLocation;
import tools.jackson.core.json.JsonFactory;
import tools.jackson.core.json.JsonReadFeature;
import tools.jackson.core.util.DefaultIndenter;
import tools.jackson.core.util.DefaultPrettyPrinter;
import tools.jackson.core.util.Separators;
import tools.jackson.databind.DeserializationFeature;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.io.StringWriter;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/**
 * JSON, strictly: UTF-8, no duplicate keys, nothing after the value, at most 128 levels deep.
 * Written JSON is always valid: numbers that JSON lacks become null.
 */
public final class Json {
    /** Longest JSON file read whole; indexes of the largest checkpoints have about 10 MB. */
    static final long MAX_FILE_BYTES = 100_000_000;

    private static final int MAX_DEPTH = 128;

    private static final JsonMapper MAPPER = mapper(false);
    private static final JsonMapper PYTHON_MAPPER = mapper(true);

    private Json() {}

    private static JsonMapper mapper(boolean nonFinite) {
        return JsonMapper.builder(
                        JsonFactory.builder()
                                // The table of names refuses files whose names collide.
                                .disable(TokenStreamFactory.Feature.CANONICALIZE_PROPERTY_NAMES)
                                .streamReadConstraints(
                                        StreamReadConstraints.builder()
                                                .maxNestingDepth(MAX_DEPTH)
                                                .maxStringLength((int) MAX_FILE_BYTES)
                                                .maxNameLength((int) MAX_FILE_BYTES)
                                                .build())
                                .build())
                .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
                .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
                .configure(JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS, nonFinite)
                .build();
    }

    /**
     * Reads a file.
     *
     * @throws CheckpointException if it cannot be read or is not JSON
     */
    static JsonNode parse(Path file) {
        return parse(MAPPER, file.toString(), read(file));
    }

    /**
     * Reads a file that Python wrote: NaN, Infinity and -Infinity are numbers, as they occur in
     * config.json of state-space models.
     *
     * @throws CheckpointException if it cannot be read or is not JSON
     */
    static JsonNode parsePython(Path file) {
        return parse(PYTHON_MAPPER, file.toString(), read(file));
    }

    private static byte[] read(Path file) {
        MappedFile.checkRegular(file);
        try {
            long fileBytes = Files.size(file);
            if (fileBytes > MAX_FILE_BYTES) {
                throw new CheckpointException(
                        file
                                + ": has "
                                + fileBytes
                                + " bytes; at most "
                                + MAX_FILE_BYTES
                                + " bytes of JSON are read");
            }
            return Files.readAllBytes(file);
        } catch (IOException e) {
            throw new CheckpointException(file + ": cannot be read: " + MappedFile.reason(e), e);
        }
    }

    /**
     * Reads bytes.
     *
     * @param name what they are, for messages
     * @throws CheckpointException if they are not JSON
     */
    static JsonNode parse(String name, byte[] bytes) {
        return parse(MAPPER, name, bytes);
    }

    private static JsonNode parse(JsonMapper mapper, String name, byte[] bytes) {
        try {
            JsonNode node = mapper.readTree(reader(bytes));
            if (node.isMissingNode()) {
                throw new CheckpointException(name + ": is empty, expected JSON; fetch it again");
            }
            return node;
        } catch (JacksonException e) {
            throw invalid(name + ":", e);
        }
    }

    /** Streams bytes whose tree could be many times larger than they are. */
    static JsonParser stream(byte[] bytes) {
        return MAPPER.createParser(reader(bytes));
    }

    /** The subject and what Jackson found, without its excerpt of the source. */
    static CheckpointException invalid(String subject, JacksonException e) {
        if (e.getCause() instanceof CharacterCodingException) {
            return new CheckpointException(subject + " is not valid UTF-8", e);
        }
        TokenStreamLocation at = e.getLocation();
        String where =
                at == null ? "" : " at line " + at.getLineNr() + ", column " + at.getColumnNr();
        return new CheckpointException(
                subject
                        + " is not valid JSON"
                        + where
                        + ": "
                        + CheckpointException.oneLine(withoutSource(e.getOriginalMessage()))
                        + "; damaged or incomplete, fetch it again",
                e);
    }

    private static String withoutSource(String message) {
        String text = message;
        for (String source : new String[] {"(start marker", "(for ", "[Source"}) {
            int at = text.indexOf(source);
            text = at < 0 ? text : text.substring(0, at);
        }
        return text.strip();
    }

    // Given bytes, Jackson would guess UTF-16 and UTF-32 and let some malformed UTF-8 pass.
    private static Reader reader(byte[] bytes) {
        return new InputStreamReader(
                new ByteArrayInputStream(bytes), StandardCharsets.UTF_8.newDecoder());
    }

    /**
     * Writes a value on several lines, indented by two spaces.
     *
     * @param value null, String, Number, Boolean, or a Map with String keys or an Iterable of such
     *     values
     * @return JSON without a final line break; NaN and infinities are null
     * @throws IllegalArgumentException if the value holds anything else
     */
    public static String text(@Nullable Object value) {
        DefaultIndenter indenter = new DefaultIndenter("  ", "\n");
        DefaultPrettyPrinter printer =
                new DefaultPrettyPrinter(
                                Separators.createDefaultInstance()
                                        .withObjectNameValueSpacing(Separators.Spacing.AFTER)
                                        .withObjectEmptySeparator("")
                                        .withArrayEmptySeparator(""))
                        .withObjectIndenter(indenter)
                        .withArrayIndenter(indenter);
        StringWriter text = new StringWriter();
        try (JsonGenerator out = MAPPER.writer().with(printer).createGenerator(text)) {
            write(out, value);
        }
        return text.toString();
    }

    /** Writes a value as {@link #text} takes it on one line, in UTF-8. */
    static byte[] compact(@Nullable Object value) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (JsonGenerator out = MAPPER.createGenerator(bytes)) {
            write(out, value);
        }
        return bytes.toByteArray();
    }

    /** Token by token, because the search for serialisers asks for classes of java.xml. */
    private static void write(JsonGenerator out, @Nullable Object value) {
        switch (value) {
            case null -> out.writeNull();
            case String text -> out.writeString(text);
            case Boolean flag -> out.writeBoolean(flag);
            case Number number when !Double.isFinite(number.doubleValue()) -> out.writeNull();
            case Double number -> out.writeNumber(number);
            case Float number -> out.writeNumber(number);
            case Number number -> out.writeNumber(number.longValue());
            case Map<?, ?> map -> {
                out.writeStartObject();
                map.forEach((key, item) -> {
                    out.writeName((String) key);
                    write(out, item);
                });
                out.writeEndObject();
            }
            case Iterable<?> items -> {
                out.writeStartArray();
                items.forEach(item -> write(out, item));
                out.writeEndArray();
            }
            default ->
                    throw new IllegalArgumentException(
                            "value: expected a Map, Iterable, String, Number, Boolean or null, got "
                                    + value.getClass().getName());
        }
    }
}
