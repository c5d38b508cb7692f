package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.MemoryLayout.PathElement.groupElement;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** The driver's structures as this class and as cuda.h have them. */
final class LayoutTest {
    private static final List<String> CONFIG_FIELDS =
            List.of(
                    "gridDimX",
                    "gridDimY",
                    "gridDimZ",
                    "blockDimX",
                    "blockDimY",
                    "blockDimZ",
                    "sharedMemBytes",
                    "hStream",
                    "attrs",
                    "numAttrs");

    /** In the order of the program below. */
    private static List<Long> ours() {
        List<Long> numbers = new ArrayList<>();
        numbers.add(LaunchConfig.LAYOUT.byteSize());
        for (String field : CONFIG_FIELDS) {
            numbers.add(LaunchConfig.LAYOUT.byteOffset(groupElement(field)));
        }
        numbers.add(LaunchConfig.ATTRIBUTE.byteSize());
        numbers.add(LaunchConfig.ATTRIBUTE.byteOffset(groupElement("id")));
        numbers.add(LaunchConfig.ATTRIBUTE.byteOffset(groupElement("value")));
        numbers.add(TensorMap.BYTES);
        return numbers;
    }

    @Test
    void structures_haveTheSizesOfCuda13() {
        assertThat(ours())
                .containsExactly(
                        56L, 0L, 4L, 8L, 12L, 16L, 20L, 24L, 32L, 40L, 48L, 72L, 0L, 8L, 128L);
        assertThat(RouteRule.BYTES).isEqualTo(88);
    }

    @Test
    void structures_areThoseOfTheHeader(@TempDir Path folder) throws Exception {
        StringBuilder source = new StringBuilder("#include <cuda.h>\n#include <stdio.h>\n");
        source.append("#include <stddef.h>\nint main() {\n");
        print(source, "sizeof(CUlaunchConfig)");
        for (String field : CONFIG_FIELDS) {
            print(source, "offsetof(CUlaunchConfig, " + field + ")");
        }
        print(source, "sizeof(CUlaunchAttribute)");
        print(source, "offsetof(CUlaunchAttribute, id)");
        print(source, "offsetof(CUlaunchAttribute, value)");
        print(source, "sizeof(CUtensorMap)");
        source.append("return 0;\n}\n");
        Path program = folder.resolve("layout.cpp");
        Files.writeString(program, source);
        Path binary = folder.resolve("layout");
        Assumptions.assumeTrue(nvccExists(), "nvcc is not on the PATH");
        run("nvcc", "-o", binary.toString(), program.toString());
        assertThat(run(binary.toString())).isEqualTo(ours().stream().map(String::valueOf).toList());
    }

    private static void print(StringBuilder source, String expression) {
        source.append("printf(\"%zu\\n\", (size_t)").append(expression).append(");\n");
    }

    private static boolean nvccExists() {
        for (String folder : System.getenv().getOrDefault("PATH", "").split(":", -1)) {
            if (Files.isExecutable(Path.of(folder, "nvcc"))) {
                return true;
            }
        }
        return false;
    }

    private static List<String> run(String... command) throws IOException, InterruptedException {
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        List<String> lines = process.inputReader().readAllLines();
        assertThat(process.waitFor(2, TimeUnit.MINUTES)).isTrue();
        assertThat(process.exitValue()).as("%s", lines).isZero();
        return lines;
    }
}
