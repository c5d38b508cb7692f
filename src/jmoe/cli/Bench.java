package jmoe.cli;

import jmoe.Backend;
import jmoe.ExpertForm;
import jmoe.Preset;
import jmoe.Presets;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;
import jmoe.vector.Ceilings;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.function.Function;
import java.util.function.LongSupplier;

/** Measures layers of published shapes. */
@Command(
        name = "bench",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "Time MoE layers of published shapes, with random weights.",
        footer = {
            "",
            "Presets are listed by jmoe presets.",
            "",
            "A layer that does not fit into memory twice, as made and as the backend",
            "arranges it, is measured with half as many experts, or a quarter ...",
            "",
            "GFLOP/s count the matrix products; GB/s the weights of the experts that had",
            "rows, of the shared expert and of the router, once. The ceilings are measured",
            "just before each preset: multiply-adds on registers, and reading memory in",
            "order. routing is the share of what lies between logits and the order of rows,",
            "moves that of permute and unpermute too.",
            "",
            "Inputs and rows are f32; on native and cuda they have the type of the weights,",
            "with i8 bf16. The multiply-adds of native's ceiling are its own, for these",
            "types. On cuda a pass is a captured graph, timed by events; its ceilings are a",
            "dense product in bf16 and a copy within the device.",
            "",
            "Examples:",
            "  jmoe bench",
            "  jmoe bench --preset mixtral-8x7b --tokens 1,512 --weights bf16,f16",
            "  jmoe bench --preset all --json >bench.json"
        })
final class Bench implements Callable<Integer> {
    private static final String ALL = "all";

    /** A cell is skipped if it would take longer than this. */
    private static final double MAX_CELL_NANOS = 60e9;

    /** Until a cell was measured: what these backends reach at best. */
    private static final double REFERENCE_GFLOPS = 1;

    private static final double EMULATED_GFLOPS = 0.01;

    /** Others reach at least this part of the ceiling where the weights do not limit them. */
    private static final double EXPECTED_SHARE = 0.25;

    private final Screen screen;
    private final long warmUpNanos;
    private final LongSupplier availableBytes;

    @Option(
            names = "--preset",
            paramLabel = "LIST",
            defaultValue = Presets.DEFAULT,
            description = "Shapes, separated by commas, or all; default: olmoe-1b-7b.")
    private String presets;

    @Option(
            names = "--tokens",
            paramLabel = "LIST",
            defaultValue = "1,16,128,512,2048",
            description = "Tokens of a batch; default: 1,16,128,512,2048.")
    private String tokens;

    @Option(
            names = "--backend",
            paramLabel = "LIST",
            defaultValue = OpenBackend.AUTO,
            description = "auto (default), reference, vector, native, cuda.")
    private String backends;

    @Option(
            names = "--weights",
            paramLabel = "LIST",
            defaultValue = "bf16",
            description =
                    "Types of the experts: f32, bf16 (default), f16, i8 (backends native and"
                            + " reference).")
    private String weights;

    @Option(
            names = "--threads",
            paramLabel = "N",
            description = "Worker threads of CPU backends; default: one per core.")
    private @Nullable Integer threads;

    @Option(names = "--json", description = "Report as one JSON object.")
    private boolean json;

    @Option(
            names = "--chart",
            paramLabel = "FILE",
            description = "Draw a roofline and time over tokens; .svg or .png.")
    private @Nullable Path chart;

    Bench(Screen screen, long warmUpNanos) {
        this(screen, warmUpNanos, AvailableMemory::bytes);
    }

    /**
     * The command.
     *
     * @param screen where it writes
     * @param warmUpNanos how long a cell is warmed up; measuring takes up to twice as long
     * @param availableBytes how much memory there is
     */
    Bench(Screen screen, long warmUpNanos, LongSupplier availableBytes) {
        this.screen = screen;
        this.warmUpNanos = warmUpNanos;
        this.availableBytes = availableBytes;
    }

    @Override
    public Integer call() {
        List<Preset> shapes =
                presets.equals(ALL)
                        ? Presets.all()
                        : list("--preset", presets, PresetsCommand::option);
        List<Integer> sizes = list("--tokens", tokens, WholeNumber.TOKENS::parse);
        List<DType> types = list("--weights", weights, Run::weightsType);
        List<String> names = list("--backend", backends, name -> name);
        WholeNumber.THREADS.check(threads);
        if (chart != null) {
            ChartFile.check("--chart", chart);
        }
        List<OpenBackend> open = new ArrayList<>();
        try {
            for (String name : names) {
                open.add(start(name, names.size() > 1));
            }
            requireSome(types, open);
            List<BenchSeries> all = new ArrayList<>();
            for (Preset shape : shapes) {
                measure(shape, sizes, types, open, all);
            }
            report(all);
        } finally {
            open.forEach(OpenBackend::close);
        }
        return Main.OK;
    }

