package jmoe.cli;

import static jmoe.cli.Commands.GOLDEN;
import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.Safetensors;
import jmoe.checkpoint.SafetensorsWriter;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SequencedMap;

/** Inputs with which nothing can be computed. */
final class NotFiniteTest {
    @TempDir private Path folder;

    private Path input(long tokens, double value) {
        Path file = folder.resolve("x.safetensors");
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Tensor.allocate(arena, DType.F32, tokens, 44);
            for (long i = 3; i < x.numElements(); i++) {
                x.setDouble(i, value);
            }
            SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
            tensors.put("x", x);
            SafetensorsWriter.write(file, tensors, Map.of());
        }
        return file;
    }

    private static Commands.Outcome run(Path input, Object... more) {
        Object[] args = new Object[4 + more.length];
        args[0] = "run";
        args[1] = GOLDEN.resolve("mixtral-0");
        args[2] = "--input";
        args[3] = input;
        System.arraycopy(more, 0, args, 4, more.length);
        return jmoe(args);
    }

    @Test
    void report_countsWhatIsNotFinite() {
        Path input = input(5, Double.NaN);
        Commands.Outcome outcome = run(input, "--check");
        assertThat(outcome.status()).isZero();
        assertThat(outcome.out())
                .contains("y: 220 of 220 values are not finite")
                .contains("input: NaN at token 0, column 3")
                .containsPattern("y +0 .* ok, 220 not finite");
        assertThat(outcome.err())
                .isEqualToIgnoringNewLines(
                        "jmoe: note: y: 220 of 220 values are not finite;"
                                + " the input has NaN at token 0, column 3");
        assertThat(run(input, "--json").out()).contains("\"not_finite\": 220");
    }

    @Test
    void report_saysThatThereAreNoTokens() {
        Commands.Outcome outcome = run(input(0, 1), "--check").succeeded();
        assertThat(outcome.out())
                .contains("no tokens: nothing to compare")
                .doesNotContain("tolerance");
    }

    @Test
    void copy_seesAFileThatShrinks() throws IOException {
        Path file = input(5000, 1);
        long bytes = Files.size(file);
        try (Arena arena = Arena.ofConfined();
                Safetensors open = Safetensors.open(file)) {
            Tensor stored = open.tensor("x");
            try (RandomAccessFile cut = new RandomAccessFile(file.toFile(), "rw")) {
                cut.setLength(8192);
            }
            assertThatThrownBy(() -> InputTensor.copy(file, bytes, stored, arena))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage(file + ": changed while jmoe was reading it; run again");
        }
    }

    @Test
    void checkpoint_withoutWeightsSaysSo() throws IOException {
        Path golden = GOLDEN.resolve("mixtral-0");
        for (String name : new String[] {"config.json", "cases.safetensors"}) {
            Files.copy(golden.resolve(name), folder.resolve(name));
        }
        String cases = golden.resolve("cases.safetensors") + ":t7.x";
        jmoe("run", folder, "--input", cases)
                .refused(
                        folder
                                + ": has no model.safetensors or model.safetensors.index.json, and"
                                + " cases.safetensors does not look like a model; fetch the"
                                + " weights");
        Files.copy(golden.resolve("model.safetensors"), folder.resolve("w.safetensors"));
        Files.delete(folder.resolve("cases.safetensors"));
        jmoe("run", folder, "--input", cases).succeeded();
    }
}
