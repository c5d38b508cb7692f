package jmoe.experiment;

import jmoe.MoeLayer;
import jmoe.Workspace;
import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Time over the number of experts, with as many per token: flat only where tokens are many. */
final class FlatTime implements Experiment {
    private static final int TOP_K = 2;
    private static final int HIDDEN = 256;
    private static final int INTERMEDIATE = 512;

    /** All experts for every token take too long beyond. */
    private static final int MAX_DENSE_EXPERTS = 64;

    private static final String EXPERTS = "experts";
    private static final String MANY = "ms, many tokens";
    private static final String FEW = "ms, few tokens";
    private static final String DENSE = "ms, all experts";
    private static final List<String> COLUMNS =
            List.of(EXPERTS, "rows/expert, many", MANY, "rows/expert, few", FEW, DENSE, "E/K");

    @Override
    public String name() {
        return "flat-time";
    }

    @Override
    public String claim() {
        return "With K of E experts per token the time does not depend on E, and is K/E of what all"
                + " experts take (Shazeer et al. 2017).";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        int many = effort.of(4096, 64);
        int few = effort.of(32, 4);
        Stopwatch stopwatch = new Stopwatch(kernels, effort);
        List<double[]> rows = new ArrayList<>();
        for (int experts : effort.of(new int[] {4, 8, 16, 32, 64, 128}, new int[] {4, 8})) {
            double dense = Double.NaN;
            if (experts <= MAX_DENSE_EXPERTS) {
                dense = millis(kernels, stopwatch, experts, experts, many, 1)[0];
            }
            double[] sparse = millis(kernels, stopwatch, experts, TOP_K, many, few);
            double rowsOfMany = (double) many * TOP_K / experts;
            double rowsOfFew = (double) few * TOP_K / experts;
            double ratio = (double) experts / TOP_K;
            rows.add(
                    new double[] {
                        experts, rowsOfMany, sparse[0], rowsOfFew, sparse[1], dense, ratio
                    });
        }
        List<Line> lines =
                List.of(
                        Report.line(many + " tokens, K = 2", COLUMNS, rows, EXPERTS, MANY),
                        Report.line(few + " tokens, K = 2", COLUMNS, rows, EXPERTS, FEW),
                        Report.line(many + " tokens, K = E", COLUMNS, rows, EXPERTS, DENSE));
        Plot plot = new Plot("Time of a layer", EXPERTS, "milliseconds", true, lines);
        return new Report(COLUMNS, rows, List.of(plot), findings(rows, many, few));
    }

    /** A layer with so many tokens, and with so many. */
    private static double[] millis(
            Kernels kernels, Stopwatch stopwatch, int experts, int topK, int... batches) {
        RouterConfig rule = RouterConfig.softmaxTopK(experts, topK, true);
        MoeConfig config = RandomWeights.config(HIDDEN, List.of(INTERMEDIATE), List.of(rule));
        double[] millis = new double[batches.length];
        try (Arena arena = Arena.ofShared();
                MoeLayer layer =
                        new MoeLayer(
                                config, RandomWeights.of(config, kernels, arena, 1), kernels)) {
            for (int i = 0; i < batches.length; i++) {
                int tokens = batches[i];
                Tensor x = Numbers.normal(kernels, arena, 5, 1, tokens, HIDDEN);
                Tensor y = kernels.allocate(arena, DType.F32, tokens, HIDDEN);
                try (Workspace workspace = layer.workspace(tokens)) {
                    millis[i] = stopwatch.micros(() -> layer.forward(x, y, workspace)) / 1e3;
                }
            }
        }
        return millis;
    }

    private static List<String> findings(List<double[]> rows, int many, int few) {
        double[] first = rows.getFirst();
        double[] last = rows.getLast();
        double[] dense = rows.stream().filter(row -> !Double.isNaN(row[5])).toList().getLast();
        return List.of(
                String.format(
                        Locale.ROOT,
                        "%d tokens: %.0f times the experts take %.2f times as long; the time is"
                            + " flat while every expert still has many rows (here %.0f or more).",
                        many,
                        last[0] / first[0],
                        last[2] / first[2],
                        last[1]),
                String.format(
                        Locale.ROOT,
                        "%d tokens: %.0f times the experts take %.2f times as long; with few tokens"
                            + " the time is that of reading the weights of min(E, K T) experts.",
                        few,
                        last[0] / first[0],
                        last[4] / first[4]),
                String.format(
                        Locale.ROOT,
                        "All %.0f experts for every token take %.1f times as long as %d of them;"
                                + " E/K is %.0f.",
                        dense[0],
                        dense[5] / dense[2],
                        TOP_K,
                        dense[6]));
    }
}
