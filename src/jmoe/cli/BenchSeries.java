package jmoe.cli;

import jmoe.Backend;
import jmoe.Preset;
import jmoe.Presets;
import jmoe.cli.TimedKernels.Stage;
import jmoe.tensor.DType;
import jmoe.vector.Ceilings;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * One layer on one backend, measured over batches of several sizes.
 *
 * @param preset as measured, perhaps with fewer experts than the model has
 * @param weights type of the experts
 * @param backend where it ran
 * @param description of the backend
 * @param threads of the backend
 * @param ceilings of the machine, just before
 * @param cells by rising time
 * @param skipped tokens that would have taken too long, and why
 */
record BenchSeries(
        Preset preset,
        DType weights,
        Backend backend,
        String description,
        int threads,
        Ceilings ceilings,
        List<BenchCell> cells,
        Map<Integer, String> skipped) {
    static String id(DType type) {
        return type.name().toLowerCase(Locale.ROOT);
    }

    static String id(Stage stage) {
        return stage.name().toLowerCase(Locale.ROOT);
    }

    /** Experts of the model itself. */
    int publishedExperts() {
        return Presets.of(preset.name()).config().numExperts();
    }

    /** The best ceilings of a run; null if nothing was measured. */
    static @Nullable Ceilings roof(List<BenchSeries> all) {
        Ceilings roof = null;
        for (BenchSeries series : all) {
            Ceilings next = series.ceilings;
            roof =
                    roof == null
                            ? next
                            : new Ceilings(
                                    next.threads(),
                                    Math.max(roof.fmaGflops(), next.fmaGflops()),
                                    Math.max(roof.streamGbps(), next.streamGbps()));
        }
        return roof;
    }

    /** The ceilings in words. */
    static String text(Ceilings ceilings) {
        return Units.significant(ceilings.fmaGflops())
                + " GFLOP/s multiply-add, "
                + Units.significant(ceilings.streamGbps())
                + " GB/s read ("
                + Units.plural(ceilings.threads(), "thread", "threads")
                + ")";
    }

    /** Whether the ceilings are those of a device. */
    private boolean onDevice() {
        return backend == Backend.CUDA;
    }

    /** The ceilings of a device in words. */
    private String deviceText() {
        return Units.significant(ceilings.fmaGflops())
                + " GFLOP/s dense product in bf16, "
                + Units.significant(ceilings.streamGbps())
                + " GB/s copied";
    }

    /** What a chart calls it. */
    String label() {
        return preset.name() + " " + id(weights) + ", " + backend.id();
    }

    void print(Screen screen) {
        screen.line();
        screen.line(
                "  "
                        + id(weights)
                        + " weights, "
                        + Units.bytes(preset.weightBytes(weights))
                        + ", "
                        + description);
        if (onDevice()) {
            screen.line("  replayed, timed by events; ceilings: " + deviceText());
        } else if (backend == Backend.NATIVE) {
            screen.line(
                    "  ceiling of its multiply-adds: "
                            + Units.significant(ceilings.fmaGflops())
                            + " GFLOP/s");
        }
        screen.line();
        if (!cells.isEmpty()) {
            printRates(screen);
            screen.line();
            printStages(screen);
        }
        skipped.forEach((tokens, why) ->
                screen.line("  " + Units.plural(tokens, "token", "tokens") + ": " + why));
        printNotes(screen);
    }

    private void printRates(Screen screen) {
        List<String> heading =
                new ArrayList<>(
                        List.of(
                                "tokens",
                                "ms (median)",
                                "min - max",
                                "GFLOP/s",
                                onDevice() ? "of dense" : "of FMA",
                                "GB/s",
                                onDevice() ? "of copy" : "of stream",
                                "experts"));
        if (onDevice()) {
            heading.add("host us");
        }
        TextTable table = new TextTable("r".repeat(heading.size()), heading.toArray(String[]::new));
        for (BenchCell cell : cells) {
            List<String> row =
                    new ArrayList<>(
                            List.of(
                                    Units.exact(cell.tokens()),
                                    (cell.disturbed() ? "* " : "")
                                            + Units.millis(cell.medianNanos()),
                                    Units.millis(cell.minNanos())
                                            + " - "
                                            + Units.millis(cell.maxNanos()),
                                    Units.significant(cell.gflops()),
                                    percent(cell.gflops() / ceilings.fmaGflops()),
                                    Units.significant(cell.gbps()),
                                    percent(cell.gbps() / ceilings.streamGbps()),
                                    Units.significant(cell.experts())));
            if (onDevice()) {
                row.add(String.format(Locale.ROOT, "%.1f", cell.hostNanos() / 1e3));
            }
            table.row(row.toArray(String[]::new));
        }
        table.print(screen);
    }

    private void printStages(Screen screen) {
        Set<Stage> stages = new TreeSet<>();
        cells.forEach(cell -> stages.addAll(cell.stageNanos().keySet()));
        List<String> heading = new ArrayList<>(List.of("tokens"));
        stages.forEach(stage -> heading.add(id(stage)));
        heading.add("routing");
        heading.add("moves");
        TextTable table = new TextTable("r".repeat(heading.size()), heading.toArray(String[]::new));
        for (BenchCell cell : cells) {
            List<String> row = new ArrayList<>(List.of(Units.exact(cell.tokens())));
            for (Stage stage : stages) {
                row.add(Units.millis(cell.stageNanos().getOrDefault(stage, 0.0)));
            }
            row.add(stageShare(cell.routingShare()));
            row.add(stageShare(cell.movesShare()));
            table.row(row.toArray(String[]::new));
        }
        table.print(screen);
    }

    private void printNotes(Screen screen) {
        long heap = 0;
        long allocated = 0;
        long workspace = 0;
        boolean disturbed = false;
        for (BenchCell cell : cells) {
            heap = Math.max(heap, cell.peakHeapBytes());
            allocated = Math.max(allocated, cell.allocatedBytes());
            workspace = Math.max(workspace, cell.workspaceBytes());
            disturbed |= cell.disturbed();
            if (cell.notFinite() > 0) {
                screen.line(
                        screen.bad(
                                "  the result for "
                                        + Units.plural(cell.tokens(), "token", "tokens")
                                        + " has "
                                        + Units.plural(cell.notFinite(), "value", "values")
                                        + " that are not finite"));
            }
        }
        if (!cells.isEmpty()) {
            screen.field(
                    "memory",
                    "Java heap: "
                            + Units.bytes(allocated)
                            + " allocated by a pass, at most "
                            + Units.bytes(heap)
                            + " in use; native workspace: "
                            + Units.bytes(workspace));
        }
        if (disturbed) {
            screen.line(
                    "  * others took more than "
                            + OtherLoad.DISTURBING
                            + " CPU-seconds per second in every attempt");
        }
    }

    private static String stageShare(double share) {
        return Double.isNaN(share) ? "-" : String.format(Locale.ROOT, "%.1f%%", 100 * share);
    }

    /** For example {@code 63%}; of small shares one digit more. */
    static String percent(double share) {
        return String.format(Locale.ROOT, share < 0.0995 ? "%.1f%%" : "%.0f%%", 100 * share);
    }

    List<Map<String, Object>> json() {
        List<Map<String, Object>> results = new ArrayList<>();
        for (BenchCell cell : cells) {
            results.add(json(cell));
        }
        return results;
    }

    private Map<String, Object> json(BenchCell cell) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("preset", preset.name());
        json.put("tokens", cell.tokens());
        json.put("backend", backend.id());
        json.put("weights", id(weights));
        Map<String, Object> millis = new LinkedHashMap<>();
        millis.put("median", cell.medianNanos() / 1e6);
        millis.put("min", cell.minNanos() / 1e6);
        millis.put("max", cell.maxNanos() / 1e6);
        json.put("ms", millis);
        json.put("gflops", cell.gflops());
        json.put("gbps", cell.gbps());
        Map<String, Object> stages = new LinkedHashMap<>();
        cell.stageNanos().forEach((stage, nanos) -> stages.put(id(stage), nanos / 1e6));
        json.put("stages", stages);
        json.put("routing_share", json(cell.routingShare()));
        json.put("moves_share", json(cell.movesShare()));
        json.put("of_fma", cell.gflops() / ceilings.fmaGflops());
        json.put("of_stream", cell.gbps() / ceilings.streamGbps());
        json.put("ceilings", json(ceilings));
        json.put("threads", threads);
        json.put("timing", onDevice() ? "graph" : "host");
        json.put("host_us_per_replay", json(cell.hostNanos() / 1e3));
        json.put("passes", cell.passes());
        json.put("flops", cell.flops());
        json.put("weight_bytes_touched", cell.bytes());
        json.put("experts", preset.config().numExperts());
        json.put("experts_of_the_model", publishedExperts());
        json.put("experts_with_rows", cell.experts());
        json.put("weight_bytes", preset.weightBytes(weights));
        json.put("other_cpu_seconds_per_second", json(cell.otherLoad()));
        json.put("disturbed", cell.disturbed());
        json.put("peak_heap_bytes", cell.peakHeapBytes());
        json.put("allocated_bytes", cell.allocatedBytes());
        json.put("workspace_bytes", cell.workspaceBytes());
        json.put("not_finite", cell.notFinite());
        return json;
    }

    private static @Nullable Double json(double value) {
        return Double.isNaN(value) ? null : value;
    }

    static @Nullable Map<String, Object> json(@Nullable Ceilings ceilings) {
        if (ceilings == null) {
            return null;
        }
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("threads", ceilings.threads());
        json.put("fma_gflops", ceilings.fmaGflops());
        json.put("stream_gbps", ceilings.streamGbps());
        return json;
    }

    /** What was not measured. */
    List<Map<String, Object>> skippedJson() {
        List<Map<String, Object>> results = new ArrayList<>();
        skipped.forEach((tokens, why) -> {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("preset", preset.name());
            json.put("tokens", tokens);
            json.put("backend", backend.id());
            json.put("weights", id(weights));
            json.put("why", why);
            results.add(json);
        });
        return results;
    }
}
