package jmoe.cli;

import jmoe.checkpoint.CheckpointException;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;

/**
 * The folder that a bundle becomes. It is filled beside its place and renamed, so that there is
 * either the whole bundle or what was there before; only an empty folder or an earlier bundle is
 * replaced.
 */
final class BundleFolder implements AutoCloseable {
    /** The file that makes a folder a bundle. */
    static final String MARKER = "bundle.json";

    /** What lies at the top of a bundle; anything else there is the user's. */
    static final Set<String> ENTRIES =
            Set.of(
                    MARKER,
                    "LICENSE",
                    "README.txt",
                    "bin",
                    "gpu-check",
                    "jmoe.jar",
                    "lib",
                    "runtime",
                    "tests");

    private final Path target;
    private final Path workshop;
    private final Thread cleaner;

    /**
     * Makes room for a bundle.
     *
     * @param target where it goes: absent, empty or an earlier bundle
     * @throws IllegalArgumentException if something else is there
     * @throws CheckpointException if nothing can be written there
     */
    BundleFolder(Path target) {
        try {
            this.target = Files.exists(target) ? target.toRealPath() : target.toAbsolutePath();
            check(target);
            Path parent = this.target.normalize().getParent();
            if (parent == null) {
                throw new IllegalArgumentException(
                        target + ": has no place beside it; name a new folder");
            }
            Files.createDirectories(parent);
            workshop = Files.createTempDirectory(parent, ".jmoe-bundle-");
            Files.createDirectory(content());
        } catch (IOException e) {
            throw new CheckpointException(target + ": cannot be written: " + e, e);
        }
        cleaner = new Thread(this::clean);
        Runtime.getRuntime().addShutdownHook(cleaner);
    }

    /**
     * Looks at the place, before there is anything to put there.
     *
     * @throws IllegalArgumentException if there is something that is not a bundle's
     */
    static void check(Path target) throws IOException {
        if (!Files.exists(target)) {
            return;
        }
        if (!Files.isDirectory(target)) {
            throw new IllegalArgumentException(target + ": is a file; name a new folder");
        }
        List<String> names;
        try (Stream<Path> entries = Files.list(target)) {
            names = entries.map(entry -> entry.getFileName().toString()).sorted().toList();
        }
        if (!names.isEmpty() && !names.contains(MARKER)) {
            throw new IllegalArgumentException(
                    target + ": is neither empty nor an earlier bundle; name a new folder");
        }
        for (String name : names) {
            if (!ENTRIES.contains(name)) {
                throw new IllegalArgumentException(
                        target
                                + ": is a bundle with "
                                + name
                                + " in it, which no bundle has; move that away or name a new"
                                + " folder");
            }
        }
    }

    /** The folder to fill. */
    Path content() {
        return workshop.resolve("content");
    }

    /** Puts what was filled in its place. */
    void finish() throws IOException {
        if (Files.exists(target)) {
            Files.move(target, workshop.resolve("earlier"), StandardCopyOption.ATOMIC_MOVE);
        }
        Files.move(content(), target, StandardCopyOption.ATOMIC_MOVE);
    }

    /** Removes all that is not in its place. */
    @Override
    public void close() {
        clean();
        try {
            Runtime.getRuntime().removeShutdownHook(cleaner);
        } catch (IllegalStateException e) {
            // The process is ending, and the hook does its work.
            return;
        }
    }

    private void clean() {
        try {
            delete(workshop);
        } catch (IOException e) {
            throw new CheckpointException(workshop + ": cannot be removed: " + e, e);
        }
    }

    /** Removes a folder and all in it; links are removed, never followed. */
    static void delete(Path folder) throws IOException {
        try {
            Files.walkFileTree(folder, new Deletion());
        } catch (NoSuchFileException e) {
            // Removed already.
            return;
        }
    }

    private static final class Deletion extends SimpleFileVisitor<Path> {
        @Override
        public FileVisitResult visitFile(Path file, BasicFileAttributes attributes)
                throws IOException {
            Files.deleteIfExists(file);
            return FileVisitResult.CONTINUE;
        }

        @Override
        public FileVisitResult postVisitDirectory(Path folder, @Nullable IOException failure)
                throws IOException {
            Files.deleteIfExists(folder);
            return FileVisitResult.CONTINUE;
        }
    }

    /** Bytes of all files at or below a path. */
    static long bytes(Path path) throws IOException {
        try (Stream<Path> files = Files.walk(path)) {
            return files.filter(Files::isRegularFile)
                    .mapToLong(file -> file.toFile().length())
                    .sum();
        }
    }
}
