package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assumptions.assumeThat;

import jmoe.ops.Kernels;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

final class BackendTest {
    /** The fastest that runs on this machine's CPU. */
    private static final Backend FASTEST =
            Backend.NATIVE.unavailable().isEmpty() ? Backend.NATIVE : Backend.VECTOR;

    private static final List<String> FLAGS =
            List.of("--add-modules", "jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED");

    @Test
    void choose_takesTheFastestAndNamesReasonAndRemedyOfTheOthers() {
        Backend.Choice choice = Backend.choose(null);
        assertThat(choice.backend()).isEqualTo(FASTEST);
        assertThat(choice.why())
                .startsWith("the fastest that runs here")
                .contains("not cuda: ")
                .doesNotContain("\n");
        assertThat(choice.why().contains("not native: ")).isEqualTo(FASTEST == Backend.VECTOR);
    }

    @Test
    void choose_mayOnlyBeLowered() {
        assertThat(Backend.choose("reference").backend()).isEqualTo(Backend.REFERENCE);
        assertThat(Backend.choose("reference").why()).contains("-Djmoe.backend=reference");
        assertThat(Backend.choose("cuda").backend()).isEqualTo(FASTEST);
        assertThat(Backend.choose("vector").backend()).isEqualTo(Backend.VECTOR);
        assertThatThrownBy(() -> Backend.choose("gpu"))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("backend: expected reference, vector, native or cuda, got gpu");
    }

    @Test
    void open_ofAMissingBackendSaysWhyAndWhatToDo(@TempDir Path folder) throws Exception {
        Path program = folder.resolve("Open.java");
        Files.writeString(
                program,
                """
                void main() {
                    System.out.println(jmoe.Backend.best());
                    System.out.println(jmoe.Backend.NATIVE.description());
                    try {
                        jmoe.Backend.NATIVE.open();
                    } catch (UnsupportedOperationException e) {
                        System.out.println(e.getMessage());
                    }
                }
                """);
        List<String> options = new ArrayList<>(FLAGS);
        options.add("-Djmoe.native.library=/nowhere/libjmoe_cpu.so");
        assertThat(java(options, program))
                .contains("VECTOR\nnative\n")
                .contains("not native: the library /nowhere/libjmoe_cpu.so cannot be loaded")
                .contains("(correct -Djmoe.native.library)")
                .contains(
                        "backend native: the library /nowhere/libjmoe_cpu.so cannot be loaded;"
                                + " correct -Djmoe.native.library, or take the backend vector");
    }

    @Test
    void unavailable_whereJavaAllowsNoNativeLibrariesSaysHowToAllowThem(@TempDir Path folder)
            throws Exception {
        assumeThat(Backend.NATIVE.unavailable()).isEmpty();
        Path program = folder.resolve("Denied.java");
        Files.writeString(
                program, "void main() { IO.println(jmoe.Backend.NATIVE.unavailable().get()); }");
        List<String> options = new ArrayList<>(FLAGS.subList(0, 2));
        options.add("--illegal-native-access=deny");
        assertThat(java(options, program))
                .contains("java does not allow native libraries")
                .contains("start java with --enable-native-access=ALL-UNNAMED");
    }

    /** The tier of the native backend may be lowered; what cannot be is refused with words. */
    @Test
    void best_goesByTheTierOfTheNativeBackend(@TempDir Path folder) throws Exception {
        assumeThat(Backend.NATIVE.unavailable()).isEmpty();
        Path program = folder.resolve("Tier.java");
        Files.writeString(
                program,
                """
                void main() {
                    try {
                        System.out.println(jmoe.Backend.best().description(3));
                        jmoe.Backend.NATIVE.notes().forEach(System.out::println);
                    } catch (IllegalArgumentException e) {
                        System.out.println(e.getMessage());
                    }
                }
                """);
        List<String> options = new ArrayList<>(FLAGS);
        options.add("-Djmoe.native.tier=avx2");
        assertThat(java(options, program)).contains("native (AVX2, 3 threads)\n", "no AVX-512: ");
        options.set(options.size() - 1, "-Djmoe.native.tier=sse");
        assertThat(java(options, program))
                .contains("jmoe.native.tier: expected avx2, avx512 or amx, got sse\n");
    }

