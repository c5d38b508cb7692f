package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assumptions.assumeThat;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** The launcher in a project of its own, with programs that only tell how they were called. */
final class LauncherTest {
    private static final Path BASH = Path.of("/bin/bash");

    @TempDir private Path folder;
    private Path project;
    private Path programs;
    private Path empty;

    private record Outcome(int status, List<String> out, List<String> err) {}

    @BeforeEach
    void copyProject() throws IOException {
        assumeThat(BASH).isExecutable();
        folder = folder.toRealPath();
        project = Files.createDirectories(folder.resolve("the project"));
        programs = Files.createDirectory(folder.resolve("programs"));
        empty = Files.createDirectory(folder.resolve("empty"));
        Files.copy(Path.of("jmoe"), project.resolve("jmoe"));
        Files.createDirectory(project.resolve("src"));
        Files.writeString(project.resolve("src/Source.java"), "");
        Files.writeString(project.resolve("pom.xml"), "");
    }

    /** A folder like a JDK's, whose java prints its arguments. */
    private Path jdk(String folderName, String version) throws IOException {
        Path home = folder.resolve(folderName);
        program(
                Files.createDirectories(home.resolve("bin")).resolve("java"),
                "echo \"jdk " + folderName + "\"; printf '%s\\n' \"$@\"");
        Files.writeString(
                home.resolve("release"),
                "IMPLEMENTOR=\"Nobody\"\nJAVA_VERSION=\"" + version + "\"\n");
        return home;
    }

    private static void program(Path file, String body) throws IOException {
        Files.writeString(file, "#!" + BASH + "\n" + body + "\n");
        Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rwxr-xr-x"));
    }

    /** Programs of this machine; the launcher is given no others. */
    private void allow(String... names) throws IOException {
        for (String name : names) {
            Path found =
                    Stream.of("/usr/bin", "/bin")
                            .map(bin -> Path.of(bin, name))
                            .filter(Files::isExecutable)
                            .findFirst()
                            .orElseThrow();
            program(programs.resolve(name), "exec " + found + " \"$@\"");
        }
    }

    private void built() throws IOException {
        Files.createDirectories(project.resolve("target/lib"));
        Files.writeString(project.resolve("target/jmoe.jar"), "");
        FileTime past = FileTime.fromMillis(System.currentTimeMillis() - 100_000);
        for (String source : List.of("src/Source.java", "src", "pom.xml")) {
            Files.setLastModifiedTime(project.resolve(source), past);
        }
    }

    /** A build that takes a moment and leaves a trace. */
    private void maven(String last) throws IOException {
        allow("mkdir", "sleep", "mv", "rm", "cat", "tail", "find", "ln", "readlink");
        program(
                programs.resolve("mvn"),
                "echo \"$@\" >>'" + folder + "/builds'; sleep 1; mkdir -p target/lib;" + last);
    }

    private Process start(Path script, Map<String, String> environment, String... args)
            throws IOException {
        List<String> command = new ArrayList<>(List.of(BASH.toString(), script.toString()));
        command.addAll(List.of(args));
        ProcessBuilder builder = new ProcessBuilder(command).directory(empty.toFile());
        builder.environment().clear();
        builder.environment().put("PATH", programs.toString());
        builder.environment().put("HOME", empty.toString());
        builder.environment().put("JMOE_JVM_FOLDERS", empty.toString());
        builder.environment().putAll(environment);
        return builder.start();
    }

    private static Outcome finish(Process process) throws Exception {
        process.getOutputStream().close();
        List<String> out = process.inputReader().readAllLines();
        List<String> err = process.errorReader().readAllLines();
        assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
        return new Outcome(process.exitValue(), out, err);
    }

    private Outcome launch(Map<String, String> environment, String... args) throws Exception {
        return finish(start(project.resolve("jmoe"), environment, args));
    }

