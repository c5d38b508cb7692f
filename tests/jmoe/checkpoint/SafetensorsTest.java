package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.Tensor;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.Size;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.function.Consumer;

class SafetensorsTest {
    private static final Path FIXTURES = Path.of("tests/golden/fixtures");

    // Not used by the property: jqwik does not inject Jupiter's folders.
    @TempDir Path folder;

    private static byte[] file(String header, int dataBytes) {
        byte[] json = header.getBytes(StandardCharsets.UTF_8);
        ByteBuffer bytes =
                ByteBuffer.allocate(8 + json.length + dataBytes).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(json.length).put(json);
        for (int i = 0; i < dataBytes; i++) {
            bytes.put((byte) i);
        }
        return bytes.array();
    }

    private Path write(byte[] bytes) throws IOException {
        return Files.write(folder.resolve("f.safetensors"), bytes);
    }

    private Path write(String header, int dataBytes) throws IOException {
        return write(file(header, dataBytes));
    }

    @Test
    void names_followTheData() throws IOException {
        Path path =
                write(
                        """
                        {"z":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},
                         "empty":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},
                         "m":{"dtype":"I16","shape":[2],"data_offsets":[0,4],"more":{"x":[1]}}}\
                        """,
                        6);
        try (Safetensors file = Safetensors.open(path)) {
            assertThat(file.path()).isEqualTo(path);
            assertThat(file.names()).containsExactly("m", "empty", "z");
            assertThat(file.tensors().keySet()).containsExactly("m", "empty", "z");
            assertThat(file.contains("z")).isTrue();
            assertThat(file.contains("y")).isFalse();
            assertThat(file.tensor("m").getLong(1)).isEqualTo(0x0302);
            assertThat(file.tensor("z").getLong(0)).isEqualTo(4);
            assertThat(file.tensor("z").data().isReadOnly()).isTrue();
        }
    }

