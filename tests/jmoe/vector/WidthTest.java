package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Every width of vectors, whatever the machine's own is: the contract and the golden data. */
final class WidthTest {
    @TempDir private Path folder;

    @ParameterizedTest
    @ValueSource(ints = {128, 256, 512})
    void contract_holdsOnVectorsOf(int bits) throws Exception {
        Assumptions.assumeTrue(
                bits != Lanes.FLOATS.vectorBitSize(), bits + " is tested in this JVM");
        assertThat(run(bits, WidthRun.class.getName()))
                .contains(bits + " bits: ")
                .contains(" passed, 0 failed");
    }

    @ParameterizedTest
    @ValueSource(ints = {128, 256, 512})
    void goldenData_isReachedOnVectorsOf(int bits) throws Exception {
        Assumptions.assumeTrue(
                bits != Lanes.FLOATS.vectorBitSize(), bits + " is tested in this JVM");
        assertThat(run(bits, "jmoe.cli.Main", "verify", "--backend", "vector"))
                .contains(bits + "-bit vectors")
                .contains("all within tolerance");
    }

    private String run(int bits, String... program) throws Exception {
        Path output = folder.resolve("output.txt");
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(
                List.of(
                        "--add-modules",
                        "jdk.incubator.vector",
                        "--enable-native-access=ALL-UNNAMED",
                        "-D" + Lanes.BITS_PROPERTY + "=" + bits,
                        "-Djqwik.database=" + output + ".jqwik",
                        "-cp",
                        System.getProperty("java.class.path")));
        command.addAll(List.of(program));
        Process process =
                new ProcessBuilder(command)
                        .redirectErrorStream(true)
                        .redirectOutput(output.toFile())
                        .start();
        boolean ended = process.waitFor(15, TimeUnit.MINUTES);
        process.destroyForcibly();
        String text = Files.readString(output);
        assertThat(ended).as("the JVM ends; it wrote: %s", text).isTrue();
        assertThat(process.exitValue()).as(text).isZero();
        return text;
    }
}
