package jmoe.experiment;

import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** What routing itself takes, for two published routers. */
final class RouterTime implements Experiment {
    private static final String TOKENS = "tokens";
    private static final List<String> SIZES = List.of("hidden", "experts", TOKENS);
    private static final String ALL = "us, all";
    private static final List<String> COLUMNS =
            List.of("hidden", "experts", TOKENS, "us, product", "us, route", "us, sort", ALL);

    @Override
    public String name() {
        return "router-time";
    }

    @Override
    public String claim() {
        return "Routing a token takes less than 3 microseconds (said of Switch Transformer in a"
                + " survey, without a source).";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        RouterConfig olmoe = RouterConfig.softmaxTopK(64, 8, false);
        RouterConfig deepseek =
                new RouterConfig(
                        256,
                        8,
                        Score.SIGMOID,
                        new Selection.GroupLimited(8, 4, GroupScore.TOP2_SUM),
                        new Normalisation.Sum(1e-20),
                        2.5,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        List<double[]> small = rows(kernels, effort, olmoe, effort.of(2048, 64));
        List<double[]> large = rows(kernels, effort, deepseek, effort.of(7168, 128));
        List<Line> lines =
                List.of(
                        Report.line("OLMoE, 64 experts", COLUMNS, small, TOKENS, ALL),
                        Report.line("DeepSeek-V3, 256 experts", COLUMNS, large, TOKENS, ALL));
        Plot plot = new Plot("Time of a router", TOKENS, "microseconds", true, lines);
        List<String> findings = new ArrayList<>();
        findings.add(finding("OLMoE", small));
        findings.add(finding("DeepSeek-V3", large));
        List<double[]> rows = new ArrayList<>(small);
        rows.addAll(large);
        return new Report(COLUMNS, rows, List.of(plot), findings);
    }

    private static List<double[]> rows(
            Kernels kernels, Effort effort, RouterConfig rule, int hidden) {
        Stopwatch stopwatch = new Stopwatch(kernels, effort);
        int[] batches = effort.of(new int[] {1, 8, 64, 512, 4096, 8192}, new int[] {1, 8});
        List<double[]> rows = new ArrayList<>();
        try (Arena weights = Arena.ofShared()) {
            int experts = rule.numExperts();
            double deviation = 1 / Math.sqrt(hidden);
            Tensor weight =
                    kernels.prepare(
                            Numbers.normal(kernels, weights, 1, deviation, 1, experts, hidden),
                            weights);
            for (int tokens : batches) {
                rows.add(row(kernels, stopwatch, rule, weight, tokens));
            }
        }
        return rows;
    }

    private static double[] row(
            Kernels kernels, Stopwatch stopwatch, RouterConfig rule, Tensor weight, int tokens) {
        try (Arena arena = Arena.ofShared()) {
            long hidden = weight.dim(2);
            int experts = rule.numExperts();
            Tensor x = Numbers.normal(kernels, arena, 2, 1, tokens, hidden);
            Tensor logits = kernels.allocate(arena, DType.F32, tokens, experts);
            Tensor host = Tensor.allocate(arena, DType.I32, 2);
            host.setInt(1, tokens);
            Tensor offsets = Numbers.placed(kernels, arena, host);
            Routing routing =
                    Routing.allocate(
                            (dtype, shape) -> kernels.allocate(arena, dtype, shape),
                            tokens,
                            rule.topK(),
                            experts);
            Runnable product = () -> kernels.groupedGemm(x, weight, null, offsets, logits);
            Runnable route = () -> kernels.route(logits, rule, RouteInputs.NONE, routing);
            Runnable sort = () -> kernels.sortByExpert(routing);
            double[] row = new double[COLUMNS.size()];
            row[0] = hidden;
            row[1] = experts;
            row[2] = tokens;
            row[3] = stopwatch.micros(product);
            row[4] = stopwatch.micros(route);
            row[5] = stopwatch.micros(sort);
            row[SIZES.size() + 3] =
                    stopwatch.micros(() -> {
                        product.run();
                        kernels.routeSort(logits, rule, RouteInputs.NONE, routing);
                    });
            return row;
        }
    }

    private static String finding(String name, List<double[]> rows) {
        double[] first = rows.getFirst();
        double[] last = rows.getLast();
        return String.format(
                Locale.ROOT,
                "%s: %.0f us for one token, %.2f us per token for %.0f.",
                name,
                first[6],
                last[6] / last[2],
                last[2]);
    }
}
