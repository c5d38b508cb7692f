package jmoe.cli;

import jmoe.cli.TimedKernels.Stage;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** What repeated forward passes took, as a whole and by stage. */
final class Passes {
    private final TimedKernels kernels;
    private final List<Long> passNanos = new ArrayList<>();
    private final Map<Stage, List<Long>> stageNanos = new EnumMap<>(Stage.class);

    /**
     * Measurements of passes over these kernels.
     *
     * @param kernels what the layer runs on
     */
    Passes(TimedKernels kernels) {
        this.kernels = kernels;
        for (Stage stage : Stage.values()) {
            stageNanos.put(stage, new ArrayList<>());
        }
    }

    /** Runs and measures one pass. */
    void measure(Runnable forward) {
        kernels.reset();
        long start = System.nanoTime();
        forward.run();
        passNanos.add(System.nanoTime() - start);
        for (Stage stage : Stage.values()) {
            stageNanos.get(stage).add(kernels.meter(stage).nanos());
        }
    }

    int count() {
        return passNanos.size();
    }

    double medianNanos() {
        return median(passNanos);
    }

    double minNanos() {
        return passNanos.stream().mapToDouble(Long::doubleValue).min().orElse(0);
    }

    double maxNanos() {
        return passNanos.stream().mapToDouble(Long::doubleValue).max().orElse(0);
    }

    double medianNanos(Stage stage) {
        return median(stageNanos.get(stage));
    }

    /** The stage table. */
    void print(Screen screen) {
        TextTable table =
                new TextTable(
                        "lrrrrrrr",
                        "stage",
                        "calls",
                        "ms",
                        "share",
                        "bytes",
                        "FLOP",
                        "GB/s",
                        "GFLOP/s");
        double whole = medianNanos();
        for (Stage stage : Stage.values()) {
            if (kernels.meter(stage).calls() == 0) {
                continue;
            }
            double nanos = medianNanos(stage);
            long bytes = kernels.meter(stage).bytes();
            long flops = kernels.meter(stage).flops();
            table.row(
                    name(stage),
                    Long.toString(kernels.meter(stage).calls()),
                    Units.millis(nanos),
                    share(nanos, whole),
                    Units.bytes(bytes),
                    flops == 0 ? "-" : Units.flops(flops),
                    Units.rate(bytes, nanos),
                    Units.rate(flops, nanos));
        }
        long bytes = totalBytes();
        long flops = totalFlops();
        table.row(
                "whole pass",
                "",
                Units.millis(whole),
                "100%",
                Units.bytes(bytes),
                Units.flops(flops),
                Units.rate(bytes, whole),
                Units.rate(flops, whole));
        table.print(screen);
    }

    private static String share(double nanos, double whole) {
        return whole == 0 ? "-" : String.format(Locale.ROOT, "%.0f%%", 100 * nanos / whole);
    }

    /** Bytes that one pass touches. */
    long totalBytes() {
        long total = 0;
        for (Stage stage : Stage.values()) {
            total += kernels.meter(stage).bytes();
        }
        return total;
    }

    /** Floating-point operations of one pass. */
    long totalFlops() {
        long total = 0;
        for (Stage stage : Stage.values()) {
            total += kernels.meter(stage).flops();
        }
        return total;
    }

    /** The whole pass for programs. */
    Map<String, Object> passJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("median", medianNanos() / 1e6);
        json.put("min", minNanos() / 1e6);
        json.put("max", maxNanos() / 1e6);
        return json;
    }

    /** The stage table for programs. */
    List<Map<String, Object>> stagesJson() {
        List<Map<String, Object>> stages = new ArrayList<>();
        for (Stage stage : Stage.values()) {
            double nanos = medianNanos(stage);
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("stage", name(stage));
            json.put("calls", kernels.meter(stage).calls());
            json.put("ms", nanos / 1e6);
            json.put("bytes", kernels.meter(stage).bytes());
            json.put("flops", kernels.meter(stage).flops());
            json.put("gb_per_s", nanos == 0 ? 0 : kernels.meter(stage).bytes() / nanos);
            json.put("gflop_per_s", nanos == 0 ? 0 : kernels.meter(stage).flops() / nanos);
            stages.add(json);
        }
        return stages;
    }

    private static String name(Stage stage) {
        return stage.name().toLowerCase(Locale.ROOT);
    }

    private static double median(List<Long> values) {
        long[] sorted = values.stream().mapToLong(Long::longValue).toArray();
        Arrays.sort(sorted);
        int middle = sorted.length / 2;
        if (sorted.length == 0) {
            return 0;
        }
        return sorted.length % 2 == 1
                ? sorted[middle]
                : (sorted[middle - 1] + (double) sorted[middle]) / 2;
    }
}
