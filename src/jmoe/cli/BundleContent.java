package jmoe.cli;

import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.Safetensors;
import jmoe.checkpoint.SafetensorsWriter;
import jmoe.tensor.Tensor;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.SequencedMap;
import java.util.Set;
import java.util.TreeSet;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.jar.JarOutputStream;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import java.util.zip.Deflater;
import java.util.zip.ZipEntry;

/**
 * What a bundle holds besides the Java runtime, taken from a project that has been built.
 *
 * @param project its folder
 */
record BundleContent(Path project) {
    /** Where the tests of a bundle lie in it. */
    static final String SUITE = "tests/jmoe-tests.jar";

    /** Where the libraries of the tests lie. */
    static final String SUITE_LIB = "tests/lib";

    /** Folders of kernels that show what single instructions do, or measure them. */
    private static final List<String> PROBES = List.of("conformance", "measure");

    /** Where these folders lie in the jar of the tests. */
    private static final String KERNELS = "jmoe/kernels/";

    private static final String GOLDEN = "tests/golden";

    /** The driver interface alone: its jar also has a compiler of 24 MB, which jmoe never calls. */
    private static final Pattern NATIVE =
            Pattern.compile("lib/(libJCudaDriver-.*-linux-x86_64\\.so)");

    private static final String NATIVES_JAR = "jcuda-natives-";

    /** What draws charts: it needs java.desktop, which would double the Java runtime. */
    private static final List<String> DRAWING = List.of("xchart-", "VectorGraphics2D-");

    /**
     * What the tests run on. Not Byte Buddy, twice as large as all of these together, which serves
     * only the assumptions and soft assertions of AssertJ; not jqwik, because properties are proved
     * on the reference.
     */
    private static final List<String> SUITE_LIBRARIES =
            List.of("junit-", "opentest4j-", "apiguardian-", "assertj-core-");

    /** What forward passes are given and compared with. */
    private static final Pattern FORWARD =
            Pattern.compile("t\\d+\\.(x|y|y_f64|router_logits|topk_.*|token_types|kept)");

    private static final Pattern KERNEL = Pattern.compile("jmoe/kernels/[^/]+\\.fatbin");

    /**
     * Looks whether the project is built.
     *
     * @throws CheckpointException if not
     */
    void check() {
        for (String needed : List.of("target/jmoe.jar", "target/lib", "native/bundle/jmoe")) {
            if (!Files.exists(project.resolve(needed))) {
                throw new CheckpointException(
                        project.resolve(needed)
                                + ": is missing; a bundle is made from a built checkout of jmoe,"
                                + " so build it with mvn package");
            }
        }
    }

    /** Fatbins in the jar; without any, its CUDA backend cannot run. */
    int kernels() throws IOException {
        try (JarFile jar = new JarFile(project.resolve("target/jmoe.jar").toFile())) {
            return (int) jar.stream().filter(e -> KERNEL.matcher(e.getName()).matches()).count();
        }
    }

    /** Copies jmoe, its libraries and the scripts; says what that is. */
    String copyProgram(Path bundle) throws IOException {
        Files.copy(project.resolve("target/jmoe.jar"), bundle.resolve("jmoe.jar"));
        Path lib = Files.createDirectory(bundle.resolve("lib"));
        Path natives = Files.createDirectory(lib.resolve("native"));
        int libraries = 0;
        for (Path library : jars(project.resolve("target/lib"))) {
            String name = library.getFileName().toString();
            if (name.startsWith(NATIVES_JAR)) {
                unpackNatives(library, natives);
            } else if (DRAWING.stream().noneMatch(name::startsWith)) {
                Files.copy(library, lib.resolve(library.getFileName()));
                libraries++;
            }
        }
        script("native/bundle/jmoe", Files.createDirectory(bundle.resolve("bin")).resolve("jmoe"));
        script("native/gpu-check", bundle.resolve("gpu-check"));
        Files.copy(project.resolve("native/bundle/README.txt"), bundle.resolve("README.txt"));
        Files.copy(project.resolve("LICENSE"), bundle.resolve("LICENSE"));
        return Units.plural(libraries, "library", "libraries")
                + ", "
                + Units.plural(kernels(), "file", "files")
                + " of CUDA kernels";
    }

    private void script(String source, Path target) throws IOException {
        Files.copy(project.resolve(source), target);
        Files.setPosixFilePermissions(target, PosixFilePermissions.fromString("rwxr-xr-x"));
    }

