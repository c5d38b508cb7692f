package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.DynamicContainer;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/**
 * The check programs of native/emulator/tests, in the fast and the race build: what the emulator
 * does with each instruction, each sentence of the PTX manual that it depends on, each mistake
 * planted to be caught, and each kernel against plain loops. Every line that a program prints is a
 * test.
 */
final class EmulatorTest {
    private static final Path PROGRAMS = Path.of("target/native/emulator");

    /** A program that ran: its lines, and how it ended. */
    private record Outcome(Path program, int status, List<String> lines) {}

    @TestFactory
    Stream<DynamicContainer> checkPrograms() throws Exception {
        assumeTrue(
                Files.exists(PROGRAMS.resolve("race/libcuda.so.1")),
                "the emulator is built where g++ and make are");
        build();
        List<Future<Outcome>> running = new ArrayList<>();
        int cores = Runtime.getRuntime().availableProcessors();
        try (ExecutorService executor = Executors.newFixedThreadPool(cores)) {
            for (String build : List.of("race", "fast")) {
                for (Path program : programs(build)) {
                    running.add(executor.submit(() -> run(program)));
                }
            }
        }
        List<DynamicContainer> containers = new ArrayList<>();
        for (Future<Outcome> outcome : running) {
            containers.add(container(outcome.get()));
        }
        return containers.stream();
    }

    private static void build() throws Exception {
        Path log = Files.createTempFile("jmoe-check-programs", ".log");
        Process make =
                new ProcessBuilder("native/make", "check-programs")
                        .redirectErrorStream(true)
                        .redirectOutput(log.toFile())
                        .start();
        assertThat(make.waitFor()).as(Files.readString(log)).isZero();
        Files.delete(log);
    }

    private static List<Path> programs(String build) throws IOException {
        List<Path> programs = new ArrayList<>();
        try (Stream<Path> sources = Files.list(Path.of("native/emulator/tests"))) {
            for (Path source : sources.sorted().toList()) {
                String name = source.getFileName().toString();
                if (name.endsWith(".cpp")) {
                    programs.add(PROGRAMS.resolve(build + "/check/" + name.replace(".cpp", "")));
                }
            }
        }
        assertThat(programs).hasSizeGreaterThan(20);
        return programs;
    }

    private static Outcome run(Path program) throws IOException, InterruptedException {
        Path output = Path.of(program + ".log");
        Process process =
                new ProcessBuilder(program.toAbsolutePath().toString())
                        .redirectErrorStream(true)
                        .redirectOutput(output.toFile())
                        .start();
        if (!process.waitFor(10, TimeUnit.MINUTES)) {
            process.destroyForcibly().waitFor();
        }
        return new Outcome(program, process.exitValue(), Files.readAllLines(output));
    }

    private static DynamicContainer container(Outcome outcome) {
        String name =
                outcome.program.getParent().getParent().getFileName()
                        + " "
                        + outcome.program.getFileName();
        List<DynamicTest> tests = new ArrayList<>();
        for (String line : outcome.lines) {
            if (line.startsWith("ok ") || line.startsWith("FAILED ")) {
                tests.add(
                        DynamicTest.dynamicTest(
                                name + " " + line.replaceFirst("^(ok|FAILED) ", ""),
                                () -> {
                                    if (!line.startsWith("ok ")) {
                                        fail(line);
                                    }
                                }));
            }
        }
        tests.add(
                DynamicTest.dynamicTest(
                        name + " ends well",
                        () -> assertThat(outcome.status).as("%s", outcome.lines).isZero()));
        return DynamicContainer.dynamicContainer(name, tests);
    }
}
