package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SequencedMap;
import java.util.stream.Stream;

class SafetensorsWriterTest {
    private static final long PAGE_BYTES = 4096;

    @TempDir Path folder;

    private static Tensor counting(Arena arena, DType dtype, long... shape) {
        Tensor tensor = Tensor.allocate(arena, dtype, shape);
        for (long i = 0; i < tensor.numBytes(); i++) {
            tensor.data().set(JAVA_BYTE, i, (byte) (i * 7 + dtype.ordinal()));
        }
        return tensor;
    }

    private static SequencedMap<String, Tensor> one(Tensor tensor) {
        SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
        tensors.put("a", tensor);
        return tensors;
    }

    private long files() throws IOException {
        try (Stream<Path> list = Files.list(folder)) {
            return list.count();
        }
    }

    @Test
    void write_roundTripsEveryType() throws IOException {
        Path path = folder.resolve("all.safetensors");
        Map<String, String> metadata = Map.of("format", "pt", "ключ", "\"\n\u0001");
        try (Arena arena = Arena.ofConfined()) {
            SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
            for (DType dtype : DType.values()) {
                if (Safetensors.isStorable(dtype)) {
                    tensors.put("t." + dtype, counting(arena, dtype, 3, 12));
                    tensors.put("empty." + dtype, counting(arena, dtype, 0, 4));
                }
            }
            tensors.put("scalar \"ü\" 🙂", counting(arena, DType.F64));
            SafetensorsWriter.write(path, tensors, metadata);

            try (Safetensors read = Safetensors.open(path)) {
                assertThat(read.metadata()).isEqualTo(metadata);
                assertThat(read.names()).hasSize(41).containsAll(tensors.keySet());
                tensors.forEach((name, tensor) -> {
                    Tensor got = read.tensor(name);
                    assertThat(got.describe()).isEqualTo(tensor.describe());
                    assertThat(got.data().mismatch(tensor.data())).isEqualTo(-1);
                });
            }
        }
        assertThat(files()).isEqualTo(1);
    }

    @Test
    void write_alignsDataAndElements() throws IOException {
        Path path = folder.resolve("a.safetensors");
        try (Arena arena = Arena.ofConfined()) {
            SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
            tensors.put("odd", counting(arena, DType.U8, 3));
            tensors.put("half", counting(arena, DType.F16, 3));
            tensors.put("wide", counting(arena, DType.F64, 1));
            tensors.put("half2", counting(arena, DType.BF16, 1));
            SafetensorsWriter.write(path, tensors, Map.of());
        }

        byte[] bytes = Files.readAllBytes(path);
        long headerBytes = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong();
        assertThat((8 + headerBytes) % 64).isZero();
        assertThat(bytes[8]).isEqualTo((byte) '{');
        assertThat(bytes[(int) (7 + headerBytes)]).isEqualTo((byte) ' ');
        try (Safetensors read = Safetensors.open(path)) {
            assertThat(read.names()).containsExactly("wide", "half", "half2", "odd");
            assertThat(read.metadata()).isEmpty();
            assertThat(read.tensor("wide").data().address() % 64).isZero();
            assertThat(read.tensor("half2").data().address() % 2).isZero();
        }
    }

    @Test
    void write_noTensors() {
        Path path = folder.resolve("a.safetensors");
        SafetensorsWriter.write(path, new LinkedHashMap<>(), Map.of());

        try (Safetensors read = Safetensors.open(path)) {
            assertThat(read.names()).isEmpty();
        }
    }

    @Test
    void write_replacesAFileThatIsOpen() {
        Path path = folder.resolve("a.safetensors");
        try (Arena arena = Arena.ofConfined()) {
            SafetensorsWriter.write(path, one(counting(arena, DType.F32, 2)), Map.of());
            try (Safetensors old = Safetensors.open(path)) {
                SequencedMap<String, Tensor> twice = new LinkedHashMap<>(old.tensors());
                twice.put("b", old.tensor("a"));
                SafetensorsWriter.write(path, twice, Map.of());
            }
        }
        try (Safetensors read = Safetensors.open(path)) {
            assertThat(read.names()).containsExactly("a", "b");
        }
    }

