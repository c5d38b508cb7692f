package jmoe.experiment;

import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Capacity;
import jmoe.ops.CapacityLimit;
import jmoe.ops.Kernels;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Share of the slots that a capacity drops, over its factor. */
final class CapacityDrops implements Experiment {
    private static final int EXPERTS = 8;
    private static final int TOP_K = 2;

    /** What is common to an expert's logits, compared with what is a token's own. */
    private static final double SKEW = 0.6;

    private static final String FACTOR = "capacity factor";
    private static final String EVEN = "dropped, even router";
    private static final String SKEWED = "dropped, skewed router";
    private static final List<String> COLUMNS = List.of(FACTOR, EVEN, SKEWED, "places/slot");

    @Override
    public String name() {
        return "capacity";
    }

    @Override
    public String claim() {
        return "A capacity factor is a safe bound: 0.25 of the tokens per expert is typical (said"
                + " in a survey), 1.25 drops little (Fedus et al. 2021).";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        int tokens = effort.of(8192, 256);
        List<double[]> rows = new ArrayList<>();
        double fraction;
        try (RoutedLogits even = new RoutedLogits(kernels, tokens, EXPERTS, 1, 0);
                RoutedLogits skewed = new RoutedLogits(kernels, tokens, EXPERTS, 1, SKEW)) {
            for (double factor : new double[] {0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4}) {
                CapacityLimit limit =
                        new CapacityLimit.Factor(factor, CapacityLimit.Rounding.MEGATRON);
                RouterConfig rule = rule(limit);
                double places = (double) limit.of(tokens, TOP_K, EXPERTS) * EXPERTS;
                rows.add(
                        new double[] {
                            factor,
                            even.dropRate(rule),
                            skewed.dropRate(rule),
                            places / (tokens * TOP_K)
                        });
            }
            fraction = skewed.dropRate(rule(new CapacityLimit.Fraction(0.25)));
        }
        List<Line> lines =
                List.of(
                        Report.line("even router", COLUMNS, rows, FACTOR, EVEN),
                        Report.line("skewed router", COLUMNS, rows, FACTOR, SKEWED));
        Plot plot = new Plot("Slots that are dropped", FACTOR, "share of all slots", false, lines);
        return new Report(COLUMNS, rows, List.of(plot), findings(rows, fraction));
    }

    private static RouterConfig rule(CapacityLimit limit) {
        return new RouterConfig(
                EXPERTS,
                TOP_K,
                Score.SOFTMAX,
                new Selection.TopK(),
                new Normalisation.Sum(0),
                1,
                false,
                new Capacity(limit, Capacity.Priority.POSITION, false),
                RouterConfig.ALL_TOKENS);
    }

    private static List<String> findings(List<double[]> rows, double fraction) {
        List<String> findings = new ArrayList<>();
        for (double[] row : rows) {
            if (row[0] == 0.25 || row[0] == 1 || row[0] == 1.25) {
                findings.add(
                        String.format(
                                Locale.ROOT,
                                "Factor %.2f drops %.0f %% of the slots of an even router and %.0f"
                                        + " %% of a skewed one.",
                                row[0],
                                100 * row[1],
                                100 * row[2]));
            }
        }
        findings.add(
                String.format(
                        Locale.ROOT,
                        "A quarter of the tokens for each expert, which with 2 of 8 experts is a"
                                + " factor of 1, drops %.0f %% of a skewed router's slots.",
                        100 * fraction));
        return findings;
    }
}
