package jmoe.checkpoint;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import tools.jackson.databind.json.JsonMapper;
import tools.jackson.databind.node.ObjectNode;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SequencedMap;
import java.util.function.UnaryOperator;

/** A golden checkpoint that a test changes before it opens the copy. */
final class EditedFolder implements AutoCloseable {
    static final Path GOLDEN = Path.of("tests/golden");

    private static final JsonMapper MAPPER = JsonMapper.builder().build();

    final ObjectNode config;
    final SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
    private final Safetensors source;
    private final Arena arena = Arena.ofConfined();
    private final Path folder;

    EditedFolder(String golden, Path folder) {
        Path from = GOLDEN.resolve(golden);
        this.folder = folder;
        try {
            config = (ObjectNode) MAPPER.readTree(Files.readAllBytes(from.resolve("config.json")));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        source = Safetensors.open(from.resolve("model.safetensors"));
        tensors.putAll(source.tensors());
    }

    EditedFolder set(String key, String json) {
        config.set(key, MAPPER.readTree(json));
        return this;
    }

    EditedFolder rename(String from, String to) {
        tensors.put(to, tensors.remove(from));
        return this;
    }

    EditedFolder renameAll(UnaryOperator<String> change) {
        Map<String, Tensor> renamed = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> renamed.put(change.apply(name), tensor));
        tensors.clear();
        tensors.putAll(renamed);
        return this;
    }

    Tensor allocate(DType dtype, long... shape) {
        return Tensor.allocate(arena, dtype, shape);
    }

    /** Writes the folder and opens it. */
    Checkpoint open() {
        write();
        return Checkpoint.open(folder);
    }

    Path write() {
        SafetensorsWriter.write(folder.resolve("model.safetensors"), tensors, Map.of());
        try {
            Files.write(folder.resolve("config.json"), MAPPER.writeValueAsBytes(config));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return folder;
    }

    @Override
    public void close() {
        source.close();
        arena.close();
    }
}
