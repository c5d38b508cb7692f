package jmoe;

import org.knowm.xchart.ChartEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.Styler.LegendPosition;

import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Draws JMH's JSON report as time over tokens: {@code ResultsChart report.json chart.svg} (or
 * .png).
 */
public final class ResultsChart {
    private ResultsChart() {}

    /**
     * Reads a report and writes a chart.
     *
     * @param args report of {@code -rf json}, chart file
     * @throws IOException if the chart cannot be written
     */
    public static void main(String[] args) throws IOException {
        if (args.length != 2) {
            throw new IllegalArgumentException("usage: ResultsChart REPORT.json CHART.svg|png");
        }
        XYChart chart = chart(JsonMapper.shared().readTree(Path.of(args[0])));
        String format = args[1].substring(args[1].lastIndexOf('.') + 1);
        try (OutputStream file = Files.newOutputStream(Path.of(args[1]))) {
            ChartEncoder.saveChart(chart, file, format);
        }
    }

    private static XYChart chart(JsonNode report) {
        // Series name to (tokens, microseconds).
        Map<String, TreeMap<Integer, Double>> series = new TreeMap<>();
        for (JsonNode result : report) {
            JsonNode params = result.get("params");
            String benchmark = result.get("benchmark").asString();
            String name =
                    benchmark.substring(benchmark.lastIndexOf('.') + 1)
                            + ", "
                            + params.get("shape").asString()
                            + " "
                            + params.get("weights").asString()
                            + ", "
                            + params.get("backend").asString();
            series.computeIfAbsent(name, n -> new TreeMap<>())
                    .put(
                            Integer.parseInt(params.get("tokens").asString()),
                            result.get("primaryMetric").get("score").asDouble());
        }
        XYChart chart =
                new XYChartBuilder()
                        .width(900)
                        .height(560)
                        .title("Time of one call")
                        .xAxisTitle("tokens")
                        .yAxisTitle("microseconds")
                        .build();
        chart.getStyler().setXAxisLogarithmic(true);
        chart.getStyler().setYAxisLogarithmic(true);
        chart.getStyler().setLegendPosition(LegendPosition.OutsideS);
        series.forEach((name, points) -> {
            List<Integer> tokens = new ArrayList<>(points.keySet());
            chart.addSeries(name, tokens, new ArrayList<>(points.values()));
        });
        return chart;
    }
}
