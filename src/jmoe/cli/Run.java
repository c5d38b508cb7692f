package jmoe.cli;

import jmoe.Backend;
import jmoe.MoeLayer;
import jmoe.Workspace;
import jmoe.checkpoint.LoadProgress;
import jmoe.checkpoint.MoeLayerInfo;
import jmoe.checkpoint.SafetensorsWriter;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.SequencedMap;
import java.util.concurrent.Callable;

/** Computes one layer of a checkpoint on a given input. */
@Command(
        name = "run",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "Run one MoE layer of a checkpoint and report times and expert load.",
        footer = {
            "",
            "FILE is a .safetensors, .npy or .npz file; TENSOR may be left out if the file",
            "has one tensor. The input has the shape [tokens, hidden], [hidden],",
            "[1, tokens, hidden] or [batch, tokens, hidden].",
            "",
            "GB/s and GFLOP/s count the bytes that a stage must touch once and the",
            "arithmetic of its formula. The experts' storage type does not change the",
            "router: it is always F32, and so are all activations.",
            "",
            "Examples (in the project's folder):",
            "  jmoe run tests/golden/mixtral-0 \\",
            "      --input tests/golden/mixtral-0/cases.safetensors:t33.x --check",
            "  jmoe run OLMoE-1B-7B --layer 3 --input x.npy --output y.safetensors \\",
            "      --weights bf16 --repeat 10",
            "  cd tests/golden/ernie4_5_vl_moe-0 && jmoe run . \\",
            "      --input cases.safetensors:t7.x \\",
            "      --token-types cases.safetensors:t7.token_types"
        })
final class Run implements Callable<Integer> {
    /** A first pass that took longer is not repeated unless asked for. */
    private static final double MAX_COLD_NANOS = 10e9;

    /** The metadata by which a file is known to be a result of this command. */
    static final String RESULT_KEY = "jmoe";

    private final Screen screen;
    private final long warmUpNanos;

    @Parameters(paramLabel = "CHECKPOINT", description = "Folder with config.json and safetensors.")
    private Path checkpoint;

    @Option(
            names = "--layer",
            paramLabel = "N",
            description = "Layer of the model; may be left out if there is just one MoE layer.")
    private @Nullable Integer layerNumber;

    @Option(
            names = "--input",
            paramLabel = "FILE[:TENSOR]",
            required = true,
            description = "Input of the layer (required).")
    private String input;

    @Option(
            names = "--token-types",
            paramLabel = "FILE:TENSOR",
            description = "Type of each token, for models that have several (0 text, 1 vision).")
    private @Nullable String tokenTypes;

    @Option(
            names = "--output",
            paramLabel = "FILE",
            description =
                    "Safetensors file to write: y, router_logits, topk_ids, topk_weights,"
                            + " tokens_per_expert. A token's ids come by falling score, which is"
                            + " not always Hugging Face's order.")
    private @Nullable Path output;

    @Mixin private final BackendOptions backendOptions = new BackendOptions();

    @Option(
            names = "--weights",
            paramLabel = "TYPE",
            description =
                    "Hold the experts as f32, bf16, f16 or i8 (also int8: a scale per output;"
                            + " backends native and reference); default: as stored.")
    private @Nullable String weightsType;

    @Option(
            names = "--repeat",
            paramLabel = "N",
            description = "Measure N passes after a second of warm-up; default: 1.")
    private @Nullable Integer repeat;

    @Option(
            names = "--check",
            description = "Compare with the reference; exit status 1 if it differs.")
    private boolean check;

    @Option(names = "--json", description = "Report as one JSON object.")
    private boolean json;

    private boolean warm;

    Run(Screen screen, long warmUpNanos) {
        this.screen = screen;
        this.warmUpNanos = warmUpNanos;
    }

    /** Everything that a run produced. */
    private record Report(
            MoeLayerInfo info,
            MoeLayer layer,
            OpenBackend backend,
            LayerInput input,
            Passes passes,
            LoadChart load,
            @Nullable Agreement check,
            long notFinite,
            @Nullable String inputNotFinite) {}

