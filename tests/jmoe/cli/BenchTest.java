package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.Backend;
import jmoe.Preset;
import jmoe.Presets;
import jmoe.tensor.DType;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import picocli.CommandLine;

import tools.jackson.databind.JsonNode;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

import javax.imageio.ImageIO;

final class BenchTest {
    private static final String SMALLEST = "granite-3.0-1b-a400m";

    @TempDir private Path folder;

    @Test
    void bench_printsRatesAndStages() {
        Commands.Outcome outcome = jmoe("bench", "--preset", SMALLEST, "--tokens", "1,3");
        String out = outcome.succeeded().out();
        assertThat(out)
                .contains(SMALLEST, "hidden 1024, 32 experts, top-8", "GFLOP/s multiply-add")
                .contains(
                        "bf16 weights, 101 MB, ",
                        "of FMA",
                        "of stream",
                        "unpermute",
                        "routing",
                        "moves")
                .containsPattern("(?m)^ +1 +(\\* )?\\d")
                .containsPattern("(?m)^ +3 +(\\* )?\\d")
                .doesNotContain("not finite", "note");
        assertThat(out.lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
    }

    @Test
    void bench_reportsJsonAndDraws() throws IOException {
        Path chart = folder.resolve("chart.svg");
        JsonNode json =
                jmoe(
                                "bench",
                                "--preset",
                                SMALLEST,
                                "--tokens",
                                "1",
                                "--weights",
                                "f16,f32",
                                "--backend",
                                "vector,reference",
                                "--threads",
                                "2",
                                "--json",
                                "--chart",
                                chart)
                        .json();
        assertThat(json.get("ceilings").get("fma_gflops").asDouble()).isPositive();
        assertThat(json.get("ceilings").get("stream_gbps").asDouble()).isPositive();
        assertThat(json.get("results").size()).isEqualTo(4);
        for (JsonNode result : json.get("results")) {
            assertThat(result.get("preset").asString()).isEqualTo(SMALLEST);
            assertThat(result.get("tokens").asInt()).isEqualTo(1);
            assertThat(result.get("ms").get("min").asDouble())
                    .isPositive()
                    .isLessThanOrEqualTo(result.get("ms").get("median").asDouble());
            assertThat(result.get("ms").get("max").asDouble())
                    .isGreaterThanOrEqualTo(result.get("ms").get("median").asDouble());
            assertThat(result.get("flops").asLong())
                    .isEqualTo(2L * (3 * 8 * 512 * 1024 + 32 * 1024));
            assertThat(result.get("stages").get("route").asDouble()).isPositive();
            assertThat(result.get("not_finite").asLong()).isZero();
        }
        JsonNode last = json.get("results").get(3);
        assertThat(last.get("backend").asString()).isEqualTo("reference");
        assertThat(last.get("weights").asString()).isEqualTo("f32");
        assertThat(last.get("weight_bytes_touched").asLong())
                .isEqualTo(4L * (3 * 8 * 512 * 1024 + 32 * 1024));
        assertThat(Files.readString(chart)).contains("<svg", "<path", "</svg>");
    }

    private static String benchOne(String backend, String weights) {
        String[] shape = {"bench", "--preset", SMALLEST, "--tokens", "1"};
        return jmoe(Stream.concat(
                                Stream.of(shape),
                                Stream.of("--backend", backend, "--weights", weights))
                        .toArray())
                .succeeded()
                .out();
    }

    @Test
    void bench_namesTheCeilingOfNativeMultiplyAdds() {
        Assumptions.assumeTrue(Backend.NATIVE.unavailable().isEmpty());
        String out = benchOne("native", "bf16,i8");
        assertThat(out.lines().filter(line -> line.startsWith("  ceiling of its multiply-adds:")))
                .hasSize(2)
                .noneMatch(line -> line.contains(" 0.000 "));
    }

    @Test
    void bench_leavesOutWeightsThatABackendDoesNotTake() {
        assertThat(benchOne("vector", "i8,bf16").replaceAll("\\s+", " "))
                .contains(
                        "left out: prepare: weight of type scaled I8 is not supported",
                        "bf16 weights");
    }

    @Test
    void bench_ofWeightsThatNoBackendTakes_measuresNothing() {
        String presets = SMALLEST + ",granite-3.0-3b-a800m";
        Commands.Outcome outcome =
                jmoe("bench", "--preset", presets, "--backend", "vector", "--weights", "i8");
        outcome.refused("weight of type scaled I8 is not supported by the vector backend");
        assertThat(outcome.out()).isEmpty();
    }

    @Test
    void bench_drawsPixels() throws IOException {
        Path chart = folder.resolve("chart.PNG");
        String out =
                jmoe("bench", "--preset", SMALLEST, "--tokens", "2", "--chart", chart)
                        .succeeded()
                        .out();
        assertThat(out).contains(chart.toString());
        assertThat(ImageIO.read(chart.toFile()).getWidth()).isGreaterThan(1000);
    }

    @Test
    void bench_leavesOutExpertsThatDoNotFitAndSaysSo() {
        Preset preset = Presets.of(SMALLEST);
        // Room for all experts once, and so for half of them twice.
        long available = preset.weightBytes(DType.BF16) + BenchLayer.passBytes(preset.config(), 1);
        Commands.Outcome outcome = bench(available);
        assertThat(outcome.status()).isZero();
        assertThat(outcome.out().replaceAll("\\s+", " "))
                .contains(" do not fit into 101 MB of memory; measured with 16 of 32 experts");
        outcome = bench(1_000_000);
        assertThat(outcome.status()).isZero();
        assertThat(outcome.out().replaceAll("\\s+", " "))
                .contains(
                        "do not fit into 1.00 MB of memory; left out, as it would be with 8 of"
                                + " 32 experts");
    }

    @Test
    void bench_skipsWhatTakesTooLong() {
        String out =
                jmoe("bench", "--preset", SMALLEST, "--backend", "reference", "--tokens", "10000")
                        .succeeded()
                        .out();
        assertThat(out).containsPattern("10,000 tokens: left out, a pass would take about");
    }

    @Test
    void bench_measuresQuantisedExpertsWhereTheyRun() {
        JsonNode json =
                jmoe(
                                "bench",
                                "--preset",
                                SMALLEST,
                                "--tokens",
                                "1",
                                "--weights",
                                "int8",
                                "--backend",
                                "reference",
                                "--json")
                        .json();
        assertThat(json.toString()).contains("\"weights\":\"i8\"");
        jmoe("bench", "--preset", SMALLEST, "--weights", "i8", "--backend", "vector")
                .refused("scaled I8 is not supported by the vector backend", "native");
    }

    @ParameterizedTest
    @CsvSource({
        "--preset, olmoe, 'got olmoe; nearest: olmoe-1b-7b, '",
        "--preset, deepseek-r2, 'nearest: deepseek-v2, deepseek-r1, deepseek-v3; jmoe presets"
                + " lists'",
        "--preset, 'dbrx,', --preset: expected a list separated by commas",
        "--tokens, 0, '--tokens: expected a whole number from 1 to 1048576, got 0'",
        "--tokens, few, '--tokens: expected a whole number from 1 to 1048576, got few'",
        "--tokens, '1,,2', --tokens: expected a list separated by commas",
        "--weights, fp8, '--weights: expected f32, bf16, f16 or i8, got fp8'",
        "--backend, gpu, '--backend: expected auto, reference, vector, native or cuda, got gpu'",
        "--backend, 'vector,nothing', nothing",
        "--threads, 0, --threads: expected a whole number from 1 to 1024",
        "--threads, few, --threads: expected a whole number from 1 to 1024",
        "--chart, bench.gif, '--chart: expected a file ending in .svg or .png, got bench.gif'",
        "--chart, no/such/folder/a.svg, no/such/folder/a.svg: cannot be written"
    })
    void bench_refusesWrongOptions(String option, String value, String message) {
        jmoe("bench", option, value).refused(message);
    }

    /** Every form of experts, with as many of them as 100 MB hold twice. */
    @ParameterizedTest
    @CsvSource({"survey2-demo, 4", "survey4-demo, 8", "v-moe-b16, 2", "peer-1m, 4096"})
    void bench_measuresEveryForm(String preset, int experts) {
        Commands.Outcome outcome =
                bench(100_000_000, "--preset", preset, "--weights", "f32", "--tokens", "2");
        assertThat(outcome.status()).as(outcome.err()).isZero();
        assertThat(outcome.out())
                .contains("f32 weights", "route")
                .containsPattern("(?m)^ +2 +(\\* )?\\d")
                .doesNotContain("not finite");
        int published = Presets.of(preset).config().numExperts();
        if (experts < published) {
            assertThat(outcome.out().replaceAll("\\s+", " "))
                    .contains(
                            "measured with "
                                    + experts
                                    + " of "
                                    + Units.plural(published, "expert", "experts"));
        }
    }

    @Test
    void bench_ofNeuronsCountsThoseThatAreAskedFor() {
        Preset peer = Presets.of("peer-1m");
        while (peer.config().numExperts() > 256) {
            peer = peer.halved();
        }
        try (OpenBackend backend = OpenBackend.start("reference", null);
                TimedLayer layer = TimedLayer.of(peer, DType.F32, backend);
                TimedLayer.Batches batches = layer.open(3)) {
            batches.forward();
            Work work = batches.work();
            // Queries, 16 keys of either half, 8 x 16 neurons there and back.
            long products = 2L * 8 * 128 * 512 + 8 * 2 * 16 * 128 + 8 * 16 * 2 * 512;
            assertThat(work.flops()).isEqualTo(2 * 3 * products);
            assertThat(work.flops()).isEqualTo(TimedLayer.flops(peer, 3));
            assertThat(work.experts()).isBetween(100, 256);
            assertThat(work.bytes())
                    .isEqualTo(4L * (2 * 8 * 128 * 512 + 2 * 16 * 128 + 2 * 512 * work.experts()));
            assertThat(layer.kernels().meter(TimedKernels.Stage.NEURONS).calls()).isEqualTo(1);
            assertThat(batches.notFinite()).isZero();
        }
    }

    @Test
    void bench_ofNeuronsSaysWhereTheyAreNotMeasured() {
        String[] options = {
            "--preset", "peer-1m", "--weights", "i8", "--backend", "reference", "--tokens", "1"
        };
        assertThat(bench(100_000_000, options).out().replaceAll("\\s+", " "))
                .contains("left out: peer-1m has neurons, which no backend has in i8");
    }

    private static Commands.Outcome bench(long availableBytes) {
        return bench(availableBytes, "--preset", SMALLEST, "--tokens", "1");
    }

    private static Commands.Outcome bench(long availableBytes, String... options) {
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        Screen screen = Screen.plain(new PrintWriter(out), new PrintWriter(err));
        int status = new CommandLine(new Bench(screen, 0, () -> availableBytes)).execute(options);
        return new Commands.Outcome(status, out.toString(), err.toString());
    }
}
