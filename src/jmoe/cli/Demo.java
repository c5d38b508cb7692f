package jmoe.cli;

import jmoe.Backend;
import jmoe.MoeLayer;
import jmoe.Preset;
import jmoe.Presets;
import jmoe.Workspace;
import jmoe.ops.Kernels;
import jmoe.ops.MoeWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import picocli.CommandLine.Command;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;

/** Shows in under a minute that results are right and how fast they come. */
@Command(
        name = "demo",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = {
            "Check a golden checkpoint, then time a layer of OLMoE-1B-7B's shape",
            "(64 experts, top-8, 2048 x 1024) with random weights. Takes under a minute",
            "and 1.5 GB of memory."
        },
        footer = {"", "Example:", "  jmoe demo"})
final class Demo implements Callable<Integer> {
    private static final String GOLDEN = "mixtral-0";
    private static final Preset OLMOE = Presets.of(Presets.DEFAULT);
    private static final int[] TOKENS = {1, 16, 128};
    private static final int MAX_PASSES = 10;

    /** How long to warm up, and then to measure, one batch size. */
    private static final long MAX_NANOS = 2_000_000_000L;

    private final Screen screen;

    Demo(Screen screen) {
        this.screen = screen;
    }

    @Override
    public Integer call() {
        try (OpenBackend backend = OpenBackend.start(OpenBackend.AUTO, null)) {
            screen.line(screen.bold("jmoe " + Main.Version.text()));
            screen.field("backend", backend.description());
            screen.field("why", backend.why());
            boolean golden = golden(backend.kernels());
            boolean random = random(backend.kernels());
            screen.line();
            screen.line(
                    golden && random
                            ? screen.good("All results are right.")
                            : screen.bad("Some results are out of tolerance."));
            return golden && random ? Main.OK : Main.OUT_OF_TOLERANCE;
        }
    }

    private boolean golden(Kernels kernels) {
        Path folder = Home.golden().resolve(GOLDEN);
        Agreement agreement = Golden.check(folder, kernels, DType.F32);
        CheckTable.print(
                screen,
                "1. Golden checkpoint "
                        + GOLDEN
                        + ": "
                        + agreement.tokens()
                        + " tokens against Hugging Face transformers",
                agreement);
        return agreement.within();
    }

    private boolean random(Kernels kernels) {
        screen.heading("2. A layer of OLMoE-1B-7B's shape: 64 experts, top-8, 2048 x 1024, BF16");
        screen.out().flush();
        TimedKernels timed = new TimedKernels(kernels);
        try (Arena arena = Arena.ofShared()) {
            MoeWeights weights = RandomLayer.weights(OLMOE, DType.BF16, arena);
            try (MoeLayer layer = new MoeLayer(OLMOE.config(), weights, timed)) {
                screen.line(
                        "  805 MB of random weights are made; measuring takes some seconds ...");
                screen.out().flush();
                return time(layer, weights, timed, arena);
            }
        }
    }

    private boolean time(MoeLayer layer, MoeWeights weights, TimedKernels timed, Arena arena) {
        Tensor x = Tensor.allocate(arena, DType.F32, last(), layer.config().hidden());
        RandomLayer.fill(x, 1, 4);
        TextTable table =
                new TextTable(
                        "rrrrrr",
                        "tokens",
                        "ms (median)",
                        "min - max",
                        "GFLOP/s",
                        "GB/s",
                        "passes");
        Agreement agreement = Agreement.NONE;
        double nanosPerToken = 0;
        for (int tokens : TOKENS) {
            if (nanosPerToken * tokens > MAX_NANOS) {
                table.row(Integer.toString(tokens), "too slow here", "-", "-", "-", "-");
                continue;
            }
            Tensor y = Tensor.allocate(arena, DType.F32, tokens, layer.config().hidden());
            Tensor input = x.slice(0, tokens);
            try (Workspace workspace = layer.workspace(tokens)) {
                Passes passes = measure(layer, input, y, workspace, timed);
                row(table, tokens, passes);
                nanosPerToken = passes.minNanos() / tokens;
                if (tokens == 1) {
                    agreement = compare(weights, input, y, workspace);
                }
            }
        }
        table.print(screen);
        screen.line("  GB/s counts each expert's weights once, if a token needs them");
        CheckTable.print(screen, "3. The same for 1 token against the reference", agreement);
        return agreement.within();
    }

    private static int last() {
        return TOKENS[TOKENS.length - 1];
    }

    /** As many passes as the time allows; the last warm one may take longer. */
    private static Passes measure(
            MoeLayer layer, Tensor x, Tensor y, Workspace workspace, TimedKernels timed) {
        Passes passes = new Passes(timed);
        long start = System.nanoTime();
        for (int pass = 0; pass < MAX_PASSES && System.nanoTime() - start < MAX_NANOS; pass++) {
            layer.forward(x, y, workspace);
        }
        start = System.nanoTime();
        do {
            passes.measure(() -> layer.forward(x, y, workspace));
        } while (passes.count() < MAX_PASSES && System.nanoTime() - start < MAX_NANOS);
        return passes;
    }

    private static void row(TextTable table, int tokens, Passes passes) {
        double nanos = passes.medianNanos();
        table.row(
                Integer.toString(tokens),
                Units.millis(nanos),
                String.format(
                        Locale.ROOT,
                        "%s - %s",
                        Units.millis(passes.minNanos()),
                        Units.millis(passes.maxNanos())),
                Units.rate(passes.totalFlops(), nanos),
                Units.rate(passes.totalBytes(), nanos),
                Integer.toString(passes.count()));
    }

    private static Agreement compare(MoeWeights weights, Tensor x, Tensor y, Workspace workspace) {
        try (Arena arena = Arena.ofShared();
                Kernels reference = Backend.REFERENCE.open();
                MoeLayer expected = new MoeLayer(OLMOE.config(), weights, reference);
                Workspace expectedWorkspace = expected.workspace(y.dim(0))) {
            Tensor want = Tensor.allocate(arena, DType.F32, y.dim(0), y.dim(1));
            expected.forward(x, want, expectedWorkspace);
            return Agreement.of(
                    Agreement.Result.of(workspace, y),
                    Agreement.Result.of(expectedWorkspace, want));
        }
    }
}