    @Test
    void open_readsSubByteTypes() throws IOException {
        Path path =
                write(
                        """
                        {"a":{"dtype":"F4","shape":[3,2],"data_offsets":[0,3]},
                        "b":{"dtype":"F6_E2M3","shape":[1,4],"data_offsets":[3,6]},
                        "c":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[6,7]}}\
                        """,
                        7);
        try (Safetensors file = Safetensors.open(path)) {
            assertThat(file.tensors().values())
                    .extracting(Tensor::describe)
                    .containsExactly("F4 [3, 2]", "F6_E2M3 [1, 4]", "F8_E4M3 [1]");
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            quoteCharacter = '`',
            textBlock =
                    """
                    "dtype":"Q8_0","shape":[32],"data_offsets":[0,34]; 34; dtype 'Q8_0' is not known
                    "dtype":"MXFP4","shape":[32],"data_offsets":[0,17]; 17; dtype 'MXFP4' is not known
                    "dtype":"F4","shape":[2,3],"data_offsets":[0,3]; 3; does not fill whole bytes
                    "dtype":"F4","shape":[],"data_offsets":[0,1]; 1; does not fill whole bytes
                    "dtype":"U8","shape":[-0],"data_offsets":[0,0]; 0; -0 is negative
                    "dtype":"U8","shape":[1e0],"data_offsets":[0,1]; 1; expected an integer, got 1e0
                    "dtype":"U8","shape":[null],"data_offsets":[0,1]; 1; expected an integer, got null
                    "dtype":"U8","shape":1,"data_offsets":[0,1]; 1; expected a list of integers, got 1
                    "dtype":7,"shape":[1],"data_offsets":[0,1]; 1; dtype: expected a string, got 7
                    "dtype":"U8","shape":[1]; 1; data_offsets is missing
                    "dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]; 1; Duplicate
                    "dtype":"U8","shape":[01],"data_offsets":[0,1]; 1; not valid JSON
                    "dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]; 1; above 2^63 - 1
                    """)
    void open_rejectsEntry(String entry, int dataBytes, String violation) throws IOException {
        Path path = write("{\"t\":{" + entry + "}}", dataBytes);

        assertThatThrownBy(() -> Safetensors.open(path))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(path + ": ")
                .hasMessageContaining(violation);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            quoteCharacter = '`',
            textBlock =
                    """
                    {}{}; header has more JSON after its object
                    {"__metadata__":null}; __metadata__: expected an object of strings, got null
                    {"__metadata__":{},"__metadata__":{}}; Duplicate
                    {; not valid JSON
                    {"\\ud800":1}; surrogate
                    {"\\udc00":1}; surrogate
                    {"__metadata__":{"a":"\\udc00"}}; surrogate
                    {"a":{"x":%s}}; not valid JSON
                    """)
    void open_rejectsHeader(String header, String violation) throws IOException {
        Path path = write(header.replace("%s", "[".repeat(200)), 0);

        assertThatThrownBy(() -> Safetensors.open(path))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(violation);
    }

    @Test
    void open_acceptsNoTensors() throws IOException {
        try (Safetensors file = Safetensors.open(write("{}", 0))) {
            assertThat(file.names()).isEmpty();
            assertThatThrownBy(() -> file.tensor("a")).hasMessageContaining("has no tensors");
        }
    }

    @Test
    void open_rejectsUtf16() throws IOException {
        byte[] json = "{ }".getBytes(StandardCharsets.UTF_16LE);
        byte[] bytes = Arrays.copyOf(file("x".repeat(json.length), 0), 8 + json.length);
        System.arraycopy(json, 0, bytes, 8, json.length);
        Path path = write(bytes);

        assertThatThrownBy(() -> Safetensors.open(path))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("not valid JSON");
    }

    @Test
    void open_saysHowToGetAnLfsFile() throws IOException {
        Path path =
                write(
                        "version https://git-lfs.github.com/spec/v1\noid sha256:00\n"
                                .getBytes(StandardCharsets.US_ASCII));

        assertThatThrownBy(() -> Safetensors.open(path))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(path + ": is a Git LFS pointer and not the data; run 'git lfs pull'");
    }

    @Test
    void open_rejectsWhatIsNoFile() throws IOException {
        assertThatThrownBy(() -> Safetensors.open(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder + ": is a directory; name a file in it");
        Path missing = folder.resolve("none.safetensors");
        assertThatThrownBy(() -> Safetensors.open(missing))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(missing + ": no such file");
        Path below = Files.createFile(folder.resolve("plain")).resolve("x.safetensors");
        assertThatThrownBy(() -> Safetensors.open(below))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(below + ": ")
                .message()
                .doesNotContain("\n");
    }

    @Test
    void open_collidingNamesAreRead() throws IOException {
        // 2^9 names of one hash code where it is 33 times the last one plus the next character.
        StringBuilder header = new StringBuilder("{");
        for (int i = 0; i < 512; i++) {
            StringBuilder name = new StringBuilder();
            for (int bit = 0; bit < 9; bit++) {
                name.append((i >> bit & 1) == 0 ? "Ab" : "BA");
            }
            header.append(i == 0 ? "" : ",")
                    .append("\"")
                    .append(name)
                    .append("\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[")
                    .append(i)
                    .append(",")
                    .append(i + 1)
                    .append("]}");
        }
        try (Safetensors file = Safetensors.open(write(header.append("}").toString(), 512))) {
            assertThat(file.names()).hasSize(512);
            assertThat(file.tensor("BA".repeat(9)).getLong(0)).isEqualTo(511 & 0xff);
        }
    }

    @Test
    void tensor_suggestsNearestNames() {
        Path path = FIXTURES.resolve("mixtral-expected.safetensors");
        try (Safetensors file = Safetensors.open(path)) {
            assertThat(file.names()).contains("router_logits", "topk_ids", "topk_weights");

            assertThatThrownBy(() -> file.tensor("topk_weight"))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageStartingWith(
                            path + ": has no tensor 'topk_weight'; nearest: 'topk_weights', ")
                    .message()
                    .satisfies(text -> assertThat(text.chars().filter(c -> c == '\'')).hasSize(8));
        }
    }

    @Test
    void close_endsTheTensors() throws IOException {
        Safetensors file =
                Safetensors.open(
                        write(
                                "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                                1));
        Tensor tensor = file.tensor("a");
        file.close();

        assertThatThrownBy(() -> tensor.getLong(0)).isInstanceOf(IllegalStateException.class);
        assertThatCode(file::close).doesNotThrowAnyException();
    }

    @Test
    void tensor_above2GiB() throws IOException {
        long elements = (1L << 29) + 3;
        long dataBytes = 4 * elements;
        String header =
                "{\"big\":{\"dtype\":\"F32\",\"shape\":["
                        + elements
                        + "],\"data_offsets\":[0,"
                        + dataBytes
                        + "]},\"after\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":["
                        + dataBytes
                        + ","
                        + (dataBytes + 4)
                        + "]}}";
        Path path = write(header, 0);
        long headBytes = Files.size(path);
        try (FileChannel channel =
                FileChannel.open(path, StandardOpenOption.WRITE, StandardOpenOption.SPARSE)) {
            ByteBuffer last = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
            channel.write(last.putFloat(1.5f).putFloat(-2.5f).flip(), headBytes + dataBytes - 4);
        }

        try (Safetensors file = Safetensors.open(path)) {
            Tensor big = file.tensor("big");
            assertThat(big.numBytes()).isEqualTo(dataBytes);
            assertThat(big.getFloat(elements - 1)).isEqualTo(1.5f);
            assertThat(big.getFloat(elements - 2)).isEqualTo(0f);
            assertThat(file.tensor("after").getFloat(0)).isEqualTo(-2.5f);
        }
    }

    private static long sumByElement(Tensor tensor) {
        long sum = 0;
        for (long i = 0; i < tensor.numElements(); i++) {
            sum += tensor.getLong(i);
        }
        return sum;
    }

    private void assertShrinkIsReported(Consumer<Tensor> read) throws IOException {
        int dataBytes = 1 << 20;
        Path path =
                write(
                        "{\"a\":{\"dtype\":\"U8\",\"shape\":["
                                + dataBytes
                                + "],\"data_offsets\":[0,"
                                + dataBytes
                                + "]}}",
                        dataBytes);
        long fullBytes = Files.size(path);
        try (Safetensors file = Safetensors.open(path);
                Safetensors other =
                        Safetensors.open(FIXTURES.resolve("malformed/valid_scalar.safetensors"))) {
            Tensor tensor = file.tensor("a");
            file.guarded(() -> {
                read.accept(tensor);
                return tensor;
            });
            try (FileChannel channel = FileChannel.open(path, StandardOpenOption.WRITE)) {
                channel.truncate(10_000);
            }

            assertThatThrownBy(() ->
                            Safetensors.guarded(
                                    List.of(other, file),
                                    () -> {
                                        read.accept(tensor);
                                        return tensor;
                                    }))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageStartingWith(
                            path + ": shrank from " + fullBytes + " to 10000 bytes while it was");
        }
    }

    @Test
    void guarded_reportsAShrunkFileToACopy() throws IOException {
        assertShrinkIsReported(tensor -> {
            try (Arena arena = Arena.ofConfined()) {
                MemorySegment copy = arena.allocate(tensor.numBytes());
                MemorySegment.copy(tensor.data(), 0, copy, 0, tensor.numBytes());
            }
        });
        assertShrinkIsReported(tensor -> tensor.data().toArray(JAVA_BYTE));
    }

    @Test
    void guarded_reportsAShrunkFileToALoop() throws IOException {
        assertShrinkIsReported(tensor -> assertThat(sumByElement(tensor)).isNotNegative());
    }

    @Test
    void guarded_reportsAShrunkFileToAWriter() throws IOException {
        Path target = folder.resolve("copy.safetensors");
        assertShrinkIsReported(tensor -> {
            var tensors = new LinkedHashMap<String, Tensor>();
            tensors.put("a", tensor);
            SafetensorsWriter.write(target, tensors, Collections.emptyMap());
        });
    }

    @Test
    void guarded_passesOtherFailuresOn() throws IOException {
        InternalError error = new InternalError("other");
        try (Safetensors file = Safetensors.open(write("{}", 0))) {
            assertThatThrownBy(() ->
                            file.guarded(() -> {
                                throw error;
                            }))
                    .isSameAs(error);
        }
    }

    @Property(tries = 3000)
    void open_mutatedHeaderIsReadOrRejected(
            @ForAll @Size(min = 1, max = 4) List<@IntRange(max = 169) Integer> positions,
            @ForAll @Size(value = 4) List<Byte> values)
            throws IOException {
        byte[] bytes = Files.readAllBytes(FIXTURES.resolve("malformed/valid_metadata.safetensors"));
        for (int i = 0; i < positions.size(); i++) {
            bytes[positions.get(i)] = values.get(i);
        }
        Path path = Files.createTempFile("mutated", ".safetensors");
        try {
            Files.write(path, bytes);
            assertReadOrRejected(path);
        } finally {
            Files.delete(path);
        }
    }

    private static void assertReadOrRejected(Path path) {
        try (Safetensors file = Safetensors.open(path)) {
            long bytes = 0;
            for (Tensor tensor : file.tensors().values()) {
                bytes += tensor.data().toArray(JAVA_BYTE).length;
            }
            assertThat(bytes).isEqualTo(32);
        } catch (CheckpointException e) {
            assertThat(e).hasMessageStartingWith(path + ": ");
            assertThat(e.getMessage()).doesNotContain("\n");
        }
    }
}
