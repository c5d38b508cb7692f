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

/**
 * Makes sure, before anything is computed, that a file to be written destroys nothing that is read.
 *
 * @param option that names it
 * @param file as given
 */
record OutputFile(String option, Path file) {
    private static final String SINGLE = "model.safetensors";
    private static final String INDEX = "model.safetensors.index.json";

    /** Files that would change what the checkpoint is, even where they do not exist yet. */
    private static final List<String> RESERVED = List.of("config.json", SINGLE, INDEX);

    /**
     * Checks the file.
     *
     * @param checkpoint its folder, or null if there is none
     * @param input {@code FILE[:TENSOR]}, or null if not given
     * @param types {@code FILE[:TENSOR]}, or null if not given
     * @throws IllegalArgumentException if it is one of the files that are read
     * @throws CheckpointException if it cannot be written
     */
    void check(@Nullable Path checkpoint, @Nullable String input, @Nullable String types) {
        if (input != null) {
            refuseIfSame(TensorFile.parse(input).file(), "is the input");
        }
        if (types != null) {
            refuseIfSame(TensorFile.parse(types).file(), "is the file of --token-types");
        }
        if (checkpoint != null && Files.isDirectory(checkpoint)) {
            checkFolder(checkpoint);
        }
        SafetensorsWriter.checkWritable(file);
    }

    private void checkFolder(Path checkpoint) {
        try (DirectoryStream<Path> entries =
                Files.newDirectoryStream(checkpoint, Files::isRegularFile)) {
            for (Path entry : entries) {
                if (isSame(file, entry) && !isResult(entry)) {
                    throw refused("belongs to the checkpoint");
                }
            }
        } catch (IOException e) {
            throw new CheckpointException(checkpoint + ": cannot be read: " + e.getMessage(), e);
        }
        Path folder = file.toAbsolutePath().getParent();
        Path name = file.getFileName();
        if (folder != null && name != null && isSame(folder, checkpoint)) {
            boolean named =
                    Files.exists(checkpoint.resolve(SINGLE))
                            || Files.exists(checkpoint.resolve(INDEX));
            // Weights of any name count as the model where there is just one such file.
            if (RESERVED.contains(name.toString())
                    || (!named && name.toString().endsWith(".safetensors"))) {
                throw refused("would become part of the checkpoint");
            }
        }
    }

    private void refuseIfSame(Path other, String what) {
        if (isSame(file, other)) {
            throw refused(what);
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

    private IllegalArgumentException refused(String what) {
        return new IllegalArgumentException(
                option + ": " + file + " " + what + "; name another file");
    }
}
