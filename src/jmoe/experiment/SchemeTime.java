package jmoe.experiment;

import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Capacity;
import jmoe.ops.CapacityLimit;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** What each way of choosing takes, from logits to experts and weights. */
final class SchemeTime implements Experiment {
    private static final int TOP_K = 8;
    private static final String EXPERTS = "experts";

    /** A way of choosing; the first is what the others are compared with. */
    private record Scheme(
            String name, Score score, Selection selection, int topK, @Nullable Capacity capacity) {
        RouterConfig rule(int experts) {
            return new RouterConfig(
                    experts,
                    topK == 0 ? experts : topK,
                    score,
                    selection,
                    new Normalisation.None(),
                    1,
                    false,
                    capacity,
                    RouterConfig.ALL_TOKENS);
        }

        static Scheme of(String name, Score score, Selection selection) {
            return new Scheme(name, score, selection, TOP_K, null);
        }
    }

    private static final List<Scheme> SCHEMES =
            List.of(
                    Scheme.of("top-k", Score.SOFTMAX, new Selection.TopK()),
                    Scheme.of("sigmoid top-k", Score.SIGMOID, new Selection.TopK()),
                    Scheme.of(
                            "group-limited",
                            Score.SIGMOID,
                            new Selection.GroupLimited(8, 4, GroupScore.TOP2_SUM)),
                    Scheme.of(
                            "one per group",
                            Score.SOFTMAX,
                            new Selection.OnePerGroup(8, Scope.GLOBAL)),
                    Scheme.of("two-level", Score.SOFTMAX, new Selection.TwoLevel(8, 4, 2)),
                    Scheme.of("top-p", Score.SOFTMAX, new Selection.TopP(0.4, 1)),
                    Scheme.of("entropy-k", Score.SOFTMAX, new Selection.EntropyK(1.5, 1)),
                    new Scheme(
                            "capacity 1.25",
                            Score.SOFTMAX,
                            new Selection.TopK(),
                            TOP_K,
                            new Capacity(
                                    new CapacityLimit.Factor(1.25, CapacityLimit.Rounding.MEGATRON),
                                    Capacity.Priority.POSITION,
                                    false)),
                    new Scheme(
                            "expert choice", Score.SOFTMAX, new Selection.ExpertChoice(8), 0, null),
                    new Scheme(
                            "Sinkhorn", Score.SOFTMAX, new Selection.Sinkhorn(1e-4, 100), 8, null),
                    new Scheme(
                            "balanced",
                            Score.SIGMOID,
                            new Selection.BalancedAssignment(0.02),
                            1,
                            null));

    @Override
    public String name() {
        return "scheme-time";
    }

    @Override
    public String claim() {
        return "Choosing experts costs next to nothing, however it is done.";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        int tokens = effort.of(4096, 32);
        Stopwatch stopwatch = new Stopwatch(kernels, effort);
        List<String> columns = new ArrayList<>(List.of(EXPERTS));
        for (Scheme scheme : SCHEMES) {
            columns.add("us, " + scheme.name);
        }
        List<double[]> rows = new ArrayList<>();
        for (int experts : effort.of(new int[] {16, 64, 256}, new int[] {16, 32})) {
            rows.add(row(kernels, stopwatch, tokens, experts));
        }
        List<Line> lines = new ArrayList<>();
        for (int i = 0; i < SCHEMES.size(); i++) {
            lines.add(Report.line(SCHEMES.get(i).name, columns, rows, EXPERTS, columns.get(i + 1)));
        }
        String title = "From logits to experts, " + tokens + " tokens";
        Plot plot = new Plot(title, EXPERTS, "microseconds", true, lines);
        return new Report(columns, rows, List.of(plot), findings(rows, tokens));
    }

    private static double[] row(Kernels kernels, Stopwatch stopwatch, int tokens, int experts) {
        double[] row = new double[SCHEMES.size() + 1];
        row[0] = experts;
        try (Arena arena = Arena.ofShared()) {
            Tensor logits = Numbers.normal(kernels, arena, 1, 1, tokens, experts);
            for (int i = 0; i < SCHEMES.size(); i++) {
                RouterConfig rule = SCHEMES.get(i).rule(experts);
                Routing routing =
                        Routing.allocate(
                                (dtype, shape) -> kernels.allocate(arena, dtype, shape),
                                tokens,
                                rule.topK(),
                                experts);
                row[i + 1] =
                        stopwatch.micros(
                                () -> kernels.route(logits, rule, RouteInputs.NONE, routing));
            }
        }
        return row;
    }

    private static List<String> findings(List<double[]> rows, int tokens) {
        double[] last = rows.getLast();
        List<String> findings = new ArrayList<>();
        findings.add(
                String.format(
                        Locale.ROOT,
                        "With %.0f experts plain top-k takes %.2f us per token.",
                        last[0],
                        last[1] / tokens));
        for (int i = 1; i < SCHEMES.size(); i++) {
            findings.add(
                    String.format(
                            Locale.ROOT,
                            "%s: %.1f times plain top-k.",
                            SCHEMES.get(i).name,
                            last[i + 1] / last[1]));
        }
        return findings;
    }
}
