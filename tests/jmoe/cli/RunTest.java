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
import org.junit.jupiter.params.provider.ValueSource;

import tools.jackson.databind.JsonNode;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;
import java.util.stream.Stream;

final class RunTest {
    @TempDir private Path folder;

    private List<Object> arguments(String checkpoint, String prefix, Object... more) {
        List<Object> args = new ArrayList<>();
        args.add("run");
        args.add(GOLDEN.resolve(checkpoint));
        args.add("--layer");
        args.add(0);
        args.add("--input");
        args.add(golden(checkpoint, prefix + ".x"));
        if (checkpoint.contains("_vl_")) {
            args.add("--token-types");
            args.add(golden(checkpoint, prefix + ".token_types"));
        }
        args.addAll(List.of(more));
        return args;
    }

    private Commands.Outcome run(String checkpoint, String prefix, Object... more) {
        return jmoe(arguments(checkpoint, prefix, more).toArray());
    }

    @ParameterizedTest
    @CsvSource({
        "mixtral-0, t130", "qwen2_moe-0, t33", "deepseek_v3-1, t7", "gpt_oss-0, t33",
        "llama4-0, t33", "nemotron_h-1, t33", "ernie4_5_vl_moe-0, t33", "doge-0, t33",
        "longcat_flash-0, t130", "switch_transformers-0, t130", "phimoe-0, t1"
    })
    void output_equalsGolden(String checkpoint, String prefix) {
        Path output = folder.resolve("out.safetensors");
        run(checkpoint, prefix, "--output", output).succeeded();
        Path cases = GOLDEN.resolve(checkpoint).resolve("cases.safetensors");
        try (Safetensors got = Safetensors.open(output);
                Safetensors want = Safetensors.open(cases)) {
            assertThat(got.names())
                    .containsExactlyInAnyOrder(
                            "y", "router_logits", "topk_ids", "topk_weights", "tokens_per_expert");
            assertClose(got.tensor("y"), want.tensor(prefix + ".y"), 5e-6);
            assertClose(got.tensor("router_logits"), want.tensor(prefix + ".router_logits"), 2e-6);
            assertThat(got.tensor("topk_ids").describe())
                    .isEqualTo(want.tensor(prefix + ".topk_ids").describe());
            assertSameSelection(got, want, prefix);
            assertThat(total(got.tensor("tokens_per_expert")))
                    .isEqualTo(got.tensor("topk_ids").numElements());
        }
    }

    private static void assertClose(Tensor got, Tensor want, double tolerance) {
        assertThat(got.dtype()).isEqualTo(DType.F32);
        assertThat(got.numElements()).isEqualTo(want.numElements());
        double largest = 0;
        for (long i = 0; i < want.numElements(); i++) {
            largest = Math.max(largest, Math.abs(want.getDouble(i)));
        }
        for (long i = 0; i < want.numElements(); i++) {
            assertThat(got.getDouble(i)).isCloseTo(want.getDouble(i), within(tolerance * largest));
        }
    }

    private static void assertSameSelection(Safetensors got, Safetensors want, String prefix) {
        Tensor ids = want.tensor(prefix + ".topk_ids");
        for (long token = 0; token < ids.dim(0); token++) {
            Map<Integer, Float> expected =
                    weights(ids, want.tensor(prefix + ".topk_weights"), token);
            Map<Integer, Float> actual =
                    weights(got.tensor("topk_ids"), got.tensor("topk_weights"), token);
            assertThat(actual).containsOnlyKeys(expected.keySet());
            expected.forEach(
                    (id, weight) -> assertThat(actual.get(id)).isCloseTo(weight, within(2e-6f)));
        }
    }

    private static Map<Integer, Float> weights(Tensor ids, Tensor weights, long token) {
        Map<Integer, Float> byId = new LinkedHashMap<>();
        long topK = ids.dim(1);
        for (long slot = token * topK; slot < (token + 1) * topK; slot++) {
            byId.put(ids.getInt(slot), weights.getFloat(slot));
        }
        return byId;
    }

    private static long total(Tensor counts) {
        long total = 0;
        for (long i = 0; i < counts.numElements(); i++) {
            total += counts.getInt(i);
        }
        return total;
    }

    @Test
    void output_isTheSameFileTwice() throws IOException {
        Path first = folder.resolve("first.safetensors");
        Path second = folder.resolve("second.safetensors");
        run("mixtral-0", "t33", "--output", first).succeeded();
        run("mixtral-0", "t33", "--output", second, "--threads", 1).succeeded();
        assertThat(Files.readAllBytes(second)).isEqualTo(Files.readAllBytes(first));
    }

