package jmoe.cli;

import static jmoe.cli.Commands.GOLDEN;
import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.checkpoint.Safetensors;
import jmoe.checkpoint.SafetensorsWriter;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import tools.jackson.databind.JsonNode;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;

final class VerifyTest {
    @TempDir private Path folder;

    @Test
    void verify_findsEveryGoldenCheckpointRight() {
        Commands.Outcome outcome = jmoe("verify").succeeded();
        assertThat(outcome.out()).contains("43 checkpoints x 3 weight types: all within tolerance");
        assertThat(outcome.out().lines()).allMatch(line -> line.length() <= 80);
    }

    @Test
    void verify_reportsJson() throws IOException {
        copy("phimoe-1");
        JsonNode json =
                jmoe("verify", "--golden", folder, "--backend", "reference", "--json").json();
        assertThat(json.get("backend").get("name").asString()).isEqualTo("reference");
        assertThat(json.get("failed").asInt()).isZero();
        assertThat(json.get("results").size()).isEqualTo(3);
        JsonNode result = json.get("results").get(0);
        assertThat(result.get("checkpoint").asString()).isEqualTo("phimoe-1");
        assertThat(result.get("tokens").asInt()).isPositive();
        assertThat(result.get("within").asBoolean()).isTrue();
    }

    @ParameterizedTest
    @ValueSource(strings = {"y", "topk_weights", "router_logits"})
    void verify_seesAWrongNumber(String tensor) throws IOException {
        Path checkpoint = copy("olmoe-0");
        change(checkpoint, "t33." + tensor, 3e-5);
        Commands.Outcome outcome = jmoe("verify", "--golden", folder);
        assertThat(outcome.status()).isEqualTo(1);
        assertThat(outcome.err()).isEmpty();
        assertThat(outcome.out())
                .contains("FAILED", "3 of 3 failed")
                .containsPattern("olmoe-0 F32: t33." + tensor + ": error .*, expected at most");
    }

    @Test
    void verify_seesAWrongExpertAndAWronglyKeptToken() throws IOException {
        Path olmoe = copy("olmoe-0");
        Path switches = copy("switch_transformers-0");
        change(olmoe, "t33.topk_ids", 1);
        change(switches, "t33.kept", 1);
        JsonNode json = jmoe("verify", "--golden", folder, "--json").json();
        assertThat(json.get("failed").asInt()).isEqualTo(6);
        for (JsonNode result : json.get("results")) {
            assertThat(result.get("wrong_tokens").asInt()).isEqualTo(1);
        }
    }

    @Test
    void verify_goesOnAfterABrokenFolder() throws IOException {
        Path broken = copy("aria-0");
        copy("olmoe-0");
        Files.writeString(broken.resolve("model.safetensors"), "nothing");
        Commands.Outcome outcome = jmoe("verify", "--golden", folder);
        assertThat(outcome.status()).isEqualTo(2);
        assertThat(outcome.err().lines()).hasSize(1);
        assertThat(outcome.err()).startsWith("jmoe: aria-0: ");
        assertThat(outcome.out()).containsOnlyOnce("aria-0/model.safetensors");
        assertThat(outcome.out())
                .contains("aria-0", "model.safetensors", "3 of 6 failed")
                .containsPattern("olmoe-0 .* ok");
    }

    @Test
    void verify_refusesAFolderWithoutCheckpoints() {
        jmoe("verify", "--golden", folder).refused("no folder in it");
        jmoe("verify", "--golden", folder.resolve("none")).refused("is not a folder");
        jmoe("verify", "--backend", "fast").refused("fast");
    }

    private Path copy(String checkpoint) throws IOException {
        Path target = Files.createDirectory(folder.resolve(checkpoint));
        for (String name : List.of("config.json", "model.safetensors", "cases.safetensors")) {
            Files.copy(GOLDEN.resolve(checkpoint).resolve(name), target.resolve(name));
        }
        return target;
    }

    /** Changes the first element: a number by a share of the largest, an integer to another. */
    private static void change(Path checkpoint, String name, double share) {
        Path file = checkpoint.resolve("cases.safetensors");
        try (Arena arena = Arena.ofConfined();
                Safetensors cases = Safetensors.open(file)) {
            Tensor stored = cases.tensor(name);
            Tensor changed = Tensor.allocate(arena, stored.dtype(), stored.shape());
            changed.data().copyFrom(stored.data());
            if (stored.dtype() == DType.I32) {
                int first = stored.getInt(0);
                changed.setInt(0, name.endsWith("kept") ? 1 - first : unused(stored));
            } else {
                double largest = 0;
                for (long i = 0; i < stored.numElements(); i++) {
                    largest = Math.max(largest, Math.abs(stored.getDouble(i)));
                }
                changed.setDouble(0, stored.getDouble(0) + share * largest);
            }
            SequencedMap<String, Tensor> tensors = new LinkedHashMap<>(cases.tensors());
            tensors.put(name, changed);
            SafetensorsWriter.write(file, tensors, Map.of());
        }
    }

    private static int unused(Tensor topkIds) {
        int id = 0;
        for (long k = 0; k < topkIds.dim(1); k++) {
            id = Math.max(id, topkIds.getInt(k) + 1);
        }
        return id;
    }
}
