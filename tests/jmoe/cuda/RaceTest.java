package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;

/**
 * The contract at small sizes on the race build of the emulator, which sees every memory access,
 * under ten schedules: nine that are always the same, and one whose seed is new in every run and
 * printed.
 */
final class RaceTest {
    private static final int SCHEDULES = 10;

    /** As many as the smallest machine that this is meant for has cores. */
    private static final int JVMS = 2;

    /** Several times what it takes where other tests run beside it: only what hangs is ended. */
    private static final long MINUTES = 60;

    @TempDir private Path folder;

    @Test
    void contract_holdsUnderEverySchedule() throws Exception {
        Path driver = Path.of("target/native/emulator/race/libcuda.so.1").toAbsolutePath();
        Assumptions.assumeTrue(
                Files.exists(driver), driver + " is missing; it is built where g++ and make are");
        long seed = Long.getLong("jmoe.seed", new SplittableRandom().nextLong() >>> 1);
        System.out.println("RaceTest: last schedule has -Djmoe.seed=" + seed);
        List<Schedule> schedules = Schedule.differing(SCHEDULES, seed);
        List<Process> processes = new ArrayList<>();
        for (int i = 0; i < JVMS; i++) {
            List<String> share = new ArrayList<>();
            for (int s = i; s < SCHEDULES; s += JVMS) {
                share.add(schedules.get(s).toString());
            }
            processes.add(start(driver, share, output(i)));
        }
        for (int i = 0; i < JVMS; i++) {
            boolean ended = processes.get(i).waitFor(MINUTES, TimeUnit.MINUTES);
            processes.get(i).destroyForcibly();
            String output = Files.readString(output(i));
            assertThat(ended).as("a JVM ends; it wrote: %s", output).isTrue();
            assertThat(processes.get(i).exitValue()).as(output).isZero();
            assertThat(output.lines().filter(line -> line.endsWith(" passed, 0 failed")))
                    .as(output)
                    .hasSize(SCHEDULES / JVMS);
        }
    }

    private Path output(int jvm) {
        return folder.resolve("output" + jvm + ".txt");
    }

    private static Process start(Path driver, List<String> schedules, Path output)
            throws Exception {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(
                List.of(
                        "--add-modules",
                        "jdk.incubator.vector",
                        "--enable-native-access=ALL-UNNAMED",
                        "-XX:+UseSerialGC",
                        "-Djmoe.cuda.driver=" + driver,
                        "-Djqwik.database=" + output + ".jqwik",
                        "-D" + Cases.MAX_TOKENS_PROPERTY + "=8",
                        "-cp",
                        System.getProperty("java.class.path"),
                        ContractRun.class.getName()));
        command.addAll(schedules);
        return new ProcessBuilder(command)
                .redirectErrorStream(true)
                .redirectOutput(output.toFile())
                .start();
    }
}
