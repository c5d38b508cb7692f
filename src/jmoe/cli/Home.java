package jmoe.cli;

import jmoe.checkpoint.CheckpointException;

import org.jspecify.annotations.Nullable;

import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.CodeSource;

/** Where the project's own data is. */
final class Home {
    /** System property with the project's folder; the launcher sets it. */
    static final String PROPERTY = "jmoe.home";

    private static final String GOLDEN = "tests/golden";

    private Home() {}

    /**
     * The folder with the golden checkpoints: in {@link #PROPERTY}, or above the jar, or above the
     * current folder.
     *
     * @throws CheckpointException if there is none
     */
    static Path golden() {
        return shortened(project().resolve(GOLDEN));
    }

    /**
     * The folder of the project or bundle that this is, found as {@link #golden} is.
     *
     * @throws CheckpointException if there is none
     */
    static Path project() {
        String home = System.getProperty(PROPERTY);
        Path[] starts = {home == null ? null : Path.of(home), codeFolder(), Path.of("")};
        for (Path start : starts) {
            Path found = start == null ? null : above(start.toAbsolutePath());
            if (found != null) {
                return found;
            }
        }
        throw new CheckpointException(
                GOLDEN
                        + ": not found above the current folder; start jmoe in the project's folder"
                        + " or name the folder with --golden");
    }

    private static @Nullable Path above(Path start) {
        for (Path folder = start; folder != null; folder = folder.getParent()) {
            if (Files.isDirectory(folder.resolve(GOLDEN))) {
                return folder;
            }
        }
        return null;
    }

    private static @Nullable Path codeFolder() {
        CodeSource source = Home.class.getProtectionDomain().getCodeSource();
        if (source == null) {
            return null;
        }
        try {
            return Path.of(source.getLocation().toURI()).getParent();
        } catch (URISyntaxException | RuntimeException e) {
            // Code that does not come from a file has no folder.
            return null;
        }
    }

    /** Relative where that is shorter to read. */
    private static Path shortened(Path folder) {
        Path current = Path.of("").toAbsolutePath();
        return folder.startsWith(current) ? current.relativize(folder) : folder;
    }
}
