package jmoe.cli;

import jmoe.checkpoint.CheckpointException;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/** Makes sure, before anything is measured, that a picture can be drawn and written. */
final class ChartFile {
    private static final List<String> FORMATS = List.of("svg", "png");

    private ChartFile() {}

    /**
     * Checks the file to write.
     *
     * @param option that names it
     * @throws IllegalArgumentException for another format
     * @throws UnsupportedOperationException without the Java module that draws
     * @throws CheckpointException if the file cannot be written
     */
    static void check(String option, Path file) {
        format(option, file);
        if (ModuleLayer.boot().findModule("java.desktop").isEmpty()) {
            throw new UnsupportedOperationException(
                    option
                            + ": this Java runtime has no module java.desktop; draw on a machine"
                            + " with a full JDK, or take --json");
        }
        Path folder = file.toAbsolutePath().getParent();
        if (Files.isDirectory(file)
                || (Files.exists(file) && !Files.isWritable(file))
                || folder == null
                || !Files.isDirectory(folder)
                || !Files.isWritable(folder)) {
            throw new CheckpointException(
                    option
                            + ": "
                            + file
                            + ": cannot be written; name a file in a folder that exists");
        }
    }

    /** The format that the name of a file asks for: svg or png. */
    static String format(String option, Path file) {
        String name = file.toString().toLowerCase(Locale.ROOT);
        for (String format : FORMATS) {
            if (name.endsWith("." + format)) {
                return format;
            }
        }
        throw new IllegalArgumentException(
                option + ": expected a file ending in .svg or .png, got " + file);
    }
}
