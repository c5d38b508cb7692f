package jmoe.cli;

import jmoe.ExpertForm;
import jmoe.Preset;
import jmoe.Preset.Bias;
import jmoe.checkpoint.Checkpoint;
import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.Json;
import jmoe.checkpoint.MoeLayerInfo;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Callable;

/** Routes tokens without computing experts, and shows how evenly. */
@Command(
        name = "route",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = {
            "Route tokens with the router of a checkpoint, or with random routers of a",
            "preset, and report the load of the experts. Experts are not read."
        },
        footer = {
            "",
            "FILE[:TENSOR], its shapes and its types are as in jmoe run.",
            "",
            "Load counts the slots that ask for an expert, drops included. Coefficient of",
            "variation: standard deviation / mean. Largest violation: (most - mean) / mean.",
            "Entropy: of the shares of the experts. Random routers have no selection bias,",
            "as before training.",
            "",
            "Examples (in the project's folder):",
            "  jmoe route tests/golden/mixtral-0 \\",
            "      --input tests/golden/mixtral-0/cases.safetensors:t33.x",
            "  jmoe route --preset deepseek-v3 --tokens 4096 --heat-map v3.svg",
            "  jmoe route DeepSeek-V3 --layer 10 --input x.npy --json=load.json"
        })
final class RouteCommand implements Callable<Integer> {
    private static final int DEFAULT_TOKENS = 512;
    private static final String JSON = "--json";
    private static final String STANDARD_OUTPUT = "-";

    private final Screen screen;

    @Parameters(
            paramLabel = "CHECKPOINT",
            arity = "0..1",
            description = "Folder with config.json and safetensors; or --preset.")
    private @Nullable Path checkpoint;

    @Option(
            names = "--preset",
            paramLabel = "NAME",
            description = "Random routers of a published shape; jmoe presets lists them.")
    private @Nullable String presetName;

    @Option(
            names = "--layer",
            paramLabel = "N",
            description = "Layer of the model; may be left out if there is just one MoE layer.")
    private @Nullable Integer layerNumber;

    @Option(
            names = "--input",
            paramLabel = "FILE[:TENSOR]",
            description = "Input of the layer; default: random tokens.")
    private @Nullable String input;

    @Option(
            names = "--token-types",
            paramLabel = "FILE:TENSOR",
            description = "Type of each token, for models that have several (0 text, 1 vision).")
    private @Nullable String tokenTypes;

    @Option(
            names = "--tokens",
            paramLabel = "N",
            description = "Random tokens, normally distributed; default: 512.")
    private @Nullable Integer tokens;

    @Option(
            names = "--seed",
            paramLabel = "S",
            description = "Another one gives other random numbers; default: 0.")
    private @Nullable Integer seed;

    @Option(
            names = RoutingHeatMap.OPTION,
            paramLabel = "FILE",
            description = "Draw the weights that tokens give to experts; .svg or .png.")
    private @Nullable Path heatMap;

    @Option(
            names = LoadPicture.OPTION,
            paramLabel = "FILE",
            description = "Draw the load of each expert; .svg or .png.")
    private @Nullable Path loadChart;

    @Mixin private final BackendOptions backendOptions = new BackendOptions();

    @Option(
            names = JSON,
            arity = "0..1",
            fallbackValue = STANDARD_OUTPUT,
            paramLabel = "FILE",
            description = "Report as one JSON object, or write that to --json=FILE besides.")
    private @Nullable String json;

    RouteCommand(Screen screen) {
        this.screen = screen;
    }

    @Override
    public Integer call() {
        checkOptions();
        Preset preset = presetName == null ? null : PresetsCommand.option(presetName);
        refuseIf(
                preset != null && preset.form() instanceof ExpertForm.Neurons,
                "--preset: "
                        + presetName
                        + " has queries and keys instead of a router, and more experts than can be"
                        + " shown; take jmoe bench to run it");
        Path jsonFile = json == null || json.equals(STANDARD_OUTPUT) ? null : Path.of(json);
        checkFiles(jsonFile);
        try (Arena arena = Arena.ofShared();
                OpenBackend backend = backendOptions.open()) {
            RouteReport report =
                    preset == null ? stored(backend, arena) : random(preset, backend, arena);
            if (heatMap != null) {
                RoutingHeatMap.write(
                        heatMap, report.title(), report.grid(), report.config().numTokenTypes());
            }
            if (loadChart != null) {
                LoadPicture.write(loadChart, report.title(), report.routed());
            }
            Map<String, Object> object = report.json();
            put(object, "heat_map_file", heatMap);
            put(object, "load_chart_file", loadChart);
            if (jsonFile != null) {
                write(jsonFile, object);
            } else if (json != null) {
                screen.json(object);
                return Main.OK;
            }
            report.print(screen);
            if (heatMap != null || loadChart != null || jsonFile != null) {
                screen.line();
            }
            printFile("heat map", heatMap);
            printFile("load chart", loadChart);
            printFile("json", jsonFile);
        }
        return Main.OK;
    }

    private static void put(Map<String, Object> object, String key, @Nullable Path file) {
        if (file != null) {
            object.put(key, file.toString());
        }
    }

    private void printFile(String label, @Nullable Path file) {
        if (file != null) {
            screen.field(label, file.toString());
        }
    }

    private static void write(Path file, Map<String, Object> object) {
        try {
            Files.writeString(file, Json.text(object) + System.lineSeparator());
        } catch (IOException e) {
            throw new CheckpointException(
                    JSON + ": " + file + ": cannot be written: " + e.getMessage(), e);
        }
    }

