package jmoe.experiment;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Kernels;
import jmoe.vector.VectorKernels;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** What experiments report, apart from times. */
final class ExperimentsTest {
    static List<Experiment> all() {
        return Experiments.all();
    }

    @Test
    void names_areDifferentWords() {
        Set<String> names = new HashSet<>();
        for (Experiment experiment : Experiments.all()) {
            assertThat(experiment.name()).matches("[a-z]+(-[a-z]+)*");
            assertThat(names.add(experiment.name())).as(experiment.name()).isTrue();
        }
    }

    @ParameterizedTest
    @MethodSource("all")
    void experiments_reportRowsPlotsAndFindings(Experiment experiment) {
        Report report = report(experiment);
        assertThat(report.rows()).hasSizeGreaterThan(1);
        assertThat(report.findings()).isNotEmpty().allMatch(finding -> finding.endsWith("."));
        assertThat(experiment.claim()).endsWith(".");
        assertThat(report.plots()).isNotEmpty();
        for (Plot plot : report.plots()) {
            for (Line line : plot.lines()) {
                assertThat(line.x()).hasSameSizeAs(line.y());
                for (int i = 0; i < line.x().length; i++) {
                    assertThat(line.x()[i]).isFinite();
                    assertThat(line.y()[i]).isFinite();
                    if (plot.logarithmic()) {
                        assertThat(Math.min(line.x()[i], line.y()[i])).isPositive();
                    }
                }
            }
        }
    }

    @Test
    void productKeys_chooseWhatAllKeysChoose() {
        assertThat(column(report(new ProductKeyTime()), "tokens that differ")).containsOnly(0);
    }

    @Test
    void modalities_areTwoLayersSideBySide() {
        Report report = report(new ModalityIsolation());
        for (String name : List.of("slots that cross", "rows that leak", "rows that differ")) {
            assertThat(column(report, name)).as(name).containsOnly(0);
        }
        assertThat(column(report, "images")).isSorted().startsWith(0).endsWith(48);
    }

    private static Report report(Experiment experiment) {
        try (Kernels kernels = new VectorKernels(2)) {
            return experiment.run(kernels, Effort.QUICK);
        }
    }

    private static double[] column(Report report, String name) {
        int column = report.columns().indexOf(name);
        assertThat(column).as(name).isNotNegative();
        return report.rows().stream().mapToDouble(row -> row[column]).toArray();
    }
}
