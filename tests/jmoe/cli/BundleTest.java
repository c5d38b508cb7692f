package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.checkpoint.Safetensors;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.jar.JarOutputStream;
import java.util.regex.Pattern;
import java.util.spi.ToolProvider;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;

/** The parts of a bundle. The whole needs the packaged jar, so CI makes one after the tests. */
final class BundleTest {
    @TempDir private Path folder;

    private Path file(String name, String text) throws IOException {
        Path file = folder.resolve(name);
        Files.createDirectories(file.getParent());
        return Files.writeString(file, text);
    }

    private List<String> names() throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.map(entry -> entry.getFileName().toString()).sorted().toList();
        }
    }

    @Test
    @EnabledOnOs(value = OS.LINUX, architectures = "amd64")
    void bundle_refusesWhatWouldBeLost() throws IOException {
        Path notes = file("project/notes.txt", "");
        jmoe("bundle", notes).refused(notes.toString(), "is a file");
        jmoe("bundle", notes.getParent()).refused("neither empty nor an earlier bundle");
        file("old/bundle.json", "{}");
        Path results = file("old/gpu-check-results/table.txt", "");
        jmoe("bundle", folder.resolve("old")).refused("gpu-check-results", "move that away");
        assertThat(results).exists();
        assertThat(notes).exists();
        assertThat(names()).containsExactly("old", "project");
        jmoe("bundle").refused("DIR", "jmoe bundle --help");
    }

    @Test
    void folder_isReplacedAsAWhole() throws IOException {
        Path target = folder.resolve("new/bundle");
        for (String text : List.of("first", "second")) {
            try (BundleFolder bundle = new BundleFolder(target)) {
                Files.writeString(bundle.content().resolve(BundleFolder.MARKER), text);
                assertThat(Files.exists(target)).isEqualTo(text.equals("second"));
                bundle.finish();
            }
            assertThat(target.resolve(BundleFolder.MARKER)).hasContent(text);
            assertThat(target.getParent()).isDirectoryNotContaining("glob:**/.*");
        }
    }

    @Test
    void folder_staysAsItWasAfterAFailure() throws IOException {
        Path marker = file("bundle/bundle.json", "earlier");
        Path elsewhere = file("elsewhere/kept.txt", "");
        try (BundleFolder bundle = new BundleFolder(marker.getParent())) {
            Files.createSymbolicLink(bundle.content().resolve("lib"), elsewhere.getParent());
        }
        assertThat(marker).hasContent("earlier");
        assertThat(elsewhere).exists();
        assertThat(names()).containsExactly("bundle", "elsewhere");
    }

    @Test
    void folder_mayBeEmptyOrBehindALink() throws IOException {
        Path empty = Files.createDirectory(folder.resolve("empty"));
        Path link = Files.createSymbolicLink(folder.resolve("link"), empty);
        try (BundleFolder bundle = new BundleFolder(link)) {
            Files.writeString(bundle.content().resolve(BundleFolder.MARKER), "");
            bundle.finish();
        }
        assertThat(empty.resolve(BundleFolder.MARKER)).exists();
        assertThat(link).isSymbolicLink();
    }

    /** A project as it is after a build, with libraries that hold nothing. */
    private BundleContent project() throws IOException {
        Path project = folder.resolve("project");
        jar("project/target/jmoe.jar", "jmoe/kernels/route.fatbin", "jmoe/kernels/x/y.fatbin");
        jar("project/target/lib/picocli-1.jar", "picocli/CommandLine.class");
        jar("project/target/lib/xchart-1.jar", "org/knowm/xchart/XYChart.class");
        jar(
                "project/target/lib/jcuda-natives-1-linux-x86_64.jar",
                "lib/libJCudaDriver-1-linux-x86_64.so",
                "lib/libJNvPTXCompiler-1-linux-x86_64.so");
        for (String library : List.of("junit-a", "assertj-core-1", "byte-buddy-1", "jqwik-api-1")) {
            jar("project/target/test-lib/" + library + ".jar", "A.class");
        }
        file("project/target/test-classes/jmoe/ops/KernelsContract.class", "");
        file("project/target/test-classes/jmoe/jmh_generated/Bench.class", "");
        file("project/target/native/conformance/probe_mma.fatbin", "");
        file("project/target/native/measure/measure_tma.fatbin", "");
        file("project/target/native/measure/measure_tma.kept/measure_tma.ptx", "");
        file("project/tests/golden/tensorcore/mma_sync.json", "{}");
        for (String name : List.of("config.json", "model.safetensors", "cases.safetensors")) {
            Path copy = project.resolve("tests/golden/mixtral-0").resolve(name);
            Files.createDirectories(copy.getParent());
            Files.copy(Commands.GOLDEN.resolve("mixtral-0").resolve(name), copy);
        }
        for (String own : List.of("LICENSE", "native/gpu-check", "native/bundle/jmoe")) {
            Files.createDirectories(project.resolve(own).getParent());
            Files.copy(Path.of(own), project.resolve(own));
        }
        Files.copy(
                Path.of("native/bundle/README.txt"), project.resolve("native/bundle/README.txt"));
        return new BundleContent(project);
    }

    private void jar(String name, String... entries) throws IOException {
        Path jar = folder.resolve(name);
        Files.createDirectories(jar.getParent());
        try (JarOutputStream out = new JarOutputStream(Files.newOutputStream(jar))) {
            for (String entry : entries) {
                out.putNextEntry(new ZipEntry(entry));
            }
        }
    }

    @Test
    void content_isWhatRunsOnADevice() throws IOException {
        BundleContent project = project();
        project.check();
        Path bundle = Files.createDirectory(folder.resolve("bundle"));
        assertThat(project.copyProgram(bundle)).contains("1 library", "1 file of CUDA kernels");
        assertThat(project.copyGolden(bundle)).contains("1 checkpoint");
        assertThat(project.hasSuite()).isTrue();
        assertThat(project.copySuite(bundle)).contains("1 class", "2 files of probes");
        try (Stream<Path> files = Files.walk(bundle)) {
            assertThat(files.filter(Files::isRegularFile).map(bundle::relativize))
                    .map(Path::toString)
                    .containsExactlyInAnyOrder(
                            "LICENSE",
                            "README.txt",
                            "bin/jmoe",
                            "gpu-check",
                            "jmoe.jar",
                            "lib/native/libJCudaDriver-1-linux-x86_64.so",
                            "lib/picocli-1.jar",
                            "tests/golden/mixtral-0/cases.safetensors",
                            "tests/golden/mixtral-0/config.json",
                            "tests/golden/mixtral-0/model.safetensors",
                            "tests/golden/tensorcore/mma_sync.json",
                            "tests/jmoe-tests.jar",
                            "tests/lib/assertj-core-1.jar",
                            "tests/lib/junit-a.jar");
        }
        try (JarFile suite = new JarFile(bundle.resolve(BundleContent.SUITE).toFile())) {
            assertThat(suite.stream().map(JarEntry::getName))
                    .containsExactly(
                            "jmoe/ops/KernelsContract.class",
                            "jmoe/ops/",
                            "jmoe/kernels/conformance/probe_mma.fatbin",
                            "jmoe/kernels/conformance/",
                            "jmoe/kernels/measure/measure_tma.fatbin",
                            "jmoe/kernels/measure/");
        }
        try (Safetensors cases =
                Safetensors.open(bundle.resolve("tests/golden/mixtral-0/cases.safetensors"))) {
            assertThat(cases.names()).contains("t33.x", "t33.y", "t7.y_f64", "t33.topk_ids");
            assertThat(cases.names()).noneMatch(name -> name.matches("t\\d+\\.(d|cot|aux).*"));
            assertThat(cases.metadata()).containsKey("golden");
        }
        assertThat(BundleFolder.ENTRIES).containsAll(children(bundle));
    }

    private static List<String> children(Path bundle) throws IOException {
        try (Stream<Path> entries = Files.list(bundle)) {
            return entries.map(entry -> entry.getFileName().toString()).toList();
        }
    }

    /** These need Byte Buddy, which is left out. */
    @Test
    void suite_doesNotAssumeOrAssertWhatIsLeftOut() throws IOException {
        for (String tests : List.of("cuda", "ops")) {
            try (Stream<Path> files = Files.list(Path.of("tests/jmoe", tests))) {
                for (Path file : files.toList()) {
                    assertThat(file)
                            .content()
                            .doesNotContain("core.api.Assumptions", "core.api.SoftAssertions");
                }
            }
        }
    }

    @Test
    void content_mustBeBuilt() throws IOException {
        Path project = Files.createDirectory(folder.resolve("project"));
        BundleContent content = new BundleContent(project);
        assertThat(content.hasSuite()).isFalse();
        assertThatThrownBy(content::check)
                .hasMessageContainingAll("jmoe.jar", "is missing", "mvn package");
    }

    /** jdeps knows what is used by name in the code, though not what is asked for at run time. */
    @Test
    void runtime_hasTheModulesThatAreUsed() {
        ToolProvider jdeps = ToolProvider.findFirst("jdeps").orElseThrow();
        String classPath = System.getProperty("java.class.path");
        StringWriter out = new StringWriter();
        int status =
                jdeps.run(
                        new PrintWriter(out),
                        new PrintWriter(out),
                        "--multi-release",
                        "25",
                        "--ignore-missing-deps",
                        "--print-module-deps",
                        "--no-recursive",
                        "--add-modules",
                        "jdk.incubator.vector",
                        "--class-path",
                        classPath,
                        "target/classes");
        assertThat(status).as(out.toString()).isZero();
        Set<String> used = new TreeSet<>(Arrays.asList(out.toString().strip().split(",")));
        // It only draws charts; without it, --chart is refused in a sentence.
        used.remove("java.desktop");
        assertThat(BundleRuntime.MODULES).containsAll(used);
    }

    /** The library behind exp and its like is left out. */
    @Test
    void runtime_lacksOnlyWhatIsNotUsed() throws IOException {
        Pattern transcendental =
                Pattern.compile(
                        "VectorOperators\\s*\\.\\s*(A?(SIN|COS|TAN)H?|ATAN2|EXPM?1?|LOG|POW|CBRT|HYPOT)");
        try (Stream<Path> files = Files.walk(Path.of("src/jmoe/vector"))) {
            for (Path file : files.filter(Files::isRegularFile).toList()) {
                assertThat(file).content().doesNotContainPattern(transcendental);
            }
        }
    }

    /** The launcher in a folder with a space, with a Java that tells how it was called. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    @EnabledOnOs({OS.LINUX, OS.MAC})
    void launcher_findsItsFolder(boolean throughLink) throws Exception {
        Path home = folder.toRealPath().resolve("a bundle");
        Path launcher = home.resolve("bin/jmoe");
        Files.createDirectories(launcher.getParent());
        Files.copy(Path.of("native/bundle/jmoe"), launcher);
        Path java = file("a bundle/runtime/bin/java", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n");
        Files.setPosixFilePermissions(java, PosixFilePermissions.fromString("rwxr-xr-x"));
        Path called = launcher;
        if (throughLink) {
            called = Files.createSymbolicLink(folder.resolve("jmoe"), launcher);
        }
        assertThat(lines(called, "info", "a  b"))
                .contains(
                        "-Djmoe.home=" + home,
                        "-Djava.library.path=" + home + "/lib/native",
                        home + "/jmoe.jar",
                        "jdk.incubator.vector")
                .endsWith("info", "a  b");
    }

    @Test
    @EnabledOnOs({OS.LINUX, OS.MAC})
    void launcher_saysWhenTheCopyIsNotWhole() throws Exception {
        Path launcher = folder.resolve("bin/jmoe");
        Files.createDirectories(launcher.getParent());
        Files.copy(Path.of("native/bundle/jmoe"), launcher);
        assertThat(lines(launcher, "info"))
                .singleElement()
                .asString()
                .startsWith("jmoe: ")
                .contains("runtime/bin/java cannot be run", "file permissions");
    }

    private static List<String> lines(Path launcher, String... args) throws Exception {
        ProcessBuilder builder = new ProcessBuilder("/bin/sh", launcher.toString());
        builder.command().addAll(List.of(args));
        builder.environment().keySet().removeIf(name -> !name.equals("PATH"));
        Process process = builder.redirectErrorStream(true).start();
        process.getOutputStream().close();
        List<String> lines = process.inputReader().readAllLines();
        process.waitFor();
        return lines;
    }
}
