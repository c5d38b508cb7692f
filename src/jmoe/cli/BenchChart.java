package jmoe.cli;

import jmoe.vector.Ceilings;

import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.style.Styler.LegendPosition;
import org.knowm.xchart.style.XYStyler;
import org.knowm.xchart.style.lines.SeriesLines;
import org.knowm.xchart.style.markers.SeriesMarkers;

import java.awt.Color;
import java.awt.Graphics2D;
import java.nio.file.Path;
import java.util.List;

/** Measurements as a roofline and as time over tokens, side by side in one picture. */
final class BenchChart {
    private static final int WIDTH = 640;
    private static final int HEIGHT = 600;

    /** Room for the legend, which both halves share. */
    private static final int LEGEND_WIDTH = 330;

    private static final Color[] COLOURS = {
        new Color(0x1f77b4), new Color(0xd62728), new Color(0x2ca02c), new Color(0xff7f0e),
        new Color(0x9467bd), new Color(0x8c564b), new Color(0xe377c2), new Color(0x17becf),
        new Color(0xbcbd22), new Color(0x7f7f7f)
    };

    private BenchChart() {}

    /** Draws and writes. */
    static void write(Path file, List<BenchSeries> all) {
        int width = 2 * WIDTH + LEGEND_WIDTH;
        Picture.write("--chart", file, width, HEIGHT, graphics -> paint(graphics, all));
    }

    private static void paint(Graphics2D graphics, List<BenchSeries> all) {
        paint(graphics, roofline(all), WIDTH);
        graphics.translate(WIDTH, 0);
        paint(graphics, times(all), WIDTH + LEGEND_WIDTH);
    }

    private static void paint(Graphics2D graphics, XYChart chart, int width) {
        ChartFile.fitDecades(chart);
        chart.paint(graphics, width, HEIGHT);
    }

    private static XYChart roofline(List<BenchSeries> all) {
        Ceilings roof = BenchSeries.roof(all);
        XYChart chart =
                chart(
                        WIDTH,
                        roof == null
                                ? "Roofline"
                                : "Roofline: "
                                        + Units.significant(roof.fmaGflops())
                                        + " GFLOP/s, "
                                        + Units.significant(roof.streamGbps())
                                        + " GB/s",
                        "FLOP per byte of weights",
                        "GFLOP/s");
        chart.getStyler().setLegendVisible(false);
        double least = Double.POSITIVE_INFINITY;
        double most = 0;
        for (int i = 0; i < all.size(); i++) {
            List<BenchCell> cells = all.get(i).cells();
            double[] x = cells.stream().mapToDouble(c -> c.flops() / c.bytes()).toArray();
            double[] y = cells.stream().mapToDouble(BenchCell::gflops).toArray();
            add(chart, all.get(i), x, y, i);
            for (double intensity : x) {
                least = Math.min(least, intensity);
                most = Math.max(most, intensity);
            }
        }
        if (roof != null && most > 0) {
            addRoof(chart, roof, least, most);
        }
        return chart;
    }

    private static void addRoof(XYChart chart, Ceilings roof, double least, double most) {
        double ridge = roof.fmaGflops() / roof.streamGbps();
        double left = Math.min(least, ridge) / 1.5;
        double right = Math.max(most, ridge) * 1.5;
        double[] x = {left, ridge, right};
        double[] y = {left * roof.streamGbps(), roof.fmaGflops(), roof.fmaGflops()};
        XYSeries line = chart.addSeries("roof", x, y);
        line.setMarker(SeriesMarkers.NONE);
        line.setLineColor(Color.BLACK);
        line.setLineStyle(SeriesLines.SOLID);
    }

    private static XYChart times(List<BenchSeries> all) {
        XYChart chart = chart(WIDTH + LEGEND_WIDTH, "Time of a layer", "tokens", "milliseconds");
        chart.getStyler().setLegendPosition(LegendPosition.OutsideE);
        for (int i = 0; i < all.size(); i++) {
            List<BenchCell> cells = all.get(i).cells();
            double[] x = cells.stream().mapToDouble(BenchCell::tokens).toArray();
            double[] y = cells.stream().mapToDouble(c -> c.medianNanos() / 1e6).toArray();
            add(chart, all.get(i), x, y, i);
        }
        return chart;
    }

    private static void add(XYChart chart, BenchSeries series, double[] x, double[] y, int index) {
        if (x.length == 0) {
            return;
        }
        XYSeries line = chart.addSeries(series.label(), x, y);
        line.setMarker(SeriesMarkers.CIRCLE);
        line.setLineColor(COLOURS[index % COLOURS.length]);
        line.setMarkerColor(COLOURS[index % COLOURS.length]);
        line.setLineStyle(
                index / COLOURS.length % 2 == 0 ? SeriesLines.SOLID : SeriesLines.DASH_DASH);
    }

    private static XYChart chart(int width, String title, String x, String y) {
        XYChart chart =
                new XYChartBuilder()
                        .width(width)
                        .height(HEIGHT)
                        .title(title)
                        .xAxisTitle(x)
                        .yAxisTitle(y)
                        .build();
        XYStyler styler = chart.getStyler();
        styler.setXAxisLogarithmic(true);
        styler.setYAxisLogarithmic(true);
        styler.setChartBackgroundColor(Color.WHITE);
        styler.setMarkerSize(7);
        return chart;
    }
}