    @Test
    void write_followsALink() throws IOException {
        Path path = Files.createFile(folder.resolve("a.safetensors"));
        Path link = Files.createSymbolicLink(folder.resolve("link.safetensors"), path);
        SafetensorsWriter.write(link, new LinkedHashMap<>(), Map.of());

        assertThat(link).isSymbolicLink();
        assertThat(Files.size(path)).isEqualTo(64);
    }

    @Test
    void write_leavesNothingWhenItFails() throws IOException {
        Path path = folder.resolve("a.safetensors");
        Arena arena = Arena.ofConfined();
        SequencedMap<String, Tensor> tensors = one(counting(arena, DType.F32, PAGE_BYTES));
        arena.close();

        assertThatThrownBy(() -> SafetensorsWriter.write(path, tensors, Map.of()))
                .isInstanceOf(IllegalStateException.class);
        assertThat(files()).isZero();
    }

    @Test
    void write_keepsTheOldFileWhenItFails() throws IOException {
        Path path = Files.writeString(folder.resolve("a.safetensors"), "old");
        // The kernel cannot read pages behind the end of a file and refuses the write.
        Path source = Files.write(folder.resolve("source"), new byte[(int) (4 * PAGE_BYTES)]);
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment data = MappedFile.open(source, arena).data();
            Files.write(source, new byte[0]);

            assertThatThrownBy(() ->
                            SafetensorsWriter.write(
                                    path, one(Tensor.of(data, DType.U8, 4 * PAGE_BYTES)), Map.of()))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageStartingWith(path + ": cannot be written: ")
                    .hasCauseInstanceOf(IOException.class);
        }
        assertThat(path).hasContent("old");
        assertThat(files()).isEqualTo(2);
    }

    @Test
    void write_rejectsWhatTheFormatLacks() throws IOException {
        Path path = folder.resolve("a.safetensors");
        try (Arena arena = Arena.ofConfined()) {
            Tensor plain = counting(arena, DType.U8, 1);
            Tensor block = counting(arena, DType.Q8_0, 32);
            assertThatThrownBy(() -> SafetensorsWriter.write(path, one(block), Map.of()))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("'a'")
                    .hasMessageContaining("Q8_0 [32]");
            Tensor device = Tensor.device(4096, DType.F32, 2);
            assertThatThrownBy(() -> SafetensorsWriter.write(path, one(device), Map.of()))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("on device");
            Tensor scaled =
                    Tensor.scaled(counting(arena, DType.I8, 2, 3), counting(arena, DType.F32, 2));
            assertThatThrownBy(() -> SafetensorsWriter.write(path, one(scaled), Map.of()))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("scaled I8 [2, 3]");
            for (String name : new String[] {"__metadata__", "\ud800"}) {
                SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
                tensors.put(name, plain);
                assertThatThrownBy(() -> SafetensorsWriter.write(path, tensors, Map.of()))
                        .isInstanceOf(IllegalArgumentException.class);
            }
            assertThatThrownBy(
                            () -> SafetensorsWriter.write(path, one(plain), Map.of("k", "\udc00")))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("metadata");
        }
        assertThat(files()).isZero();
    }

    @Test
    void checkWritable_namesTheReason() throws IOException {
        SafetensorsWriter.checkWritable(folder.resolve("new.safetensors"));
        SafetensorsWriter.checkWritable(Path.of("relative.safetensors"));
        Path plain = Files.createFile(folder.resolve("plain"));
        SafetensorsWriter.checkWritable(plain);

        assertUnwritable(folder, "is a directory");
        assertUnwritable(folder.resolve("none/x"), "folder " + folder.resolve("none"));
        assertUnwritable(plain.resolve("x"), "is not a folder");
        // Renaming over it would replace the device.
        assertUnwritable(Path.of("/dev/null"), "not a regular file");
        assertThat(files()).isEqualTo(1);
    }

    private static void assertUnwritable(Path path, String reason) {
        assertThatThrownBy(() -> SafetensorsWriter.checkWritable(path))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(path + ": ")
                .hasMessageContaining(reason);
        assertThatThrownBy(() -> SafetensorsWriter.write(path, new LinkedHashMap<>(), Map.of()))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(reason);
    }
}
