package jmoe.cli;

import static jmoe.cli.Commands.GOLDEN;
import static jmoe.cli.Commands.golden;
import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.Backend;
import jmoe.checkpoint.Safetensors;
import jmoe.checkpoint.SafetensorsWriter;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;

import javax.imageio.ImageIO;

final class RouteCommandTest {
    @TempDir private Path folder;

    private static Commands.Outcome route(String checkpoint, String prefix, Object... more) {
        List<Object> args = new ArrayList<>();
        args.addAll(List.of("route", GOLDEN.resolve(checkpoint), "--layer", 0));
        args.addAll(List.of("--input", golden(checkpoint, prefix + ".x")));
        if (checkpoint.contains("_vl_")) {
            args.addAll(List.of("--token-types", golden(checkpoint, prefix + ".token_types")));
        }
        args.addAll(List.of(more));
        return jmoe(args.toArray());
    }

    /** The counts of Hugging Face's ids. */
    @ParameterizedTest
    @CsvSource({
        "mixtral-0, t130, reference", "mixtral-0, t130, auto", "deepseek_v3-1, t33, vector",
        "gpt_oss-0, t33, auto", "llama4-0, t33, auto", "doge-0, t33, auto",
        "longcat_flash-0, t33, auto", "phimoe-0, t33, auto", "nemotron_h-1, t33, auto",
        "switch_transformers-0, t130, auto", "mixtral-0, t33, cuda", "qwen2_moe-0, t7, cuda"
    })
    void route_countsWhatHuggingFaceSelects(String checkpoint, String prefix, String backend) {
        boolean cuda = backend.equals("cuda");
        Assumptions.assumeTrue(!cuda || Backend.CUDA.unavailable().isEmpty());
        JsonNode json = route(checkpoint, prefix, "--backend", backend, "--json").json();
        JsonNode load = json.get("load").get(0);
        long[] want = new long[load.get("tokens_per_expert").size()];
        long slots;
        try (Safetensors cases =
                Safetensors.open(GOLDEN.resolve(checkpoint).resolve("cases.safetensors"))) {
            Tensor ids = cases.tensor(prefix + ".topk_ids");
            slots = ids.numElements();
            for (long slot = 0; slot < slots; slot++) {
                want[ids.getInt(slot)]++;
            }
        }
        double mean = (double) slots / want.length;
        double squares = 0;
        double entropy = 0;
        long most = 0;
        int idle = 0;
        for (int expert = 0; expert < want.length; expert++) {
            assertThat(load.get("tokens_per_expert").get(expert).asLong()).isEqualTo(want[expert]);
            squares += (want[expert] - mean) * (want[expert] - mean);
            double share = want[expert] / (double) slots;
            entropy -= share == 0 ? 0 : share * Math.log(share);
            most = Math.max(most, want[expert]);
            idle += want[expert] == 0 ? 1 : 0;
        }
        assertThat(load.get("mean").asDouble()).isCloseTo(mean, within(1e-12));
        assertThat(load.get("max").asLong()).isEqualTo(most);
        assertThat(want[load.get("most_loaded").get(0).asInt()]).isEqualTo(most);
        assertThat(load.get("idle_experts").asInt()).isEqualTo(idle);
        assertThat(load.get("entropy").asDouble()).isCloseTo(entropy, within(1e-12));
        assertThat(load.get("largest_violation").asDouble())
                .isCloseTo((most - mean) / mean, within(1e-12));
        assertThat(load.get("coefficient_of_variation").asDouble())
                .isCloseTo(Math.sqrt(squares / want.length) / mean, within(1e-12));
    }

    @Test
    void route_ofTokenTypesCountsEachRouter() {
        JsonNode load = route("ernie4_5_vl_moe-0", "t33", "--json").json().get("load");
        assertThat(load.size()).isEqualTo(2);
        assertThat(load.get(0).get("tokens").asLong() + load.get(1).get("tokens").asLong())
                .isEqualTo(33);
        assertThat(load.get(1).get("tokens").asLong()).isBetween(1L, 32L);
        assertThat(route("ernie4_5_vl_moe-0", "t33").succeeded().out())
                .contains("Expert load of token type 0", "Expert load of token type 1");
    }

    @Test
    void route_countsDropsOfACapacity() {
        JsonNode load =
                jmoe("route", "--preset", "switch-base-128", "--tokens", 512, "--json")
                        .json()
                        .get("load")
                        .get(0);
        // Twice the fair share of four tokens each.
        long dropped = 0;
        for (int expert = 0; expert < 128; expert++) {
            long asked = load.get("tokens_per_expert").get(expert).asLong();
            assertThat(load.get("kept_per_expert").get(expert).asLong())
                    .isEqualTo(Math.min(8, asked));
            dropped += Math.max(0, asked - 8);
        }
        assertThat(dropped).isPositive();
        assertThat(load.get("dropped_slots").asLong()).isEqualTo(dropped);
        assertThat(load.get("drop_rate").asDouble()).isEqualTo(dropped / 512.0);
    }

