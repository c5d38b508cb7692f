package jmoe.checkpoint;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import tools.jackson.databind.JsonNode;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;

/** The safetensors files of a folder, each opened once, when it is first needed. */
final class Shards implements AutoCloseable {
    private static final String SINGLE = "model.safetensors";
    private static final String INDEX = "model.safetensors.index.json";

    private final Map<String, Path> fileOf;
    private final Map<Path, Safetensors> open = new LinkedHashMap<>();
    private boolean closed;

    private Shards(Map<String, Path> fileOf) {
        this.fileOf = Collections.unmodifiableMap(fileOf);
    }

    /** Opens model.safetensors, the index, or the only safetensors file there is. */
    static Shards open(Path folder) {
        Path single = folder.resolve(SINGLE);
        Path index = folder.resolve(INDEX);
        if (Files.exists(single)) {
            return single(single);
        }
        return Files.exists(index) ? new Shards(index(folder, index)) : single(only(folder));
    }

    private static Shards single(Path file) {
        Safetensors tensors = Safetensors.open(file);
        Map<String, Path> fileOf = new LinkedHashMap<>();
        for (String name : tensors.names()) {
            fileOf.put(name, file);
        }
        Shards shards = new Shards(fileOf);
        shards.open.put(file, tensors);
        return shards;
    }

    private static Path only(Path folder) {
        List<Path> files = new ArrayList<>();
        try (DirectoryStream<Path> entries = Files.newDirectoryStream(folder, "*.safetensors")) {
            entries.forEach(files::add);
        } catch (IOException e) {
            throw new CheckpointException(
                    folder + ": cannot be listed: " + MappedFile.reason(e), e);
        }
        if (files.size() != 1) {
            throw new CheckpointException(
                    folder
                            + ": expected "
                            + SINGLE
                            + ", "
                            + INDEX
                            + " or one other safetensors file, got "
                            + (files.isEmpty()
                                    ? "none"
                                    : files.stream().map(Path::getFileName).sorted().toList()));
        }
        return files.getFirst();
    }

    private static Map<String, Path> index(Path folder, Path index) {
        JsonNode map = Json.parse(index).path("weight_map");
        if (!map.isObject() || map.isEmpty()) {
            throw new CheckpointException(
                    index + ": expected an object weight_map from tensor names to file names");
        }
        Map<String, Path> fileOf = new LinkedHashMap<>();
        Set<Path> present = new LinkedHashSet<>();
        for (Map.Entry<String, JsonNode> entry : map.properties()) {
            JsonNode value = entry.getValue();
            String name = value.isString() ? value.stringValue() : "";
            // A file elsewhere is none of this checkpoint's: names may come from strangers.
            if (name.isEmpty()
                    || name.equals(".")
                    || name.equals("..")
                    || name.indexOf('/') >= 0
                    || name.indexOf('\\') >= 0
                    || name.indexOf('\0') >= 0) {
                throw new CheckpointException(
                        index
                                + ": weight_map: expected the name of a file in the same folder for"
                                + " "
                                + CheckpointException.quoted(entry.getKey())
                                + ", got "
                                + CheckpointException.oneLine(value.toString()));
            }
            Path file = folder.resolve(name);
            if (present.add(file) && !Files.isRegularFile(file)) {
                throw new CheckpointException(
                        index
                                + ": names "
                                + CheckpointException.quoted(name)
                                + ", which is missing; the checkpoint is incomplete, fetch it");
            }
            fileOf.put(entry.getKey(), file);
        }
        return fileOf;
    }

    Set<String> names() {
        return fileOf.keySet();
    }

    /** A tensor, or null if no file is said to have it. */
    synchronized @Nullable Tensor find(String name) {
        Path file = fileOf.get(name);
        if (file == null) {
            return null;
        }
        if (closed) {
            throw new IllegalStateException(
                    file + ": the checkpoint is closed; keep it open while its tensors are used");
        }
        Safetensors tensors = open.get(file);
        if (tensors == null) {
            tensors = Safetensors.open(file);
            open.put(file, tensors);
        }
        if (!tensors.contains(name)) {
            throw new CheckpointException(
                    file
                            + ": has no tensor "
                            + CheckpointException.quoted(name)
                            + ", though "
                            + INDEX
                            + " says so; the checkpoint is damaged, fetch it again");
        }
        return tensors.tensor(name);
    }

    /** Runs code that reads tensors of files that are open by now, see {@link Safetensors}. */
    <T> T guarded(Supplier<T> body) {
        List<Safetensors> files;
        synchronized (this) {
            files = List.copyOf(open.values());
        }
        return Safetensors.guarded(files, body);
    }

    @Override
    public synchronized void close() {
        closed = true;
        open.values().forEach(Safetensors::close);
        open.clear();
    }
}