    @Test
    void open_needsAThread() {
        assertThatThrownBy(() -> Backend.VECTOR.open(0))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("threads: expected at least 1, got 0");
    }

    @Test
    void open_givesKernelsThatCloseTwice() {
        for (Backend backend : Backend.values()) {
            if (backend.unavailable().isPresent()) {
                continue;
            }
            Kernels kernels = backend.open();
            kernels.close();
            kernels.close();
        }
    }

    /** The emulator is there for those who ask for it by name. */
    @Test
    void choose_neverTakesAnEmulatedDriver() {
        assumeThat(Backend.CUDA.unavailable()).isEmpty();
        assertThat(Backend.CUDA.description()).contains("emulator", "times mean nothing");
        assertThat(Backend.choose(null).backend()).isEqualTo(FASTEST);
        assertThat(Backend.choose(null).why())
                .contains("not cuda: its driver is an emulator, for tests (it runs if asked for");
    }

    @Test
    void best_withoutADriverSaysSoInItsOneLine(@TempDir Path folder) throws Exception {
        Path program = folder.resolve("Best.java");
        Files.writeString(program, "void main() { jmoe.Backend.best(); }");
        List<String> options = new ArrayList<>(FLAGS);
        options.add("-Djmoe.cuda.driver=/nowhere/libcuda.so.1");
        String output = java(options, program);
        assertThat(output.split("jmoe: backend " + FASTEST.id(), -1)).as(output).hasSize(2);
        assertThat(output)
                .contains("not cuda: the driver library /nowhere/libcuda.so.1 cannot be loaded")
                .contains("(correct -Djmoe.cuda.driver)");
    }

    /** A JVM of its own, because the decision is made once per JVM. */
    @Test
    void best_withoutTheVectorModuleFallsBackWithOneLine(@TempDir Path folder) throws Exception {
        Path program = folder.resolve("Twice.java");
        Files.writeString(
                program,
                """
                void main() {
                    System.out.println(jmoe.Backend.best() + " " + jmoe.Backend.best());
                }
                """);
        String output = java(List.of(), program);
        assertThat(output).contains("REFERENCE REFERENCE");
        assertThat(output.split("jmoe: backend", -1)).as(output).hasSize(2);
        assertThat(output)
                .contains("jmoe: backend reference")
                .contains("the Vector API module is not loaded")
                .contains("start java with --add-modules jdk.incubator.vector");
    }

    @Test
    void best_withAWrongLimitSaysSoEachTime(@TempDir Path folder) throws Exception {
        Path program = folder.resolve("Wrong.java");
        Files.writeString(
                program,
                """
                void main() {
                    for (int i = 0; i < 2; i++) {
                        try {
                            jmoe.Backend.best();
                        } catch (IllegalArgumentException e) {
                            System.out.println(e.getMessage());
                        }
                    }
                    System.out.println(jmoe.Backend.VECTOR.description());
                }
                """);
        String message = "backend: expected reference, vector, native or cuda, got gpu\n";
        assertThat(java(List.of("-Djmoe.backend=gpu"), program))
                .contains(message + message + "vector\n");
    }

    private static String java(List<String> options, Path program)
            throws IOException, InterruptedException {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(options);
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), program.toString()));
        Path output = Files.createTempFile(program.getParent(), "output", ".txt");
        Process process =
                new ProcessBuilder(command)
                        .redirectErrorStream(true)
                        .redirectOutput(output.toFile())
                        .start();
        assertThat(process.waitFor(2, TimeUnit.MINUTES)).as("the JVM ends").isTrue();
        return Files.readString(output, StandardCharsets.UTF_8);
    }
}