    @Test
    void route_printsInEightyColumns() {
        String out = route("mixtral-0", "t33").succeeded().out();
        assertThat(out)
                .startsWith("mixtral, layer 0 of ")
                .contains("top 3 of softmax(logits), renormalised", "experts are not read")
                .contains("input       F32 [33, 44]", "backend ", "Expert load")
                .contains("least, mean, most         9, 14.1, 17 slots")
                .contains("coefficient of variation  0.179", "largest violation         0.202")
                .contains("idle experts              0 of 7", "1.93 of at most 1.95 nats")
                .contains("dropped                   0 of 99 slots (0 %), no capacity")
                .contains("most loaded               5 (17), 3 (16), 4 (16), 0 (15)")
                .contains("least loaded              6 (9), 1 (13), 2 (13)");
        assertThat(out.lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
        String random = jmoe("route", "--preset", "deepseek-r1", "--tokens", 9).succeeded().out();
        assertThat(random)
                .startsWith("deepseek-v3, random router")
                .contains("input       random, seed 0, F32 [9, 7168]", "the busiest 16 of 256");
        assertThat(random.lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
    }

    @Test
    void route_isTheSameForTheSameSeed() {
        String first = random("--seed", 7, "--backend", "vector", "--threads", 1);
        assertThat(random("--seed", 7, "--backend", "vector", "--threads", 2)).isEqualTo(first);
        assertThat(random("--seed", 8)).isNotEqualTo(first);
        JsonNode vision = jmoe("route", "--preset", "ernie-4.5-vl-28b", "--json").json();
        assertThat(vision.get("load").get(0).get("tokens").asLong()).isBetween(200L, 312L);
        assertThat(vision.get("tokens").asLong()).isEqualTo(512);
    }

    private static String random(Object... more) {
        List<Object> args = new ArrayList<>();
        args.addAll(List.of("route", "--preset", "olmoe-1b-7b", "--tokens", 40, "--json"));
        args.addAll(List.of(more));
        return jmoe(args.toArray()).json().get("load").toString();
    }

    /** Every preset but those of neurons; sizes that fit into a test. */
    @ParameterizedTest
    @CsvSource({
        "switch-xxl-128, 128", "st-moe-32b, 64", "glam-64b64e, 64", "grok-1, 8",
        "skywork-moe-146b, 16", "pangu-pro-moe-72b, 64", "v-moe-b16, 32", "moma-1.4b, 4",
        "survey4-demo, 8", "survey2-demo, 4"
    })
    void route_takesPresets(String preset, int experts) {
        JsonNode json = jmoe("route", "--preset", preset, "--tokens", 40, "--json").json();
        assertThat(json.get("experts").asInt()).isEqualTo(experts);
        int topK = json.get("top_k").asInt();
        long slots = 0;
        for (JsonNode load : json.get("load")) {
            assertThat(load.get("not_finite_weights").asLong()).isZero();
            slots += Math.round(load.get("mean").asDouble() * experts);
        }
        // Experts that choose take as many tokens as there are of their type, at most.
        assertThat(slots).isBetween(preset.startsWith("moma") ? 32L : 40L * topK, 40L * topK);
    }

    /** Tokens that no expert chose are there all the same. */
    @Test
    void route_byExpertsCountsEveryToken() {
        JsonNode json = jmoe("route", "--preset", "moma-1.4b", "--tokens", 40, "--json").json();
        long tokens = 0;
        for (JsonNode load : json.get("load")) {
            tokens += load.get("tokens").asLong();
        }
        assertThat(tokens).isEqualTo(40);
    }

    @Test
    void route_ofNeuronsSaysWhatToTake() {
        jmoe("route", "--preset", "PEER-1m")
                .refused("--preset: PEER-1m has queries and keys instead of a router");
    }

    /**
     * Experts in a file of which nothing but their place is there: a hole of a hundred gigabytes.
     */
    @Test
    void route_readsNoExperts() throws IOException {
        Path huge = hugeMixtral();
        JsonNode json = jmoe("route", huge, "--tokens", 5, "--json").json();
        assertThat(json.get("router_bytes").asLong()).isEqualTo(2L * 8 * 4096);
        assertThat(json.get("experts").asInt()).isEqualTo(8);
        assertThat(json.get("load").get(0).get("tokens").asLong()).isEqualTo(5);
    }

    private Path hugeMixtral() throws IOException {
        Path checkpoint = Files.createDirectory(folder.resolve("huge"));
        Files.writeString(
                checkpoint.resolve("config.json"),
                """
                {"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 500000,
                 "num_local_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 1}
                """);
        String block = "model.layers.0.block_sparse_moe.";
        StringBuilder header = new StringBuilder("{");
        long end = append(header, block + "gate.weight", "[8,4096]", 0, 8 * 4096);
        for (int expert = 0; expert < 8; expert++) {
            String name = block + "experts." + expert;
            long elements = 500_000L * 4096;
            end = append(header, name + ".w1.weight", "[500000,4096]", end, elements);
            end = append(header, name + ".w2.weight", "[4096,500000]", end, elements);
            end = append(header, name + ".w3.weight", "[500000,4096]", end, elements);
        }
        header.setLength(header.length() - 1);
        byte[] text = header.append('}').toString().getBytes(StandardCharsets.UTF_8);
        try (RandomAccessFile file =
                new RandomAccessFile(checkpoint.resolve("model.safetensors").toFile(), "rw")) {
            ByteBuffer length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
            file.write(length.putLong(text.length).array());
            file.write(text);
            file.setLength(8 + text.length + end);
        }
        return checkpoint;
    }

    private static long append(
            StringBuilder header, String name, String shape, long from, long elements) {
        long to = from + 2 * elements;
        header.append('"').append(name).append("\":{\"dtype\":\"BF16\",\"shape\":").append(shape);
        header.append(",\"data_offsets\":[").append(from).append(',').append(to).append("]},");
        return to;
    }

    @Test
    void route_takesRoutersOfQuantisedCheckpoints() {
        for (String fixture : List.of("deepseek_v3-fp8", "gpt_oss-mxfp4")) {
            Path checkpoint = GOLDEN.resolve("fixtures").resolve(fixture);
            String input = checkpoint.resolve("expected.safetensors") + ":x";
            jmoe("route", checkpoint, "--input", input).succeeded();
        }
    }

    @Test
    void heatMap_isDrawnAndItsNumbersAreInTheJson() throws IOException {
        Path map = folder.resolve("map.png");
        Path load = folder.resolve("load.PNG");
        Path file = folder.resolve("numbers.json");
        String out =
                route(
                                "mixtral-0",
                                "t130",
                                "--heat-map",
                                map,
                                "--load-chart",
                                load,
                                "--json=" + file)
                        .succeeded()
                        .out();
        assertThat(out).contains("Expert load", "heat map", map.toString(), load.toString());
        JsonNode json = new JsonMapper().readTree(Files.readString(file));
        JsonNode grid = json.get("heat_map");
        assertThat(grid.get("tokens_per_row").asInt()).isEqualTo(3);
        assertThat(grid.get("weights").size()).isEqualTo(44);
        for (JsonNode row : grid.get("weights")) {
            double sum = 0;
            for (JsonNode weight : row) {
                sum += weight.asDouble();
            }
            // Every token's weights sum to 1.
            assertThat(sum).isCloseTo(1, within(1e-5));
        }
        assertThat(json.get("heat_map_file").asString()).isEqualTo(map.toString());
        BufferedImage image = ImageIO.read(map.toFile());
        assertThat(image.getWidth()).isEqualTo(1200);
        assertThat(colours(image)).isGreaterThan(50);
        assertThat(colours(ImageIO.read(load.toFile()))).isGreaterThan(3);
    }

    private static long colours(BufferedImage image) {
        return java.util.stream.IntStream.range(0, image.getWidth() * image.getHeight())
                .map(i -> image.getRGB(i % image.getWidth(), i / image.getWidth()))
                .distinct()
                .count();
    }

    @Test
    void pictures_explainThemselves() throws IOException {
        Path map = folder.resolve("map.svg");
        Path load = folder.resolve("load.svg");
        jmoe(
                        "route",
                        "--preset",
                        "switch-c",
                        "--tokens",
                        1000,
                        "--heat-map",
                        map,
                        "--load-chart",
                        load)
                .succeeded();
        assertThat(Files.readString(map))
                .contains("<svg", "1,000 tokens routed by switch-c-2048, random router")
                .contains("a row is the mean of 16 tokens", "a column is the sum of 16 experts")
                .contains(">expert<", ">token<", ">weight<", "</svg>");
        assertThat(Files.readString(load))
                .contains(">slots<", ">computed<", ">dropped<", ">capacity<", ">mean asked for<");
    }

    @Test
    void noTokens_areReported() {
        Path file = folder.resolve("none.safetensors");
        write(file, 0);
        Path map = folder.resolve("map.svg");
        Path load = folder.resolve("load.svg");
        assertThat(
                        jmoe(
                                        "route",
                                        GOLDEN.resolve("mixtral-0"),
                                        "--input",
                                        file,
                                        "--heat-map",
                                        map,
                                        "--load-chart",
                                        load)
                                .succeeded()
                                .out())
                .contains("no tokens");
        assertThat(map).exists();
        assertThat(load).exists();
    }

    private static void write(Path file, int tokens, float... values) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Tensor.allocate(arena, DType.F32, tokens, 44);
            for (int i = 0; i < values.length; i++) {
                x.setDouble(i, values[i]);
            }
            SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
            tensors.put("x", x);
            SafetensorsWriter.write(file, tensors, Map.of());
        }
    }