    @Override
    public Integer call() {
        WholeNumber.REPEAT.check(repeat);
        DType expertType = weightsType == null ? null : weightsType(weightsType);
        if (output != null) {
            new OutputFile("--output", output).check(checkpoint, input, tokenTypes);
        }
        try (Arena arena = Arena.ofShared();
                OpenBackend backend = backendOptions.open()) {
            requireComparable(backend.backend(), expertType);
            MoeLayerInfo info = ChosenLayer.of(checkpoint, layerNumber);
            LayerInput x = LayerInput.read(info.config(), input, tokenTypes, arena);
            TimedKernels timed = new TimedKernels(backend.kernels());
            try (MoeLayer layer = load(info, timed, expertType);
                    Workspace workspace = layer.workspace(x.x().dim(0))) {
                Tensor y = Tensor.allocate(arena, DType.F32, x.x().dim(0), layer.config().hidden());
                Passes passes =
                        measure(timed, () -> layer.forward(x.x(), x.tokenTypes(), y, workspace));
                Agreement agreement = check ? compare(info, expertType, x, workspace, y) : null;
                write(info, backend, workspace, y);
                LoadChart load = new LoadChart(layer.config(), workspace.tokensPerExpert());
                long notFinite = Agreement.NotFinite.count(y);
                String first = x.firstNotFinite();
                report(
                        new Report(
                                info, layer, backend, x, passes, load, agreement, notFinite,
                                first));
                if (notFinite > 0 || first != null) {
                    note(notFinite, y.numElements(), first);
                }
                return agreement == null || agreement.within() ? Main.OK : Main.OUT_OF_TOLERANCE;
            }
        }
    }

    /** A backend that rounds rows of x to codes is as far from the reference as that takes it. */
    private void requireComparable(Backend backend, @Nullable DType expertType) {
        if (check && expertType == DType.I8 && backend == Backend.NATIVE) {
            throw new IllegalArgumentException(
                    "--check: expected weights of f32, f16 or bf16, got i8, with which native"
                            + " rounds its inputs to 8 bits too and differs from the reference by"
                            + " about 1 %; leave --check out");
        }
    }

    /** The first pass is slow while Java compiles; it counts only if nobody can wait for others. */
    private Passes measure(TimedKernels timed, Runnable forward) {
        Passes first = new Passes(timed);
        first.measure(forward);
        boolean slow = first.medianNanos() > MAX_COLD_NANOS;
        if (slow && repeat == null) {
            return first;
        }
        long start = System.nanoTime();
        while (!slow && System.nanoTime() - start < warmUpNanos) {
            forward.run();
        }
        Passes passes = new Passes(timed);
        for (int pass = 0; pass < (repeat == null ? 1 : repeat); pass++) {
            passes.measure(forward);
        }
        warm = true;
        return passes;
    }

    /** The storage type of a name. */
    static DType weightsType(String name) {
        return switch (name.toLowerCase(Locale.ROOT)) {
            case "f32" -> DType.F32;
            case "bf16" -> DType.BF16;
            case "f16" -> DType.F16;
            case "i8", "int8" -> DType.I8;
            default ->
                    throw new IllegalArgumentException(
                            "--weights: expected f32, bf16, f16 or i8, got " + name);
        };
    }

    private MoeLayer load(MoeLayerInfo info, Kernels kernels, @Nullable DType expertType) {
        try (LoadBar bar = new LoadBar(screen)) {
            return MoeLayer.load(checkpoint, info.layer(), kernels, expertType, bar);
        }
    }

    /** The reference reads the checkpoint anew: the layer's weights suit its backend only. */
    private Agreement compare(
            MoeLayerInfo info,
            @Nullable DType expertType,
            LayerInput input,
            Workspace workspace,
            Tensor y) {
        try (Kernels reference = Backend.REFERENCE.open();
                MoeLayer expected =
                        MoeLayer.load(
                                checkpoint,
                                info.layer(),
                                reference,
                                expertType,
                                LoadProgress.NONE);
                Workspace expectedWorkspace = expected.workspace(y.dim(0));
                Arena arena = Arena.ofShared()) {
            Tensor want = Tensor.allocate(arena, DType.F32, y.dim(0), y.dim(1));
            expected.forward(input.x(), input.tokenTypes(), want, expectedWorkspace);
            return Agreement.of(
                    Agreement.Result.of(workspace, y),
                    Agreement.Result.of(expectedWorkspace, want));
        }
    }

