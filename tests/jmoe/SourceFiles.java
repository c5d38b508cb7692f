package jmoe;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/** The Java files of the project. */
final class SourceFiles {
    private SourceFiles() {}

    /** Files below src, tests and bench. */
    static List<Path> all() throws IOException {
        List<Path> files = new ArrayList<>();
        for (String root : List.of("src", "tests", "bench")) {
            files.addAll(below(Path.of(root)));
        }
        return files;
    }

    /** Files below a folder, which need not exist. */
    static List<Path> below(Path root) throws IOException {
        if (!Files.isDirectory(root)) {
            return List.of();
        }
        try (Stream<Path> files = Files.walk(root)) {
            return files.filter(file -> file.toString().endsWith(".java")).sorted().toList();
        }
    }
}