    @Test
    void input_mistakesAreNamed() {
        Path nan = folder.resolve("nan.safetensors");
        write(nan, 2, 1, 2, Float.NaN);
        Object mixtral = GOLDEN.resolve("mixtral-0");
        jmoe("route", mixtral, "--input", nan)
                .refused(
                        "--input: " + nan, "expected finite numbers, got NaN at token 0, column 2");
        jmoe("route", mixtral, "--input", golden("olmoe-0", "t7.x"))
                .refused("--input: ", "hidden=44", "F32 [7, 32]");
        jmoe("route", mixtral, "--input", "nothing.npy").refused("nothing.npy", "no such file");
        jmoe("route", "--preset", "olmoe-1b-7b", "--input", golden("mixtral-0", "t7.x"))
                .refused("--input: ", "hidden=2048");
        jmoe("route", GOLDEN.resolve("ernie4_5_vl_moe-0"), "--input", nan)
                .refused("--token-types", "2 token types");
    }

    @Test
    void options_mistakesAreNamed() {
        Object mixtral = GOLDEN.resolve("mixtral-0");
        String input = golden("mixtral-0", "t7.x");
        jmoe("route").refused("expected a checkpoint or --preset NAME, got neither");
        jmoe("route", mixtral, "--preset", "dbrx").refused("--preset NAME, got both");
        jmoe("route", "--preset", "mixtral").refused("nearest: mixtral-8x7b, mixtral-8x22b");
        jmoe("route", "--preset", "dbrx", "--layer", 1).refused("--layer: a preset is one layer");
        jmoe("route", mixtral, "--tokens", 0).refused("--tokens: expected", "got 0");
        jmoe("route", mixtral, "--seed", -1).refused("--seed: expected", "got -1");
        jmoe("route", mixtral, "--tokens", 4, "--input", input).refused("--tokens: --input says");
        jmoe("route", mixtral, "--seed", 4, "--input", input).refused("--seed: nothing is random");
        jmoe("route", mixtral, "--token-types", input).refused("--token-types: random tokens");
        jmoe("route", mixtral, "--backend", "gpu").refused("--backend: expected");
        jmoe("route", mixtral, "--layer", 3).refused("has no MoE layer 3", "MoE layers: [0]");
        jmoe("route", GOLDEN.resolve("switch_transformers-0")).refused("--layer", "0, 1");
        jmoe("route", folder.resolve("none")).refused("expected a folder", "got nothing");
    }