    @Test
    void report_showsWhatTheIssueAsksFor() {
        String out = run("mixtral-0", "t33", "--check", "--repeat", 2).succeeded().out();
        assertThat(out)
                .startsWith("mixtral, layer 0 of ")
                .contains("hidden 44, 7 experts, top-3, intermediate 33")
                .contains("top 3 of softmax(logits), renormalised")
                .contains("backend", "why", "GB/s", "GFLOP/s")
                .contains("dense ", "route ", "sort ", "gate_up ", "gemm ", "unpermute ")
                .contains("max/mean", "coefficient of variation")
                .contains("Check against the reference");
        assertThat(out.lines()).allMatch(line -> line.length() <= 80);
    }

    @ParameterizedTest
    @ValueSource(strings = {"i8", "int8", "I8"})
    void weights_quantiseTheExperts(String type) {
        JsonNode json =
                run(
                                "olmoe-0",
                                "t33",
                                "--weights",
                                type,
                                "--backend",
                                "reference",
                                "--check",
                                "--json")
                        .json();
        JsonNode wide =
                run("olmoe-0", "t33", "--weights", "f32", "--backend", "reference", "--json")
                        .json();
        assertThat(json.get("weights_type").asString()).isEqualTo("I8");
        // A quarter of F32, and for the scale four bytes a row.
        assertThat(json.get("expert_bytes").asLong())
                .isBetween(
                        wide.get("expert_bytes").asLong() / 4 + 4,
                        wide.get("expert_bytes").asLong() / 2);
        assertThat(json.get("check").get("within").asBoolean()).isTrue();
        run("olmoe-0", "t33", "--weights", type, "--backend", "vector")
                .refused("scaled I8 is not supported by the vector backend", "load them as BF16");
    }

    @Test
    void check_isRefusedWhereInputsAreRoundedToCodes() {
        Assumptions.assumeTrue(Backend.NATIVE.unavailable().isEmpty(), "no native backend");
        run("olmoe-0", "t33", "--weights", "i8", "--backend", "native", "--check")
                .refused("--check: expected weights of f32, f16 or bf16, got i8");
        run("olmoe-0", "t33", "--weights", "i8", "--backend", "native");
    }

    @ParameterizedTest
    @ValueSource(strings = {"f32", "bf16", "f16"})
    void weights_convertTheExperts(String type) {
        JsonNode json = run("olmoe-0", "t33", "--weights", type, "--check", "--json").json();
        assertThat(json.get("weights_type").asString()).isEqualToIgnoringCase(type);
        assertThat(json.get("check").get("within").asBoolean()).isTrue();
    }

    @Test
    void json_hasEveryFigure() {
        JsonNode json = run("ernie4_5_vl_moe-0", "t33", "--check", "--json", "--repeat", 3).json();
        assertThat(json.propertyNames())
                .contains(
                        "checkpoint",
                        "layer",
                        "family",
                        "hidden",
                        "experts",
                        "top_k",
                        "rule",
                        "tokens",
                        "weights_type",
                        "backend",
                        "pass_ms",
                        "stages",
                        "load",
                        "check");
        assertThat(json.get("passes").asInt()).isEqualTo(3);
        assertThat(json.get("warm").asBoolean()).isTrue();
        assertThat(json.get("backend").propertyNames())
                .containsExactly("name", "description", "why", "threads");
        assertThat(json.get("pass_ms").propertyNames()).containsExactly("median", "min", "max");
        assertThat(json.get("stages").valueStream().map(stage -> stage.get("stage").asString()))
                .containsExactly(
                        "dense",
                        "route",
                        "sort",
                        "router",
                        "permute",
                        "gate_up",
                        "gemm",
                        "swiglu",
                        "unpermute",
                        "experts",
                        "shape",
                        "neurons");
        assertThat(json.get("load").size()).isEqualTo(2);
        int routed = 0;
        for (JsonNode type : json.get("load")) {
            for (JsonNode count : type.get("tokens_per_expert")) {
                routed += count.asInt();
            }
        }
        assertThat(routed).isEqualTo(33 * json.get("top_k").asInt());
        assertThat(json.get("check").get("wrong_tokens").asInt()).isZero();
    }

    @Test
    void backend_isTheOneAskedFor() {
        JsonNode reference =
                run("mixtral-0", "t7", "--backend", "reference", "--json").json().get("backend");
        assertThat(reference.get("name").asString()).isEqualTo("reference");
        assertThat(reference.get("threads").asInt()).isEqualTo(1);
        JsonNode vector =
                run("mixtral-0", "t7", "--backend", "vector", "--threads", 3, "--json").json();
        assertThat(vector.get("backend").get("description").asString()).contains("3 threads");
    }