    private void write(MoeLayerInfo info, OpenBackend backend, Workspace workspace, Tensor y) {
        if (output == null) {
            return;
        }
        SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
        tensors.put("y", y);
        tensors.put("router_logits", workspace.routerLogits());
        tensors.put("topk_ids", workspace.topkIds());
        tensors.put("topk_weights", workspace.topkWeights());
        tensors.put("tokens_per_expert", workspace.tokensPerExpert());
        Map<String, String> metadata = new LinkedHashMap<>();
        metadata.put(RESULT_KEY, Main.Version.text());
        metadata.put("family", info.config().family());
        metadata.put("layer", Integer.toString(info.layer()));
        metadata.put("backend", backend.backend().id());
        SafetensorsWriter.write(output, tensors, metadata);
    }

    private void note(long notFinite, long values, @Nullable String inputNotFinite) {
        screen.err()
                .println(
                        "jmoe: note: "
                                + notFinite(notFinite, values)
                                + (inputNotFinite == null
                                        ? "; the input is finite"
                                        : "; the input has " + inputNotFinite));
    }

    private static String notFinite(long count, long values) {
        return "y: " + Units.exact(count) + " of " + Units.exact(values) + " values are not finite";
    }

    private void report(Report report) {
        if (json) {
            screen.json(json(report));
            return;
        }
        MoeConfig config = report.info.config();
        screen.line(
                screen.bold(
                        config.family() + ", layer " + report.info.layer() + " of " + checkpoint));
        screen.field("sizes", LayerText.sizes(config));
        screen.field("activation", LayerText.activation(config.activation()));
        screen.field("routing", LayerText.rule(report.info));
        screen.field("input", report.input.x().describe());
        screen.field(
                "experts",
                report.layer.weights().experts().getFirst().gateUp().dtype()
                        + ", "
                        + Units.bytes(expertBytes(report.layer)));
        screen.field("backend", report.backend.description());
        screen.field("why", report.backend.why());
        screen.heading(
                warm
                        ? "Stages ("
                                + (report.passes.count() == 1
                                        ? "one pass"
                                        : "medians of " + report.passes.count() + " passes")
                                + " after a second of warm-up)"
                        : "Stages of the first pass, while Java compiles (--repeat N: warm ones)");
        report.passes.print(screen);
        report.load.print(screen);
        long values = report.input.x().numElements();
        if (report.notFinite > 0) {
            screen.line();
            screen.line(screen.bad(notFinite(report.notFinite, values)));
        }
        if (report.inputNotFinite != null) {
            screen.line("input: " + report.inputNotFinite);
        }
        if (report.check != null && values == 0) {
            screen.line();
            screen.line("no tokens: nothing to compare");
        } else if (report.check != null) {
            CheckTable.print(screen, "Check against the reference", report.check);
        }
        if (output != null) {
            screen.line();
            screen.field("written", output.toString());
        }
    }

    private Map<String, Object> json(Report report) {
        Map<String, Object> object = new LinkedHashMap<>();
        object.put("checkpoint", checkpoint.toString());
        object.put("layer", report.info.layer());
        object.putAll(LayerText.json(report.info));
        object.put("tokens", report.input.x().dim(0));
        object.put("input_type", report.input.x().dtype().name());
        object.put(
                "weights_type",
                report.layer.weights().experts().getFirst().gateUp().dtype().name());
        object.put("expert_bytes", expertBytes(report.layer));
        object.put("backend", report.backend.json());
        object.put("passes", report.passes.count());
        object.put("warm", warm);
        object.put("pass_ms", report.passes.passJson());
        object.put("stages", report.passes.stagesJson());
        object.put("load", report.load.json());
        object.put("not_finite", report.notFinite);
        object.put("input_not_finite", report.inputNotFinite);
        if (report.check != null) {
            Map<String, Object> compared = report.check.json();
            compared.put("tolerances", Agreement.tolerancesJson());
            object.put("check", compared);
        }
        if (output != null) {
            object.put("output", output.toString());
        }
        return object;
    }

    private static long expertBytes(MoeLayer layer) {
        long bytes = 0;
        for (ExpertWeights bank : layer.weights().experts()) {
            bytes += numBytes(bank.gateUp()) + numBytes(bank.down());
        }
        return bytes;
    }

    private static long numBytes(Tensor weight) {
        Tensor scale = weight.scale();
        return weight.numBytes() + (scale == null ? 0 : scale.numBytes());
    }
}
