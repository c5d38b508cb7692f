package jmoe.cli;

import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.Safetensors;
import jmoe.checkpoint.SafetensorsWriter;
import jmoe.checkpoint.TensorFile;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Makes sure, before anything is computed, that {@code --output} destroys nothing it read. */
final class OutputFile {
    private static final String SINGLE = "model.safetensors";
    private static final String INDEX = "model.safetensors.index.json";

    /** Files that would change what the checkpoint is, even where they do not exist yet. */
    private static final List<String> RESERVED = List.of("config.json", SINGLE, INDEX);

    private OutputFile() {}

    /**
     * Checks the file to write.
     *
     * @param output as given
     * @param checkpoint its folder
     * @param input {@code FILE[:TENSOR]}
     * @param types {@code FILE[:TENSOR]}, or null if not given
     * @throws IllegalArgumentException if it is one of the files that are read
     * @throws CheckpointException if it cannot be written
     */
    static void check(Path output, Path checkpoint, String input, @Nullable String types) {
        refuseIfSame(output, TensorFile.parse(input).file(), "is the input");
        if (types != null) {
            refuseIfSame(output, TensorFile.parse(types).file(), "is the file of --token-types");
        }
        if (Files.isDirectory(checkpoint)) {
            checkFolder(output, checkpoint);
        }
        SafetensorsWriter.checkWritable(output);
    }

    private static void checkFolder(Path output, Path checkpoint) {
        try (DirectoryStream<Path> entries =
                Files.newDirectoryStream(checkpoint, Files::isRegularFile)) {
            for (Path entry : entries) {
                if (isSame(output, entry) && !isResult(entry)) {
                    throw refused(output, "belongs to the checkpoint");
                }
            }
        } catch (IOException e) {
            throw new CheckpointException(checkpoint + ": cannot be read: " + e.getMessage(), e);
        }
        Path folder = output.toAbsolutePath().getParent();
        Path name = output.getFileName();
        if (folder != null && name != null && isSame(folder, checkpoint)) {
            boolean named =
                    Files.exists(checkpoint.resolve(SINGLE))
                            || Files.exists(checkpoint.resolve(INDEX));
            // Weights of any name count as the model where there is just one such file.
            if (RESERVED.contains(name.toString())
                    || (!named && name.toString().endsWith(".safetensors"))) {
                throw refused(output, "would become part of the checkpoint");
            }
        }
    }

    private static void refuseIfSame(Path output, Path other, String what) {
        if (isSame(output, other)) {
            throw refused(output, what);
        }
    }

    /** What an earlier run wrote may be written again, wherever it lies. */
    private static boolean isResult(Path file) {
        if (!file.toString().endsWith(".safetensors")) {
            return false;
        }
        try (Safetensors tensors = Safetensors.open(file)) {
            return tensors.metadata().containsKey(Run.RESULT_KEY);
        } catch (CheckpointException e) {
            return false;
        }
    }

    private static boolean isSame(Path a, Path b) {
        try {
            return Files.exists(a) && Files.exists(b) && Files.isSameFile(a, b);
        } catch (IOException e) {
            // What cannot be looked at cannot be replaced either.
            return false;
        }
    }

    private static IllegalArgumentException refused(Path output, String what) {
        return new IllegalArgumentException(
                "--output: " + output + " " + what + "; name another file");
    }
}