    @Test
    void input_mayHaveOtherShapesAndTypes() {
        try (Arena arena = Arena.ofConfined();
                Safetensors cases =
                        Safetensors.open(GOLDEN.resolve("mixtral-0/cases.safetensors"))) {
            Tensor x = cases.tensor("t33.x");
            SequencedMap<String, Tensor> inputs = new LinkedHashMap<>();
            inputs.put("sequence", x.reshape(1, 33, 44));
            inputs.put("batch", x.reshape(3, 11, 44));
            inputs.put("vector", x.slice(0, 1).reshape(44));
            inputs.put("none", x.slice(0, 0));
            for (DType dtype : List.of(DType.F64, DType.BF16, DType.F16)) {
                Tensor converted = Tensor.allocate(arena, dtype, 33, 44);
                for (long i = 0; i < x.numElements(); i++) {
                    converted.setDouble(i, x.getDouble(i));
                }
                inputs.put(dtype.name(), converted);
            }
            Path file = folder.resolve("inputs.safetensors");
            SafetensorsWriter.write(file, inputs, Map.of());
            inputs.forEach((name, input) -> {
                Path output = folder.resolve(name);
                jmoe(
                                "run",
                                GOLDEN.resolve("mixtral-0"),
                                "--input",
                                file + ":" + name,
                                "--output",
                                output,
                                "--check")
                        .succeeded();
                try (Safetensors got = Safetensors.open(output)) {
                    long tokens = input.numElements() / 44;
                    assertThat(got.tensor("y").shape()).containsExactly(tokens, 44);
                    Tensor want = cases.tensor("t33.y").slice(0, tokens);
                    assertClose(got.tensor("y"), want, 5e-6);
                }
            });
        }
    }

    @Test
    void input_severalSequencesAreRefusedWhereTokensDependOnEachOther() {
        for (String checkpoint : List.of("switch_transformers-0", "doge-0")) {
            Path cases = GOLDEN.resolve(checkpoint).resolve("cases.safetensors");
            Path file = folder.resolve(checkpoint);
            try (Safetensors golden = Safetensors.open(cases)) {
                SequencedMap<String, Tensor> batch = new LinkedHashMap<>();
                batch.put("x", golden.tensor("t130.x").reshape(2, 65, 32));
                SafetensorsWriter.write(
                        file.resolveSibling(checkpoint + ".safetensors"), batch, Map.of());
            }
            jmoe("run", GOLDEN.resolve(checkpoint), "--layer", 0, "--input", file + ".safetensors")
                    .refused("--input", "[2, 65, 32]", "one sequence at a time");
        }
    }

    @Test
    void tokenTypes_acceptI64AndCheckValues() {
        Path checkpoint = GOLDEN.resolve("ernie4_5_vl_moe-0");
        Path file = folder.resolve("types.safetensors");
        try (Arena arena = Arena.ofConfined();
                Safetensors cases = Safetensors.open(checkpoint.resolve("cases.safetensors"))) {
            Tensor stored = cases.tensor("t7.token_types");
            Tensor wide = Tensor.allocate(arena, DType.I64, 1, 7);
            Tensor wrong = Tensor.allocate(arena, DType.I64, 7);
            for (long i = 0; i < 7; i++) {
                wide.data()
                        .setAtIndex(java.lang.foreign.ValueLayout.JAVA_LONG, i, stored.getInt(i));
            }
            wrong.data().setAtIndex(java.lang.foreign.ValueLayout.JAVA_LONG, 3, 1L << 32);
            SequencedMap<String, Tensor> types = new LinkedHashMap<>();
            types.put("wide", wide);
            types.put("wrong", wrong);
            SafetensorsWriter.write(file, types, Map.of());
        }
        String input = golden("ernie4_5_vl_moe-0", "t7.x");
        jmoe("run", checkpoint, "--input", input, "--token-types", file + ":wide", "--check")
                .succeeded();
        jmoe("run", checkpoint, "--input", input, "--token-types", file + ":wrong")
                .refused("--token-types: " + file, "from 0 to 1", "got 4294967296 for token 3");
        jmoe("run", checkpoint, "--input", input).refused("--token-types", "2 token types");
        jmoe(
                        "run",
                        checkpoint,
                        "--input",
                        golden("ernie4_5_vl_moe-0", "t33.x"),
                        "--token-types",
                        file + ":wide")
                .refused("--token-types: " + file, "[1, tokens]", "33 tokens", "I64 [1, 7]");
        run("mixtral-0", "t7", "--token-types", file + ":wide").refused("one token type");
    }

