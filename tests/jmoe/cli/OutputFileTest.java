package jmoe.cli;

import static jmoe.cli.Commands.GOLDEN;
import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

final class OutputFileTest {
    @TempDir private Path folder;
    private Path checkpoint;
    private Path cases;

    @BeforeEach
    void copy() throws IOException {
        checkpoint = Files.createDirectory(folder.resolve("checkpoint"));
        Path golden = GOLDEN.resolve("ernie4_5_vl_moe-0");
        for (String name : new String[] {"config.json", "model.safetensors"}) {
            Files.copy(golden.resolve(name), checkpoint.resolve(name));
        }
        Files.writeString(checkpoint.resolve("tokenizer.json"), "{}");
        cases =
                Files.copy(
                        golden.resolve("cases.safetensors"), folder.resolve("cases.safetensors"));
    }

    private Commands.Outcome run(Path types, Path output) {
        return jmoe(
                "run",
                checkpoint,
                "--layer",
                0,
                "--input",
                cases + ":t7.x",
                "--token-types",
                types + ":t7.token_types",
                "--output",
                output);
    }

    @ParameterizedTest
    @ValueSource(strings = {"config.json", "model.safetensors", "tokenizer.json"})
    void check_keepsTheCheckpoint(String name) throws IOException {
        Path file = checkpoint.resolve(name);
        byte[] before = Files.readAllBytes(file);
        run(cases, file)
                .refused(
                        "--output: "
                                + file
                                + " belongs to the checkpoint; name another file"
                                + System.lineSeparator());
        Path link = Files.createSymbolicLink(folder.resolve("link"), file);
        run(cases, link).refused("--output: " + link + " belongs to the checkpoint");
        assertThat(file).hasBinaryContent(before);
    }

    @Test
    void check_keepsTheInputs() throws IOException {
        byte[] before = Files.readAllBytes(cases);
        Path types = Files.copy(cases, folder.resolve("types.safetensors"));
        Path link = Files.createSymbolicLink(folder.resolve("link.safetensors"), cases);
        run(types, cases).refused("--output: " + cases + " is the input; name another file");
        run(types, link).refused("--output: " + link + " is the input");
        run(types, types).refused("--output: " + types + " is the file of --token-types");
        assertThat(cases).hasBinaryContent(before);
        assertThat(types).hasBinaryContent(before);
    }

    @Test
    void check_addsNothingThatChangesTheCheckpoint() throws IOException {
        // What an earlier run wrote may be replaced, also beside the weights.
        run(cases, checkpoint.resolve("result.safetensors")).succeeded();
        run(cases, checkpoint.resolve("result.safetensors")).succeeded();
        Files.delete(checkpoint.resolve("result.safetensors"));
        Path index = checkpoint.resolve("model.safetensors.index.json");
        run(cases, index).refused("would become part of the checkpoint");
        Files.move(checkpoint.resolve("model.safetensors"), checkpoint.resolve("w.safetensors"));
        run(cases, checkpoint.resolve("y.safetensors")).refused("would become part");
        run(cases, checkpoint.resolve("y.out")).succeeded();
        run(cases, folder.resolve("y.safetensors")).succeeded();
        run(cases, folder.resolve("y.safetensors")).succeeded();
    }

    @Test
    void check_triesTheFolder() {
        Path proc = Path.of("/proc");
        org.assertj.core.api.Assumptions.assumeThat(proc).isDirectory();
        jmoe(
                        "run",
                        checkpoint,
                        "--layer",
                        0,
                        "--input",
                        "nothing.safetensors",
                        "--output",
                        proc.resolve("y.safetensors"))
                .refused("/proc/y.safetensors: cannot be written");
    }
}
