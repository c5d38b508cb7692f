package jmoe.experiment;

import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Kernels;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.train.ExpertLoad;
import jmoe.train.RouterBatch;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Experts per token of rules that let the router's certainty decide. */
final class DynamicK implements Experiment {
    private static final int EXPERTS = 64;
    private static final int MOST_BY_ENTROPY = 8;
    private static final int MOST_BY_SUM = 16;
    private static final double ALPHA = 1.5;
    private static final double P = 0.4;

    private static final String ENTROPY = "entropy, nats";
    private static final String BY_ENTROPY = "experts by entropy";
    private static final String BY_SUM = "experts by top-p";
    private static final List<String> COLUMNS = List.of("temperature", ENTROPY, BY_ENTROPY, BY_SUM);

    @Override
    public String name() {
        return "dynamic-k";
    }

    @Override
    public String claim() {
        return "Tokens of which a router is certain need fewer experts: as many as the entropy of"
                + " its softmax says, or as reach a probability (Huang et al. 2024).";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        int tokens = effort.of(4096, 64);
        RouterConfig byEntropy = rule(new Selection.EntropyK(ALPHA, 1), MOST_BY_ENTROPY);
        RouterConfig bySum = rule(new Selection.TopP(P, 1), MOST_BY_SUM);
        List<double[]> rows = new ArrayList<>();
        for (double temperature : new double[] {0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 4, 10}) {
            try (RoutedLogits logits =
                    new RoutedLogits(kernels, tokens, EXPERTS, 1 / temperature, 0)) {
                RouterBatch batch = logits.route(byEntropy);
                rows.add(
                        new double[] {
                            temperature,
                            entropy(batch, tokens),
                            perToken(batch, tokens),
                            perToken(logits.route(bySum), tokens)
                        });
            }
        }
        List<Line> lines =
                List.of(
                        Report.line("by entropy, 1 to 8", COLUMNS, rows, ENTROPY, BY_ENTROPY),
                        Report.line("top-p of 0.4, 1 to 16", COLUMNS, rows, ENTROPY, BY_SUM));
        Plot plot = new Plot("Experts of a token", ENTROPY, "experts, mean", false, lines);
        return new Report(COLUMNS, rows, List.of(plot), List.of(finding(rows)));
    }

    private static RouterConfig rule(Selection selection, int most) {
        return new RouterConfig(
                EXPERTS,
                most,
                Score.SOFTMAX,
                selection,
                new Normalisation.None(),
                1,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    private static double entropy(RouterBatch batch, int tokens) {
        double[] p = new double[EXPERTS];
        double sum = 0;
        for (int token = 0; token < tokens; token++) {
            batch.probabilities(token, p);
            for (double share : p) {
                sum -= share == 0 ? 0 : share * Math.log(share);
            }
        }
        return sum / tokens;
    }

    private static double perToken(RouterBatch batch, int tokens) {
        return (double) ExpertLoad.of(batch).assigned().sum() / tokens;
    }

    private static String finding(List<double[]> rows) {
        double[] first = rows.getFirst();
        double[] last = rows.getLast();
        return String.format(
                Locale.ROOT,
                "From an entropy of %.2f to one of %.2f nats (at most ln 64 = 4.16), the mean goes"
                        + " from %.1f to %.1f experts by entropy and from %.1f to %.1f by top-p.",
                first[1],
                last[1],
                first[2],
                last[2],
                first[3],
                last[3]);
    }
}