    /** Beside the jar, so that nothing need be unpacked into a folder that others can write. */
    private static void unpackNatives(Path library, Path natives) throws IOException {
        try (JarFile jar = new JarFile(library.toFile())) {
            for (JarEntry entry : jar.stream().toList()) {
                Matcher name = NATIVE.matcher(entry.getName());
                if (name.matches()) {
                    Files.copy(jar.getInputStream(entry), natives.resolve(name.group(1)));
                }
            }
        }
    }

    /** Copies the golden checkpoints, without gradients, and tables; says what that is. */
    String copyGolden(Path bundle) throws IOException {
        Path target = bundle.resolve(GOLDEN);
        List<Path> checkpoints = Golden.folders(project.resolve(GOLDEN));
        for (Path checkpoint : checkpoints) {
            Path copy = target.resolve(checkpoint.getFileName());
            copyFolder(checkpoint, copy);
            keepForward(copy.resolve(Golden.CASES));
        }
        for (String tables : List.of("tensorcore", "conformance")) {
            copyFolder(project.resolve(GOLDEN).resolve(tables), target.resolve(tables));
        }
        return Units.plural(checkpoints.size(), "checkpoint", "checkpoints") + " without gradients";
    }

    private static void keepForward(Path cases) throws IOException {
        Path all = cases.resolveSibling("all.safetensors");
        Files.move(cases, all);
        try (Safetensors stored = Safetensors.open(all)) {
            SequencedMap<String, Tensor> kept = new LinkedHashMap<>(stored.tensors());
            kept.keySet().removeIf(name -> !FORWARD.matcher(name).matches());
            SafetensorsWriter.write(cases, kept, stored.metadata());
        }
        Files.delete(all);
    }

    /** Whether the tests are compiled and their libraries at hand. */
    boolean hasSuite() {
        return Files.isDirectory(project.resolve("target/test-classes/jmoe/ops"))
                && Files.isDirectory(project.resolve("target/test-lib"));
    }

    /** Copies the tests and what they run on; says what that is. */
    String copySuite(Path bundle) throws IOException {
        Path lib = Files.createDirectories(bundle.resolve(SUITE_LIB));
        for (Path library : jars(project.resolve("target/test-lib"))) {
            String name = library.getFileName().toString();
            if (SUITE_LIBRARIES.stream().anyMatch(name::startsWith)) {
                Files.copy(library, lib.resolve(name));
            }
        }
        try (JarOutputStream jar =
                new JarOutputStream(Files.newOutputStream(bundle.resolve(SUITE)))) {
            jar.setLevel(Deflater.BEST_COMPRESSION);
            // Benchmarks, if they were compiled too, need a library that is not here.
            int classes = pack(jar, "target/test-classes", "", "(?!.*jmh_generated).*\\.class");
            int probes = 0;
            for (String folder : PROBES) {
                String prefix = KERNELS + folder + "/";
                probes += pack(jar, "target/native/" + folder, prefix, ".*\\.fatbin");
            }
            return Units.plural(classes, "class", "classes")
                    + " of tests, "
                    + Units.plural(probes, "file", "files")
                    + " of probes";
        }
    }

    /** Adds the files below a folder whose names match, under a prefix; says how many. */
    private int pack(JarOutputStream jar, String from, String prefix, String pattern)
            throws IOException {
        Path folder = project.resolve(from);
        if (!Files.isDirectory(folder)) {
            return 0;
        }
        int packed = 0;
        Set<String> folders = new TreeSet<>();
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.filter(Files::isRegularFile).sorted().toList()) {
                String name = folder.relativize(file).toString();
                if (name.matches(pattern)) {
                    jar.putNextEntry(new ZipEntry(prefix + name));
                    Files.copy(file, jar);
                    folders.add((prefix + name).replaceFirst("[^/]*$", ""));
                    packed++;
                }
            }
        }
        // Where a jar does not name its folders, JUnit finds no tests in it.
        for (String name : folders) {
            jar.putNextEntry(new ZipEntry(name));
        }
        return packed;
    }

    private static List<Path> jars(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(file -> file.toString().endsWith(".jar")).sorted().toList();
        }
    }

    /** Copies a folder; an absent one becomes an empty one. */
    private static void copyFolder(Path from, Path to) throws IOException {
        Files.createDirectories(to);
        if (!Files.isDirectory(from)) {
            return;
        }
        try (Stream<Path> entries = Files.walk(from)) {
            for (Path entry : entries.toList()) {
                Path copy = to.resolve(from.relativize(entry).toString());
                if (Files.isDirectory(entry)) {
                    Files.createDirectories(copy);
                } else {
                    Files.copy(entry, copy, StandardCopyOption.REPLACE_EXISTING);
                }
            }
        }
    }
}
