package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SequencedMap;

class TensorFileTest {
    private static final Path NPY = Path.of("tests/golden/fixtures/npy");
    private static final Path SCALAR =
            Path.of("tests/golden/fixtures/malformed/valid_scalar.safetensors");
    private static final Path TWO =
            Path.of("tests/golden/fixtures/malformed/valid_reference.safetensors");

    private final Arena arena = Arena.ofConfined();
    @TempDir Path folder;

    @AfterEach
    void closeArena() {
        arena.close();
    }

    private String described(String spec) {
        return TensorFile.read(spec, arena).describe();
    }

    @Test
    void read_everyFormat() {
        assertThat(described(NPY + "/f4_c.npy")).isEqualTo("F32 [5, 7]");
        assertThat(described(NPY + "/stored.npz:ids")).isEqualTo("I32 [4]");
        assertThat(described(SCALAR.toString())).isEqualTo("F32 []");
        assertThat(described(TWO + ":b")).isEqualTo("F32 [2]");
    }

    @Test
    void read_tensorLivesAsLongAsTheArena() {
        Tensor tensor;
        try (Arena shorter = Arena.ofConfined()) {
            tensor = TensorFile.read(TWO + ":b", shorter);
            assertThat(tensor.getFloat(1)).isEqualTo(7f);
        }
        assertThatThrownBy(() -> tensor.getFloat(1)).isInstanceOf(IllegalStateException.class);
    }

    @Test
    void read_colonsInPathsAndNames() throws IOException {
        Path odd = Files.createDirectory(folder.resolve("a:b.npy"));
        Path path = Files.copy(TWO, odd.resolve("c:d.safetensors"));
        assertThat(described(path + ":b")).isEqualTo("F32 [2]");
        Path whole = Files.copy(NPY.resolve("i4.npy"), folder.resolve("x.safetensors:b.npy"));
        assertThat(described(whole.toString())).isEqualTo("I32 [3, 4]");
        Path named = folder.resolve("named.safetensors");
        SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
        tensors.put("model:0", Tensor.allocate(arena, DType.F32, 3));
        tensors.put("0", Tensor.allocate(arena, DType.F32, 4));
        SafetensorsWriter.write(named, tensors, Map.of());
        assertThat(described(named + ":model:0")).isEqualTo("F32 [3]");
    }

    @Test
    void read_listsWhatThereIs() {
        assertRejected(TWO.toString(), TWO + ": has 2 tensors; name one as FILE:TENSOR: a, b");
        assertRejected(TWO + ":", TWO + ": has no tensor ''; it has: a, b");
        assertRejected(TWO + ":c", TWO + ": has no tensor 'c'; it has: a, b");
        assertRejected(
                NPY + "/stored.npz",
                NPY + "/stored.npz: has 2 tensors; name one as FILE:TENSOR: a, ids");
        assertRejected(
                NPY + "/stored.npz:c", NPY + "/stored.npz: has no tensor 'c'; it has: a, ids");
        assertRejected(
                NPY + "/i4.npy:c",
                NPY + "/i4.npy: a .npy file has one array and no names; leave out ':c'");
    }

    @Test
    void read_listsTenTensors() {
        Path path = folder.resolve("many.safetensors");
        SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
        for (int i = 20; i > 0; i--) {
            tensors.put("t" + i, Tensor.allocate(arena, DType.U8, 1));
        }
        SafetensorsWriter.write(path, tensors, Map.of());

        assertRejected(
                path.toString(),
                path
                        + ": has 20 tensors; name one as FILE:TENSOR: t20, t19, t18, t17, t16, t15,"
                        + " t14, t13, t12, t11 and 10 more");
    }

    @Test
    void read_rejectsOtherFiles() throws IOException {
        Path text = Files.createFile(folder.resolve("x.txt"));
        assertRejected(text.toString(), text + ": expected a .npy, .npz or .safetensors file");
        assertRejected(folder.toString(), folder + ": is a directory; name a file in it");
        Path none = folder.resolve("none.safetensors");
        assertRejected(none.toString(), none + ": no such file");
        assertRejected(none + ":a", none + ": no such file");
        assertRejected("a\0b", "'a b': is not a path: Nul character not allowed");
        assertRejected("", ": is a directory; name a file in it");
    }

    private void assertRejected(String spec, String message) {
        assertThatThrownBy(() -> TensorFile.read(spec, arena))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(message);
    }
}