    @Test
    void jdk_missingGivesOneSentence() throws Exception {
        Outcome outcome = launch(Map.of(), "info");
        assertThat(outcome.status()).isEqualTo(2);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.err()).hasSize(1);
        assertThat(outcome.err().getFirst())
                .startsWith("jmoe: ")
                .contains("JDK 25", "install", "JAVA_HOME");
    }

    @Test
    void jdk_olderOnesAreNotTaken() throws Exception {
        Path old = jdk("jvms/old", "17.0.15");
        Path ancient = jdk("jvms/ancient", "1.8.0_402");
        for (Path home : List.of(old, ancient)) {
            Map<String, String> environment =
                    Map.of(
                            "JAVA_HOME", home.toString(),
                            "PATH", home.resolve("bin").toString(),
                            "JMOE_JVM_FOLDERS", folder.resolve("jvms").toString());
            assertThat(launch(environment, "info").status()).isEqualTo(2);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "C", "POSIX"})
    void locale_ofAsciiBecomesUtf8(String locale) throws Exception {
        built();
        allow("find", "readlink");
        Path home = jdk("home", "25");
        program(home.resolve("bin/java"), "echo \"${LC_ALL-} ${LANG-}\"");
        String java = home.toString();
        assertThat(launch(Map.of("JAVA_HOME", java, "LANG", locale), "info").out())
                .containsExactly("C.UTF-8 " + locale);
        assertThat(launch(Map.of("JAVA_HOME", java, "LC_ALL", locale), "info").out())
                .containsExactly("C.UTF-8 ");
        assertThat(launch(Map.of("JAVA_HOME", java, "LANG", "C.utf8"), "info").out())
                .containsExactly(" C.utf8");
    }

    @Test
    void jdk_isFoundInJavaHomeThenOnPathThenInFolders() throws Exception {
        built();
        allow("find", "readlink");
        Path home = jdk("home", "25");
        Path path = jdk("path", "26-ea");
        jdk("jvms/a", "21.0.1");
        jdk("jvms/b", "25.0.3");
        Files.createSymbolicLink(programs.resolve("java"), path.resolve("bin/java"));
        Map<String, String> environment = new TreeMap<>();
        environment.put("JMOE_JVM_FOLDERS", empty + ":" + folder.resolve("jvms"));
        environment.put("JAVA_HOME", home.toString());
        assertThat(launch(environment).out().getFirst()).isEqualTo("jdk home");
        environment.put("JAVA_HOME", folder.resolve("jvms/a").toString());
        assertThat(launch(environment).out().getFirst()).isEqualTo("jdk path");
        Files.delete(programs.resolve("java"));
        assertThat(launch(environment).out().getFirst()).isEqualTo("jdk jvms/b");
    }

    /** A project whose native/make does what the body says. */
    private Map<String, String> emulating(String body) throws IOException {
        built();
        allow("find", "mkdir", "cat");
        Path make = Files.createDirectories(project.resolve("native")).resolve("make");
        program(make, body);
        Files.setLastModifiedTime(make, FileTime.fromMillis(0));
        Files.setLastModifiedTime(make.getParent(), FileTime.fromMillis(0));
        return Map.of("JAVA_HOME", jdk("home", "25").toString());
    }

    @ParameterizedTest
    @ValueSource(strings = {"--emulate", "--emulate=fast", "--emulate=race"})
    void emulate_buildsTheDriverAndPassesItOn(String option) throws Exception {
        String build = option.endsWith("race") ? "race" : "fast";
        Path library = project.resolve("target/native/emulator/" + build + "/libcuda.so.1");
        Map<String, String> environment =
                emulating(
                        "echo made $1; mkdir -p '"
                                + library.getParent()
                                + "'; cat /dev/null >'"
                                + library
                                + "'");
        Outcome outcome = launch(environment, option, "verify", "--backend", "cuda");
        assertThat(outcome.status()).isZero();
        assertThat(outcome.out()).contains("-Djmoe.cuda.driver=" + library, "verify");
        assertThat(outcome.out()).doesNotContain(option, "made emulator");
        assertThat(outcome.err())
                .containsExactly(
                        "jmoe: building the emulated CUDA driver (first run) ...", "made emulator");
    }

    @Test
    void emulate_thatCannotBeBuiltIsRefused() throws Exception {
        Outcome broken = launch(emulating("exit 1"), "--emulate", "info");
        assertThat(broken.status()).isEqualTo(2);
        assertThat(broken.out()).isEmpty();
        assertThat(broken.err().getLast()).contains("did not build");
        Outcome missing = launch(emulating("exit 0"), "--emulate", "info");
        assertThat(missing.status()).isEqualTo(2);
        assertThat(missing.err().getLast()).contains("needs g++ and make");
        Outcome unknown = launch(emulating("exit 0"), "--emulate=slow", "info");
        assertThat(unknown.status()).isEqualTo(2);
        assertThat(unknown.err())
                .containsExactly("jmoe: --emulate: expected fast or race, got slow");
    }

    @Test
    void java_getsFlagsAndArgumentsAsTheyAre() throws Exception {
        built();
        allow("find");
        Map<String, String> environment =
                Map.of(
                        "JAVA_HOME",
                        jdk("home", "25.0.3").toString(),
                        "JMOE_JAVA_OPTS",
                        "-Xmx1g -Dmore=yes");
        Outcome outcome = launch(environment, "run", "a b", "", "*", "--x=$y");
        assertThat(outcome.err()).isEmpty();
        assertThat(outcome.out())
                .containsSubsequence(
                        "--add-modules",
                        "jdk.incubator.vector",
                        "--enable-native-access=ALL-UNNAMED",
                        "-Djmoe.home=" + project,
                        "-Xmx1g",
                        "-Dmore=yes",
                        "-jar",
                        project.resolve("target/jmoe.jar").toString(),
                        "run",
                        "a b",
                        "",
                        "*",
                        "--x=$y")
                .contains("-Djmoe.tty.out=false", "-Djmoe.tty.err=false");
    }

    @Test
    void launcher_worksThroughSymbolicLinks() throws Exception {
        built();
        allow("find", "readlink");
        Path first = folder.resolve("empty/first");
        Path second = programs.resolve("second");
        Files.createSymbolicLink(first, Path.of("../the project/jmoe"));
        Files.createSymbolicLink(second, first);
        Map<String, String> environment = Map.of("JAVA_HOME", jdk("home", "25").toString());
        for (Path link : List.of(first, second)) {
            assertThat(finish(start(link, environment)).out()).contains("-Djmoe.home=" + project);
        }
    }

    @Test
    void build_runsWhenTheJarIsMissingOrStale() throws Exception {
        maven("echo >target/jmoe.jar");
        Map<String, String> environment = Map.of("JAVA_HOME", jdk("home", "25").toString());
        Outcome first = launch(environment);
        assertThat(first.status()).isZero();
        assertThat(first.err())
                .containsExactly("jmoe: building (first run or sources changed) ...");
        assertThat(launch(environment).err()).isEmpty();
        assertThat(builds()).hasSize(1);
        assertThat(builds().getFirst()).endsWith("package");

        Files.setLastModifiedTime(
                project.resolve("src/Source.java"),
                FileTime.fromMillis(System.currentTimeMillis() + 2_000));
        assertThat(launch(environment).err()).hasSize(1);
        assertThat(builds()).hasSize(2);
    }

    private List<String> builds() throws IOException {
        return Files.readAllLines(folder.resolve("builds"));
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void build_happensOnceForSeveralLaunchers(boolean withFlock) throws Exception {
        maven("echo >target/jmoe.jar");
        if (withFlock) {
            assumeThat(Path.of("/usr/bin/flock")).isExecutable();
            allow("flock");
        }
        Map<String, String> environment = Map.of("JAVA_HOME", jdk("home", "25").toString());
        List<Process> processes = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            processes.add(start(project.resolve("jmoe"), environment, "info"));
        }
        for (Process process : processes) {
            Outcome outcome = finish(process);
            assertThat(outcome.status()).isZero();
            assertThat(outcome.out()).endsWith("info");
        }
        assertThat(builds()).hasSize(1);
        assertThat(project.resolve("target/jmoe.lock.owner")).doesNotExist();
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void build_isWaitedForThoughTheJarIsThere(boolean withFlock) throws Exception {
        maven("echo half >target/jmoe.jar; sleep 1; echo whole >target/jmoe.jar");
        if (withFlock) {
            assumeThat(Path.of("/usr/bin/flock")).isExecutable();
            allow("flock");
        }
        Path home = jdk("home", "25");
        program(home.resolve("bin/java"), "cat '" + project + "/target/jmoe.jar'");
        Map<String, String> environment = Map.of("JAVA_HOME", home.toString());
        Process first = start(project.resolve("jmoe"), environment);
        while (!Files.exists(project.resolve("target/jmoe.jar"))) {
            Thread.sleep(10);
        }
        assertThat(launch(environment).out()).containsExactly("whole");
        assertThat(finish(first).out()).containsExactly("whole");
        assertThat(builds()).hasSize(1);
    }

    @Test
    void build_thatWasCutOffIsDoneAgain() throws Exception {
        maven("echo >target/jmoe.jar");
        built();
        Map<String, String> environment = Map.of("JAVA_HOME", jdk("home", "25").toString());
        assertThat(launch(environment).err()).isEmpty();
        Files.writeString(project.resolve("target/jmoe.stamp.new"), "");
        assertThat(launch(environment).err()).hasSize(1);
        assertThat(launch(environment).err()).isEmpty();
        assertThat(builds()).hasSize(1);
    }

    @Test
    void lock_ofADeadOwnerIsBrokenOnce() throws Exception {
        maven("echo >target/jmoe.jar");
        Path lock = Files.createDirectory(project.resolve("target")).resolve("jmoe.lock.owner");
        Process dead = new ProcessBuilder(BASH.toString(), "-c", ":").start();
        dead.waitFor();
        Files.createSymbolicLink(lock, Path.of(Long.toString(dead.pid())));
        Map<String, String> environment = Map.of("JAVA_HOME", jdk("home", "25").toString());
        List<Process> processes = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            processes.add(start(project.resolve("jmoe"), environment));
        }
        for (Process process : processes) {
            assertThat(finish(process).status()).isZero();
        }
        assertThat(builds()).hasSize(1);
        assertThat(Files.exists(lock, LinkOption.NOFOLLOW_LINKS)).isFalse();
    }

    @Test
    void lock_thatCannotBeTakenIsNotWaitedForForever() throws Exception {
        maven("echo >target/jmoe.jar");
        program(programs.resolve("sleep"), "");
        Files.createDirectories(project.resolve("target/jmoe.lock.owner"));
        program(programs.resolve("ln"), "exit 1");
        Outcome outcome = launch(Map.of("JAVA_HOME", jdk("home", "25").toString()));
        assertThat(outcome.status()).isEqualTo(2);
        assertThat(outcome.err()).hasSize(1);
        assertThat(outcome.err().getFirst()).startsWith("jmoe: cannot lock").contains("remove");
    }

    @Test
    void build_failureShowsTheLog() throws Exception {
        maven("echo the reason; exit 1");
        Outcome outcome = launch(Map.of("JAVA_HOME", jdk("home", "25").toString()));
        assertThat(outcome.status()).isEqualTo(2);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.err()).contains("the reason");
        assertThat(outcome.err().getLast()).startsWith("jmoe: the build failed");
        assertThat(project.resolve("target/jmoe.lock.owner")).doesNotExist();
    }

    @Test
    void build_withoutMavenGivesOneSentence() throws Exception {
        Map<String, String> environment = Map.of("JAVA_HOME", jdk("home", "25").toString());
        Outcome outcome = launch(environment);
        assertThat(outcome.status()).isEqualTo(2);
        assertThat(outcome.err()).hasSize(1);
        assertThat(outcome.err().getFirst()).startsWith("jmoe: ").contains("mvn", "install Maven");
    }
}