    /** Each entry once, in the order given. */
    private static <T> List<T> list(String option, String text, Function<String, T> parse) {
        Set<T> entries = new LinkedHashSet<>();
        for (String entry : text.split(",", -1)) {
            if (entry.isBlank()) {
                throw new IllegalArgumentException(
                        option + ": expected a list separated by commas, got " + text);
            }
            entries.add(parse.apply(entry.strip()));
        }
        return List.copyOf(entries);
    }

    /** In a list, the number of threads is for those that have a choice. */
    private OpenBackend start(String name, boolean inList) {
        boolean single = name.equals(Backend.REFERENCE.id()) || name.equals(Backend.CUDA.id());
        return OpenBackend.start(name, inList && single ? null : threads);
    }

    private void measure(
            Preset shape,
            List<Integer> sizes,
            List<DType> types,
            List<OpenBackend> open,
            List<BenchSeries> all) {
        Ceilings ceilings = ceilings();
        heading(shape, ceilings);
        for (DType type : types) {
            Preset fitting = fitting(shape, type, sizes);
            if (fitting == null) {
                continue;
            }
            for (OpenBackend backend : open) {
                String problem = problem(shape, backend, type);
                if (problem != null) {
                    note("left out: " + problem);
                    continue;
                }
                Ceilings own = ceilings(backend, type, ceilings);
                BenchSeries series = series(fitting, type, backend, own, sizes);
                all.add(series);
                if (!json) {
                    series.print(screen);
                    screen.out().flush();
                }
            }
        }
    }

    /** Refuses what no backend multiplies by, before anything is measured or printed. */
    private static void requireSome(List<DType> types, List<OpenBackend> open) {
        String refused = null;
        for (DType type : types) {
            for (OpenBackend backend : open) {
                String problem = problem(backend, type);
                if (problem == null) {
                    return;
                }
                refused = problem;
            }
        }
        throw new UnsupportedOperationException(refused);
    }

    /** Why a layer is not measured on a backend; null if it is. */
    private static @Nullable String problem(Preset shape, OpenBackend backend, DType type) {
        if (shape.form() instanceof ExpertForm.Neurons && type == DType.I8) {
            return shape.name() + " has neurons, which no backend has in i8; take f32, f16 or bf16";
        }
        if (shape.form() instanceof ExpertForm.Neurons && backend.backend() == Backend.CUDA) {
            return shape.name()
                    + " is a PeerLayer, which is not captured, and on cuda replays are timed; take"
                    + " another backend";
        }
        return problem(backend, type);
    }

    /** Why a backend does not multiply by weights of a type; null if it does. */
    private static @Nullable String problem(OpenBackend backend, DType type) {
        if (type != DType.I8) {
            return null;
        }
        try (Arena arena = Arena.ofShared()) {
            Allocator allocator = (dtype, shape) -> Tensor.allocate(arena, dtype, shape);
            backend.kernels().prepare(Quantisation.allocate(allocator, 1, 1, 1), arena);
            return null;
        } catch (UnsupportedOperationException e) {
            return e.getMessage();
        }
    }

    private Ceilings ceilings() {
        Backend.VECTOR
                .unavailable()
                .ifPresent(problem -> {
                    throw new UnsupportedOperationException(
                            "bench measures its ceilings with the Vector API: "
                                    + problem.reason()
                                    + "; "
                                    + problem.remedy());
                });
        return Ceilings.measure(
                threads == null ? Runtime.getRuntime().availableProcessors() : threads);
    }

    /** The ceilings of a device, or of units that Java's vectors do not have, or those of Java. */
    private static Ceilings ceilings(OpenBackend backend, DType type, Ceilings java) {
        if (backend.backend() == Backend.CUDA) {
            return DeviceCeilings.measure(backend.kernels(), backend.backend().emulated());
        }
        LongSupplier own = backend.kernels().multiplyAdds(BenchLayer.rowType(backend, type), type);
        return own == null ? java : java.withMultiplyAdds(own);
    }