    @Test
    void input_mistakesAreNamed() {
        Object checkpoint = GOLDEN.resolve("mixtral-0");
        jmoe("run", checkpoint, "--input", golden("mixtral-0", "t7.nothing"))
                .refused("has no tensor 't7.nothing'", "nearest", "jmoe inspect", "lists all");
        jmoe("run", checkpoint, "--input", golden("olmoe-0", "t7.x"))
                .refused(
                        "--input: " + GOLDEN.resolve("olmoe-0/cases.safetensors"),
                        "[hidden], [tokens, hidden], [1, tokens, hidden] or [batch, tokens,"
                                + " hidden]",
                        "hidden=44",
                        "F32 [7, 32]");
        jmoe("run", checkpoint, "--input", golden("mixtral-0", "t7.topk_ids"))
                .refused("--input", "I32 [7, 3]");
        jmoe("run", checkpoint, "--input", "nothing.safetensors:x").refused("no such file");
        jmoe("run", checkpoint, "--input", GOLDEN).refused("directory");
        jmoe("run", checkpoint, "--input", GOLDEN.resolve("mixtral-0/cases.safetensors"))
                .refused("name one as FILE:TENSOR, for example ", ", t1.x, ", "jmoe inspect");
        jmoe("run", checkpoint, "--input", GOLDEN.resolve("fixtures/npy/c8_complex.npy"))
                .refused("c8_complex.npy");
    }

    @Test
    void options_mistakesAreNamed() {
        run("mixtral-0", "t7", "--backend", "fast").refused("--backend", "vector", "fast");
        run("mixtral-0", "t7", "--weights", "f8").refused("--weights", "f8");
        run("mixtral-0", "t7", "--threads", 0).refused("--threads", "got 0");
        run("mixtral-0", "t7", "--threads", 1025).refused("from 1 to 1024, got 1025");
        run("mixtral-0", "t7", "--repeat", 1_000_001).refused("from 1 to 1000000, got 1000001");
        run("mixtral-0", "t7", "--repeat", "99999999999")
                .refused("--repeat: expected a whole number from 1 to 1000000, got 99999999999");
        run("mixtral-0", "t7", "--threads", 2, "--backend", "reference").refused("1 thread");
        run("mixtral-0", "t7", "--repeat", 0).refused("--repeat", "got 0");
        jmoe(
                        "run",
                        GOLDEN.resolve("mixtral-0"),
                        "--layer",
                        7,
                        "--input",
                        golden("mixtral-0", "t7.x"))
                .refused("has no MoE layer 7", "[0]");
        jmoe(
                        "run",
                        GOLDEN.resolve("switch_transformers-0"),
                        "--input",
                        golden("switch_transformers-0", "t7.x"))
                .refused("--layer", "2 MoE layers", "0, 1");
        jmoe("run", folder.resolve("none"), "--input", golden("mixtral-0", "t7.x"))
                .refused("none", "folder");
    }

    @Test
    void output_thatCannotBeWrittenLeavesNothing() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "kept");
        run("mixtral-0", "t7", "--output", folder).refused("is a directory");
        run("mixtral-0", "t7", "--output", folder.resolve("no/where")).refused("does not exist");
        run("mixtral-0", "t7", "--output", file.resolve("below")).refused("not a folder");
        jmoe(
                        "run",
                        GOLDEN.resolve("mixtral-0"),
                        "--input",
                        golden("olmoe-0", "t7.x"),
                        "--output",
                        folder.resolve("unwritten"))
                .refused("--input");
        try (Stream<Path> left = Files.list(folder)) {
            assertThat(left).containsExactly(file);
        }
        assertThat(file).hasContent("kept");
    }

    @Test
    void checkpoint_quantisedIsRefused() {
        for (String fixture : List.of("deepseek_v3-fp8", "gpt_oss-mxfp4")) {
            Path checkpoint = GOLDEN.resolve("fixtures").resolve(fixture);
            String input = checkpoint.resolve("expected.safetensors") + ":x";
            jmoe("run", checkpoint, "--input", input).refused(fixture, "quantised");
        }
    }

    @Test
    void checkpoint_inEveryEncodingGivesTheSame() {
        Path fixtures = GOLDEN.resolve("fixtures");
        Path expected = fixtures.resolve("mixtral-expected.safetensors");
        for (String encoding : List.of("f32", "bf16", "f16", "sharded")) {
            Path output = folder.resolve(encoding);
            jmoe(
                            "run",
                            fixtures.resolve("mixtral-" + encoding),
                            "--input",
                            expected + ":x",
                            "--output",
                            output)
                    .succeeded();
            try (Safetensors got = Safetensors.open(output);
                    Safetensors want = Safetensors.open(expected)) {
                assertClose(got.tensor("y"), want.tensor("y"), 5e-6);
            }
        }
    }
}
