package jmoe.cli;

import static jmoe.cli.Commands.GOLDEN;
import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.checkpoint.Safetensors;
import jmoe.checkpoint.SafetensorsWriter;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

import tools.jackson.databind.JsonNode;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;
import java.util.stream.Stream;

final class InspectTest {
    private static final Path FIXTURES = GOLDEN.resolve("fixtures");

    @TempDir private Path folder;

    static List<Path> malformedFiles() {
        try (Stream<Path> files = Files.list(FIXTURES.resolve("malformed"))) {
            return files.filter(file -> file.toString().endsWith(".safetensors")).sorted().toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @ParameterizedTest
    @MethodSource("malformedFiles")
    void malformed_givesOneLineAndStatusTwo(Path file) {
        String name = file.getFileName().toString();
        for (String option : List.of("--all", "--json")) {
            Commands.Outcome outcome = jmoe("inspect", file, option);
            if (name.startsWith("valid_")) {
                assertThat(outcome.succeeded().out()).isNotEmpty();
            } else {
                assertThat(outcome.refused(name).out()).isEmpty();
            }
        }
    }

    @Test
    void malformed_areAll() {
        assertThat(malformedFiles()).hasSize(45);
    }

    @Test
    void checkpoint_showsTensorsFamilyAndLayers() {
        String out = jmoe("inspect", GOLDEN.resolve("mixtral-0")).succeeded().out();
        assertThat(out)
                .contains("mixtral checkpoint")
                .containsPattern(
                        "F32 +\\[33, 44\\] +40.7 kB +x7 "
                                + " model.layers.0.block_sparse_moe.experts.\\{0..6\\}.w1.weight")
                .contains("layer 0 ", "7 experts, top-3, intermediate 33", "active of");
    }

    @Test
    void checkpoint_listsEveryTensorOnDemand() {
        String out = jmoe("inspect", GOLDEN.resolve("mixtral-0"), "--all").succeeded().out();
        assertThat(out).contains("experts.0.w1.weight", "experts.6.w3.weight");
        assertThat(out).doesNotContain("{");
    }

    @Test
    void checkpoint_countsParameters() {
        JsonNode json = jmoe("inspect", GOLDEN.resolve("mixtral-0"), "--json").json();
        assertThat(json.get("family").asString()).isEqualTo("mixtral");
        assertThat(json.get("error").isNull()).isTrue();
        JsonNode layer = json.get("moe_layers").get(0);
        // 7 experts of three 33 x 44 matrices, a router of 7 x 44; three experts are active.
        assertThat(layer.get("total_parameters").asLong()).isEqualTo(7 * 3 * 33 * 44 + 7 * 44);
        assertThat(layer.get("active_parameters").asLong()).isEqualTo(3 * 3 * 33 * 44 + 7 * 44);
        assertThat(layer.get("rule").asString()).contains("softmax");
    }

    @Test
    void checkpoint_shardedIsReadInWhole() {
        JsonNode sharded = jmoe("inspect", FIXTURES.resolve("mixtral-sharded"), "--json").json();
        JsonNode single = jmoe("inspect", FIXTURES.resolve("mixtral-f32"), "--json").json();
        assertThat(sharded.get("tensors").size()).isEqualTo(single.get("tensors").size());
        assertThat(sharded.at("/moe_layers/0/total_parameters"))
                .isEqualTo(single.at("/moe_layers/0/total_parameters"));
    }

    @ParameterizedTest
    @ValueSource(strings = {"deepseek_v3-fp8", "gpt_oss-mxfp4"})
    void checkpoint_quantisedIsShown(String fixture) {
        JsonNode json = jmoe("inspect", FIXTURES.resolve(fixture), "--json").json();
        assertThat(json.get("moe_layers").size()).isEqualTo(1);
    }

    @Test
    void checkpoint_ofUnknownFamilyStillShowsTensors() throws IOException {
        Path checkpoint = copy("mixtral-0");
        Files.writeString(checkpoint.resolve("config.json"), "{\"model_type\": \"mystery\"}");
        Commands.Outcome outcome = jmoe("inspect", checkpoint).refused("mystery", "supported");
        assertThat(outcome.out()).contains("block_sparse_moe.gate.weight");
        Commands.Outcome json = jmoe("inspect", checkpoint, "--json").refused("mystery");
        assertThat(json.out()).contains("\"error\"", "\"family\": null");
    }

    @Test
    void checkpoint_brokenIsRefused() throws IOException {
        Path noConfig = copy("mixtral-0");
        Files.delete(noConfig.resolve("config.json"));
        jmoe("inspect", noConfig).refused("config.json", "no such file");

        Path badConfig = copy("olmoe-0");
        Files.writeString(badConfig.resolve("config.json"), "{\"model_type\": \n");
        jmoe("inspect", badConfig).refused("config.json", "not valid JSON");

        Path noWeights = copy("jamba-0");
        Files.delete(noWeights.resolve("model.safetensors"));
        assertThat(jmoe("inspect", noWeights).refused("model.safetensors").out()).isEmpty();

        Path cut = copy("phimoe-0");
        try (FileChannel channel =
                FileChannel.open(cut.resolve("model.safetensors"), StandardOpenOption.WRITE)) {
            channel.truncate(channel.size() - 1);
        }
        assertThat(jmoe("inspect", cut).refused("model.safetensors").out()).isEmpty();

        Path incomplete = copy("aria-0");
        String missing = dropTensor(incomplete.resolve("model.safetensors"), "experts");
        jmoe("inspect", incomplete).refused(missing);
        jmoe("inspect", folder.resolve("nothing")).refused("no such file");
    }

    private Path copy(String checkpoint) throws IOException {
        Path target = Files.createDirectory(folder.resolve(checkpoint));
        for (String name : List.of("config.json", "model.safetensors")) {
            Files.copy(GOLDEN.resolve(checkpoint).resolve(name), target.resolve(name));
        }
        return target;
    }

    private static String dropTensor(Path file, String part) {
        try (Safetensors weights = Safetensors.open(file)) {
            SequencedMap<String, Tensor> rest = new LinkedHashMap<>(weights.tensors());
            String dropped =
                    rest.keySet().stream().filter(name -> name.contains(part)).findFirst().get();
            rest.remove(dropped);
            SafetensorsWriter.write(file, rest, Map.of());
            return dropped;
        }
    }

    @Test
    void file_showsMetadataOnOneLine() {
        String out =
                jmoe("inspect", GOLDEN.resolve("mixtral-0/cases.safetensors")).succeeded().out();
        assertThat(out).contains("golden = {", "characters)", "t130.topk_ids", "config.json");
    }

    @Test
    void file_numpyIsShown() {
        assertThat(jmoe("inspect", FIXTURES.resolve("npy/f4_c.npy")).succeeded().out())
                .contains("NumPy array", "F32");
        assertThat(jmoe("inspect", FIXTURES.resolve("npy/stored.npz")).succeeded().out())
                .contains("NumPy archive", "ids");
        jmoe("inspect", FIXTURES.resolve("npy/c8_complex.npy")).refused("c8_complex.npy");
    }
}