    private void checkOptions() {
        if ((checkpoint == null) == (presetName == null)) {
            throw new IllegalArgumentException(
                    "CHECKPOINT: expected a checkpoint or --preset NAME, got "
                            + (checkpoint == null ? "neither" : "both"));
        }
        WholeNumber.LAYER.check(layerNumber);
        WholeNumber.TOKENS.check(tokens);
        WholeNumber.SEED.check(seed);
        refuseIf(
                layerNumber != null && presetName != null,
                "--layer: a preset is one layer; leave it out");
        refuseIf(
                tokens != null && input != null,
                "--tokens: --input says how many there are; leave one of them out");
        refuseIf(
                tokenTypes != null && input == null,
                "--token-types: random tokens have random types; give --input or leave it out");
        refuseIf(
                seed != null && input != null && presetName == null,
                "--seed: nothing is random with a checkpoint and --input; leave it out");
    }

    private static void refuseIf(boolean wrong, String message) {
        if (wrong) {
            throw new IllegalArgumentException(message);
        }
    }

    /** Before anything is computed. */
    private void checkFiles(@Nullable Path jsonFile) {
        Map<String, Path> outputs = new LinkedHashMap<>();
        if (heatMap != null) {
            ChartFile.check(RoutingHeatMap.OPTION, heatMap);
            outputs.put(RoutingHeatMap.OPTION, heatMap);
        }
        if (loadChart != null) {
            ChartFile.check(LoadPicture.OPTION, loadChart);
            outputs.put(LoadPicture.OPTION, loadChart);
        }
        if (jsonFile != null) {
            outputs.put(JSON, jsonFile);
        }
        Map<Path, String> seen = new HashMap<>();
        outputs.forEach((option, file) -> {
            new OutputFile(option, file).check(checkpoint, input, tokenTypes);
            String other = seen.put(file.toAbsolutePath().normalize(), option);
            refuseIf(
                    other != null,
                    option + ": " + file + " is the file of " + other + "; name another file");
        });
    }

    private RouteReport stored(OpenBackend backend, Arena arena) {
        MoeLayerInfo info = ChosenLayer.of(checkpoint, layerNumber);
        LayerInput x = input(info.config(), arena);
        List<RouterWeights> routers;
        try (Checkpoint files = Checkpoint.open(checkpoint)) {
            routers = files.loadRouters(info.layer(), arena);
        }
        Map<String, Object> source = new LinkedHashMap<>();
        source.put("checkpoint", checkpoint.toString());
        source.put("layer", info.layer());
        Path folder = checkpoint.toAbsolutePath().normalize().getFileName();
        String name = info.config().family() + ", layer " + info.layer() + " of " + folder;
        return report(
                name, source, info.config(), info.selectionBias(), routers, x, backend, arena);
    }

    private RouteReport random(Preset preset, OpenBackend backend, Arena arena) {
        LayerInput x = input(preset.config(), arena);
        List<RouterWeights> routers = RandomLayer.routers(preset, DType.BF16, seed(), arena);
        Map<String, Object> source = new LinkedHashMap<>();
        source.put("preset", preset.name());
        String name = preset.name() + ", random router";
        boolean bias = preset.biases().contains(Bias.SELECTION);
        return report(name, source, preset.config(), bias, routers, x, backend, arena);
    }

    private RouteReport report(
            String name,
            Map<String, Object> source,
            MoeConfig config,
            boolean selectionBias,
            List<RouterWeights> routers,
            LayerInput x,
            OpenBackend backend,
            Arena arena) {
        source.put("input", input);
        source.put("seed", input == null || presetName != null ? seed() : null);
        RoutedTokens routed = RoutedTokens.route(config, routers, x, backend.kernels(), arena);
        String given = input == null ? "random, seed " + seed() + ", " : "";
        return new RouteReport(
                name,
                source,
                config,
                selectionBias,
                routers,
                given + x.x().describe(),
                routed,
                heatMap == null ? null : RoutingGrid.of(routed),
                backend);
    }

    private int seed() {
        return seed == null ? 0 : seed;
    }

    private LayerInput input(MoeConfig config, Arena arena) {
        if (input == null) {
            return random(config, arena);
        }
        LayerInput given = LayerInput.read(config, input, tokenTypes, arena);
        String wrong = given.firstNotFinite();
        refuseIf(wrong != null, "--input: " + input + ": expected finite numbers, got " + wrong);
        return given;
    }

    private LayerInput random(MoeConfig config, Arena arena) {
        int count = tokens == null ? DEFAULT_TOKENS : tokens;
        RouterConfig router = config.routers().getFirst();
        long bytes = 4L * count * (config.hidden() + config.numTokenTypes() * router.numLogits());
        long available = AvailableMemory.bytes();
        refuseIf(
                bytes > available,
                "--tokens: "
                        + Units.bytes(bytes)
                        + " for tokens and logits do not fit into "
                        + Units.bytes(available)
                        + " of memory; take fewer than "
                        + count);
        Tensor x = RandomLayer.tokens(count, config.hidden(), seed(), arena);
        if (config.numTokenTypes() == 1) {
            return new LayerInput(x, null);
        }
        Tensor types = Tensor.allocate(arena, DType.I32, count);
        Random random = new Random(seed());
        for (int token = 0; token < count; token++) {
            types.setInt(token, random.nextInt(config.numTokenTypes()));
        }
        return new LayerInput(x, types);
    }
}