    @Test
    void files_thatCannotBeWrittenAreRefusedBefore() throws IOException {
        Path checkpoint = Files.createDirectory(folder.resolve("checkpoint"));
        for (String name : List.of("config.json", "model.safetensors")) {
            Files.copy(GOLDEN.resolve("mixtral-0").resolve(name), checkpoint.resolve(name));
        }
        Path input = folder.resolve("x.png");
        write(folder.resolve("x.safetensors"), 3, 1);
        Path config = checkpoint.resolve("config.json");
        jmoe("route", checkpoint, "--json=" + config)
                .refused("--json: " + config + " belongs to the checkpoint; name another file");
        jmoe("route", checkpoint, "--json=" + folder.resolve("x.safetensors"), "--input")
                .refused("--input");
        jmoe("route", checkpoint, "--heat-map", "map.gif")
                .refused("--heat-map: expected a file ending in .svg or .png, got map.gif");
        jmoe("route", checkpoint, "--load-chart", folder.resolve("no/where.svg"))
                .refused("--load-chart: ", "cannot be written");
        jmoe("route", checkpoint, "--heat-map", input, "--load-chart", input)
                .refused("--load-chart: " + input + " is the file of --heat-map");
        jmoe("route", "--json", checkpoint).refused("expected a checkpoint or --preset NAME");
        jmoe("route", checkpoint, "--json", folder).refused("is a directory");
        jmoe(
                        "route",
                        checkpoint,
                        "--input",
                        folder.resolve("x.safetensors"),
                        "--json",
                        folder.resolve("x.safetensors"))
                .refused("--json: ", "is the input; name another file");
        assertThat(input).doesNotExist();
        assertThat(config).hasSameTextualContentAs(GOLDEN.resolve("mixtral-0/config.json"));
    }
}
