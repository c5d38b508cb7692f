package jmoe.cli;

import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;

import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.Styler.LegendPosition;
import org.knowm.xchart.style.markers.SeriesMarkers;

import java.awt.Color;
import java.awt.Graphics2D;
import java.nio.file.Path;
import java.util.List;

/** The plots of an experiment, side by side in one picture. */
final class ExperimentChart {
    private static final int WIDTH = 720;
    private static final int HEIGHT = 560;

    private ExperimentChart() {}

    /** Draws and writes. */
    static void write(Path file, List<Plot> plots) {
        Picture.write(
                "--chart", file, WIDTH * plots.size(), HEIGHT, graphics -> paint(graphics, plots));
    }

    private static void paint(Graphics2D graphics, List<Plot> plots) {
        for (Plot plot : plots) {
            chart(plot).paint(graphics, WIDTH, HEIGHT);
            graphics.translate(WIDTH, 0);
        }
    }

    private static XYChart chart(Plot plot) {
        XYChart chart =
                new XYChartBuilder()
                        .width(WIDTH)
                        .height(HEIGHT)
                        .title(plot.title())
                        .xAxisTitle(plot.x())
                        .yAxisTitle(plot.y())
                        .build();
        chart.getStyler()
                .setXAxisLogarithmic(plot.logarithmic())
                .setYAxisLogarithmic(plot.logarithmic());
        chart.getStyler()
                .setLegendPosition(LegendPosition.OutsideS)
                .setChartBackgroundColor(Color.WHITE);
        chart.getStyler().setMarkerSize(7);
        for (Line line : plot.lines()) {
            if (line.x().length > 0) {
                chart.addSeries(line.name(), line.x(), line.y()).setMarker(SeriesMarkers.CIRCLE);
            }
        }
        if (plot.logarithmic()) {
            ChartFile.fitDecades(chart);
        } else {
            chart.getStyler().setYAxisMin(0.0);
        }
        return chart;
    }
}
