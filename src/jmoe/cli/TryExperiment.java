package jmoe.cli;

import jmoe.experiment.Effort;
import jmoe.experiment.Experiment;
import jmoe.experiment.Experiments;
import jmoe.experiment.Report;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.StringJoiner;
import java.util.concurrent.Callable;

/** Tries a published claim on this machine. */
@Command(
        name = "experiment",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "Try a published claim about MoE layers on this machine.",
        footer = {
            "",
            "Without a name, lists the experiments and the claims they are about.",
            "",
            "Examples:",
            "  jmoe experiment",
            "  jmoe experiment product-keys --chart keys.svg",
            "  jmoe experiment flat-time --backend vector --json >flat-time.json"
        })
final class TryExperiment implements Callable<Integer> {
    private final Screen screen;

    @Parameters(arity = "0..1", paramLabel = "NAME", description = "Which one.")
    private @Nullable String name;

    @Mixin private BackendOptions backendOptions;

    @Option(names = "--quick", description = "Small sizes, to see that everything works.")
    private boolean quick;

    @Option(
            names = "--chart",
            paramLabel = "FILE",
            description = "Draw the numbers: FILE ends in .svg or .png.")
    private @Nullable Path chart;

    @Option(names = "--json", description = "Report as one JSON object.")
    private boolean json;

    TryExperiment(Screen screen) {
        this.screen = screen;
    }

    @Override
    public Integer call() {
        if (name == null) {
            list();
            return Main.OK;
        }
        Experiment experiment = experiment(name);
        if (chart != null) {
            ChartFile.check("--chart", chart);
        }
        try (OpenBackend backend = backendOptions.open()) {
            Effort effort = quick ? Effort.QUICK : Effort.FULL;
            Report report = experiment.run(backend.kernels(), effort);
            if (chart != null) {
                ExperimentChart.write(chart, report.plots());
            }
            if (json) {
                screen.json(json(experiment, backend, report));
            } else {
                print(experiment, backend, report);
            }
        }
        return Main.OK;
    }

    private static Experiment experiment(String name) {
        StringJoiner names = new StringJoiner(", ");
        for (Experiment experiment : Experiments.all()) {
            if (experiment.name().equals(name)) {
                return experiment;
            }
            names.add(experiment.name());
        }
        throw new IllegalArgumentException("NAME: expected one of " + names + ", got " + name);
    }

    private void list() {
        if (json) {
            List<Map<String, Object>> all = new ArrayList<>();
            for (Experiment experiment : Experiments.all()) {
                all.add(Map.of("name", experiment.name(), "claim", experiment.claim()));
            }
            screen.json(Map.of("experiments", all));
            return;
        }
        for (Experiment experiment : Experiments.all()) {
            screen.field(experiment.name(), experiment.claim());
        }
    }

    private void print(Experiment experiment, OpenBackend backend, Report report) {
        screen.field("claim", experiment.claim());
        screen.field("backend", backend.description());
        if (quick) {
            screen.field("effort", "quick: sizes too small for the numbers to mean much");
        }
        screen.line();
        String[] heading = report.columns().toArray(String[]::new);
        TextTable table = new TextTable("r".repeat(heading.length), heading);
        for (double[] row : report.rows()) {
            String[] cells = new String[row.length];
            for (int i = 0; i < cells.length; i++) {
                cells[i] = number(row[i]);
            }
            table.row(cells);
        }
        table.print(screen);
        screen.line();
        for (String finding : report.findings()) {
            screen.field("finding", finding);
        }
        if (chart != null) {
            screen.field("chart", chart.toString());
        }
    }

    private static String number(double value) {
        if (Double.isNaN(value)) {
            return "-";
        }
        return value == Math.rint(value) ? Units.exact((long) value) : Units.significant(value);
    }

    private static Map<String, Object> json(
            Experiment experiment, OpenBackend backend, Report report) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", experiment.name());
        json.put("claim", experiment.claim());
        json.put("backend", backend.json());
        List<Map<String, Object>> rows = new ArrayList<>();
        for (double[] row : report.rows()) {
            Map<String, Object> cells = new LinkedHashMap<>();
            for (int i = 0; i < row.length; i++) {
                cells.put(report.columns().get(i), Double.isNaN(row[i]) ? null : (Object) row[i]);
            }
            rows.add(cells);
        }
        json.put("rows", rows);
        json.put("findings", report.findings());
        return json;
    }
}
