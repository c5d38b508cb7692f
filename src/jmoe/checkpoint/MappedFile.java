package jmoe.checkpoint;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Collection;
import java.util.List;
import java.util.function.Supplier;

/**
 * A regular file mapped read-only, of any length.
 *
 * @param path where it was opened
 * @param data all its bytes; lives as long as the arena it was mapped into
 */
record MappedFile(Path path, MemorySegment data) {

    /** Maps a file; refuses anything that is not a readable regular file. */
    static MappedFile open(Path file, Arena arena) {
        checkRegular(file);
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            return new MappedFile(
                    file, channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena));
        } catch (IOException e) {
            throw new CheckpointException(file + ": cannot be read: " + reason(e), e);
        }
    }

    static void checkRegular(Path file) {
        if (Files.isDirectory(file)) {
            throw new CheckpointException(file + ": is a directory; name a file in it");
        }
        if (Files.notExists(file)) {
            throw new CheckpointException(file + ": no such file");
        }
        if (Files.exists(file) && !Files.isRegularFile(file)) {
            throw new CheckpointException(file + ": is not a regular file and cannot be mapped");
        }
    }

    /** Why a file operation failed, without repeating the path. */
    static String reason(IOException e) {
        if (e instanceof AccessDeniedException) {
            return "permission denied";
        }
        if (e instanceof NoSuchFileException) {
            return "no such file or folder";
        }
        if (e instanceof FileSystemException system && system.getReason() != null) {
            return CheckpointException.oneLine(system.getReason());
        }
        String message = e.getMessage();
        return message == null
                ? e.getClass().getSimpleName()
                : CheckpointException.oneLine(message);
    }

    long numBytes() {
        return data.byteSize();
    }

    /**
     * Runs code that reads the mapping. Pages behind the end of a file that shrank raise an {@link
     * InternalError}, in compiled code some time after the read and not always; the length is
     * therefore compared after the code has run as well.
     */
    <T> T guarded(Supplier<T> body) {
        return guarded(List.of(this), body);
    }

    /** Runs code that reads several mappings, see {@link #guarded(Supplier)}. */
    static <T> T guarded(Collection<MappedFile> files, Supplier<T> body) {
        try {
            T result = body.get();
            for (MappedFile file : files) {
                file.checkLength();
            }
            return result;
        } catch (InternalError | CheckpointException e) {
            for (MappedFile file : files) {
                file.checkLength();
            }
            throw e;
        }
    }

    private void checkLength() {
        long now;
        try {
            now = Files.size(path);
        } catch (IOException e) {
            // Deleted or renamed: the mapping keeps the old file's pages.
            return;
        }
        if (now < numBytes()) {
            throw new CheckpointException(
                    path
                            + ": shrank from "
                            + numBytes()
                            + " to "
                            + now
                            + " bytes while it was read; keep others from writing to it and open"
                            + " it again");
        }
    }
}
