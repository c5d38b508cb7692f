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

/** What is still dropped where slots without a place may try other experts. */
final class OverflowPolicies implements Experiment {
    private static final int EXPERTS = 64;
    private static final double SKEW = 0.45;

    private static final String TRIES = "tries";
    private static final List<String> COLUMNS =
            List.of("capacity factor", TRIES, "dropped, next choice", "dropped, ring");

    @Override
    public String name() {
        return "overflow";
    }

    @Override
    public String claim() {
        return "Ten percent more capacity and a neighbour for what overflows leave no token behind"
                + " (said in a survey; the next best expert instead is No Token Left Behind).";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        int tokens = effort.of(8192, 256);
        List<double[]> rows = new ArrayList<>();
        try (RoutedLogits logits = new RoutedLogits(kernels, tokens, EXPERTS, 1, SKEW)) {
            for (double factor : new double[] {1, 1.1, 1.25}) {
                for (int tries : new int[] {0, 1, 2, 4}) {
                    Capacity.Overflow next =
                            tries == 0
                                    ? new Capacity.Overflow.Drop()
                                    : new Capacity.Overflow.NextChoice(tries);
                    Capacity.Overflow ring =
                            tries == 0
                                    ? new Capacity.Overflow.Drop()
                                    : new Capacity.Overflow.Ring(tries);
                    double byNext = logits.dropRate(rule(factor, next));
                    rows.add(
                            new double[] {
                                factor, tries, byNext, logits.dropRate(rule(factor, ring))
                            });
                }
            }
        }
        return new Report(COLUMNS, rows, List.of(plot(rows)), findings(rows));
    }

    private static RouterConfig rule(double factor, Capacity.Overflow overflow) {
        CapacityLimit limit = new CapacityLimit.Factor(factor, CapacityLimit.Rounding.MEGATRON);
        return new RouterConfig(
                EXPERTS,
                1,
                Score.SOFTMAX,
                new Selection.TopK(),
                new Normalisation.None(),
                1,
                false,
                new Capacity(limit, Capacity.Priority.POSITION, false).withOverflow(overflow),
                RouterConfig.ALL_TOKENS);
    }

    private static Plot plot(List<double[]> rows) {
        List<Line> lines = new ArrayList<>();
        for (double factor : new double[] {1, 1.1, 1.25}) {
            List<double[]> some = rows.stream().filter(row -> row[0] == factor).toList();
            for (String column : COLUMNS.subList(2, 4)) {
                String name = "factor " + factor + ", " + column.replace("dropped, ", "");
                lines.add(Report.line(name, COLUMNS, some, TRIES, column));
            }
        }
        return new Plot("Slots that are dropped", TRIES, "share of all slots", false, lines);
    }

    private static List<String> findings(List<double[]> rows) {
        double[] none = rows.getFirst();
        double[] grown = rows.get(4);
        double[] best = rows.getLast();
        return List.of(
                String.format(
                        Locale.ROOT,
                        "10 %% more capacity alone: %.0f %% dropped instead of %.0f %%.",
                        100 * grown[2],
                        100 * none[2]),
                String.format(
                        Locale.ROOT,
                        "One try: %.0f %% dropped with the next best expert, %.0f %% with a"
                                + " neighbour.",
                        100 * rows.get(1)[2],
                        100 * rows.get(1)[3]),
                String.format(
                        Locale.ROOT,
                        "Even a factor of %.2f and %.0f tries leave %.1f %% (next best) and %.1f %%"
                                + " (neighbours) behind.",
                        best[0],
                        best[1],
                        100 * best[2],
                        100 * best[3]));
    }
}
