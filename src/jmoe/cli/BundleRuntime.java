package jmoe.cli;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.spi.ToolProvider;
import java.util.stream.Stream;

/** The Java runtime of a bundle: this JDK cut down to the modules that jmoe needs. */
final class BundleRuntime {
    /** What jdeps finds in the jar, its libraries and the tests, and what is found by name. */
    static final List<String> MODULES =
            List.of(
                    "java.base",
                    // The log, and JCuda.
                    "java.logging",
                    // Beans of the JVM, for the two below and for the tests.
                    "java.management",
                    // How much memory the machine has.
                    "jdk.management",
                    // The vector backend.
                    "jdk.incubator.vector",
                    // Events of the CUDA backend.
                    "jdk.jfr",
                    // JUnit looks for tests in jars through it.
                    "jdk.zipfs",
                    // sun.misc.Unsafe, which libraries ask for by name.
                    "jdk.unsupported");

    /**
     * For compilers, archives and networks; exp and its like on vectors, which jmoe writes itself.
     */
    private static final String UNUSED =
            "**/jrt-fs.jar,**/classlist,**/public_suffix_list.dat,**/libjsvml.so";

    private static final long STRIP_SECONDS = 60;

    private BundleRuntime() {}

    /**
     * Finds the program that makes runtimes.
     *
     * @throws UnsupportedOperationException if this Java has none, or its runtime would run on
     *     nothing that has the kernels
     */
    static ToolProvider jlink() {
        String system = System.getProperty("os.name") + " " + System.getProperty("os.arch");
        if (!system.equals("Linux amd64")) {
            throw new UnsupportedOperationException(
                    "bundle: a bundle for Linux x86-64 can only be made there, not on " + system);
        }
        return ToolProvider.findFirst("jlink")
                .orElseThrow(() ->
                        new UnsupportedOperationException(
                                "bundle: jlink is not part of the Java in "
                                        + System.getProperty("java.home")
                                        + "; start jmoe with a full JDK"));
    }

    /**
     * Writes the runtime.
     *
     * @param folder must not exist
     * @throws UnsupportedOperationException if jlink refuses
     */
    static void write(Path folder) throws IOException {
        StringWriter said = new StringWriter();
        PrintWriter log = new PrintWriter(said);
        int status =
                jlink().run(
                                log,
                                log,
                                "--add-modules",
                                String.join(",", MODULES),
                                "--strip-debug",
                                "--compress",
                                "zip-9",
                                "--no-header-files",
                                "--no-man-pages",
                                "--exclude-files",
                                UNUSED,
                                "--output",
                                folder.toString());
        if (status != 0) {
            throw new UnsupportedOperationException(
                    "bundle: jlink of "
                            + System.getProperty("java.home")
                            + " failed: "
                            + said
                            + "; try another JDK");
        }
    }

    /** What it consists of. */
    static String description() {
        return "Java " + Runtime.version().feature() + ", " + MODULES.size() + " modules";
    }

    /**
     * Takes out of all libraries what only debuggers read; of the JVM alone that is 5 MB.
     *
     * @param folder searched at any depth
     * @return whether that could be done
     */
    static boolean strip(Path folder) throws IOException {
        Path program = onPath("strip");
        if (program == null) {
            return false;
        }
        List<String> command = new ArrayList<>();
        command.add(program.toString());
        try (Stream<Path> files = Files.walk(folder)) {
            files.map(Path::toString).filter(file -> file.endsWith(".so")).forEach(command::add);
        }
        Process process =
                new ProcessBuilder(command)
                        .redirectErrorStream(true)
                        .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                        .start();
        try {
            return process.waitFor(STRIP_SECONDS, TimeUnit.SECONDS) && process.exitValue() == 0;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IOException("interrupted", e);
        } finally {
            process.destroy();
        }
    }

    private static @Nullable Path onPath(String name) {
        String path = System.getenv("PATH");
        for (String folder : (path == null ? "" : path).split(":", -1)) {
            Path program = Path.of(folder, name);
            if (!folder.isEmpty() && Files.isExecutable(program)) {
                return program;
            }
        }
        return null;
    }
}