    private void heading(Preset shape, Ceilings ceilings) {
        if (json) {
            return;
        }
        screen.heading(shape.name());
        screen.field("sizes", LayerText.sizes(shape.config()));
        screen.field("ceilings", BenchSeries.text(ceilings));
        screen.out().flush();
    }

    /** Halves the experts until the layer fits; says so. Null if it never does. */
    private @Nullable Preset fitting(Preset shape, DType type, List<Integer> sizes) {
        long available = availableBytes.getAsLong();
        long passBytes = 0;
        for (int size : sizes) {
            passBytes = Math.max(passBytes, TimedLayer.passBytes(shape, size));
        }
        Preset fitting = shape;
        while (2 * fitting.weightBytes(type) + passBytes > available) {
            Preset smaller = fitting.halved();
            if (smaller == null) {
                break;
            }
            fitting = smaller;
        }
        boolean fits = 2 * fitting.weightBytes(type) + passBytes <= available;
        if (fits && fitting.equals(shape)) {
            return shape;
        }
        int experts = fitting.config().numExperts();
        note(
                shape.name()
                        + ": "
                        + Units.bytes(2 * shape.weightBytes(type) + passBytes)
                        + " for "
                        + BenchSeries.id(type)
                        + " weights, twice, do not fit into "
                        + Units.bytes(available)
                        + " of memory; "
                        + (fits ? "measured" : "left out, as it would be")
                        + " with "
                        + experts
                        + " of "
                        + Units.plural(shape.config().numExperts(), "expert", "experts"));
        return fits ? fitting : null;
    }

    private void note(String text) {
        if (json) {
            screen.err().println("jmoe: note: " + text);
        } else {
            screen.field("note", text);
        }
    }

    private BenchSeries series(
            Preset preset,
            DType type,
            OpenBackend backend,
            Ceilings ceilings,
            List<Integer> sizes) {
        List<BenchCell> cells = new ArrayList<>();
        Map<Integer, String> skipped = new LinkedHashMap<>();
        double expected = expectedGflops(backend.backend(), ceilings);
        double gflops = expected;
        TimedLayer layer = null;
        try {
            for (int size : sizes) {
                double nanos = TimedLayer.flops(preset, size) / gflops;
                if (nanos > MAX_CELL_NANOS) {
                    skipped.put(
                            size,
                            "left out, a pass would take about "
                                    + Units.significant(nanos / 1e9)
                                    + " s");
                    continue;
                }
                // Weights are made only if something is measured with them.
                layer = layer == null ? TimedLayer.of(preset, type, backend) : layer;
                BenchCell cell = BenchCell.measure(layer, size, warmUpNanos);
                // Few tokens wait for memory; more of them are computed faster.
                gflops =
                        slow(backend.backend()) ? cell.gflops() : Math.max(expected, cell.gflops());
                cells.add(cell);
            }
        } finally {
            if (layer != null) {
                layer.close();
            }
        }
        return new BenchSeries(
                preset,
                type,
                backend.backend(),
                backend.description(),
                backend.threads(),
                ceilings,
                cells,
                skipped);
    }

    private static boolean slow(Backend backend) {
        return backend == Backend.REFERENCE || backend.emulated();
    }

    /** What decides whether the first cell of a series is worth the wait. */
    private static double expectedGflops(Backend backend, Ceilings ceilings) {
        if (slow(backend)) {
            return backend.emulated() ? EMULATED_GFLOPS : REFERENCE_GFLOPS;
        }
        return ceilings.fmaGflops() * EXPECTED_SHARE;
    }

    private void report(List<BenchSeries> all) {
        if (chart != null) {
            BenchChart.write(chart, all);
        }
        if (json) {
            screen.json(json(all));
        } else if (chart != null) {
            screen.line();
            screen.field("chart", chart.toString());
        }
    }

    /** The ceilings of the whole run are the best of those before each preset. */
    private static Map<String, Object> json(List<BenchSeries> all) {
        List<Map<String, Object>> results = new ArrayList<>();
        List<Map<String, Object>> skipped = new ArrayList<>();
        for (BenchSeries series : all) {
            results.addAll(series.json());
            skipped.addAll(series.skippedJson());
        }
        Map<String, Object> object = new LinkedHashMap<>();
        object.put("ceilings", BenchSeries.json(BenchSeries.roof(all)));
        object.put("results", results);
        object.put("skipped", skipped);
        object.put("version", Main.Version.text());
        object.put("machine", Machine.json());
        return object;
    }
}
