package jmoe.experiment;

import java.util.ArrayList;
import java.util.List;

/**
 * What an experiment found.
 *
 * @param columns names of the numbers, units included
 * @param rows one array of numbers for each row, as long as there are columns; NaN where there is
 *     none
 * @param plots the same as pictures, side by side
 * @param findings what the numbers say, one sentence each
 */
public record Report(
        List<String> columns, List<double[]> rows, List<Plot> plots, List<String> findings) {
    /** Copies the lists and checks the rows. */
    public Report {
        columns = List.copyOf(columns);
        rows = List.copyOf(rows);
        plots = List.copyOf(plots);
        findings = List.copyOf(findings);
        for (double[] row : rows) {
            if (row.length != columns.size()) {
                throw new IllegalArgumentException(
                        "rows: expected " + columns.size() + " numbers each, got " + row.length);
            }
        }
    }

    /**
     * Lines over one pair of axes.
     *
     * @param title above it
     * @param x name of the horizontal axis, with its unit
     * @param y name of the vertical axis, with its unit
     * @param logarithmic whether both axes are; all numbers must be above 0 then
     * @param lines at least one
     */
    public record Plot(String title, String x, String y, boolean logarithmic, List<Line> lines) {
        /** Copies the list. */
        public Plot {
            lines = List.copyOf(lines);
        }
    }

    /**
     * Points that belong together.
     *
     * @param name in the legend
     * @param x horizontal
     * @param y vertical, as many
     */
    public record Line(String name, double[] x, double[] y) {}

    /**
     * Points of two columns, in the order of the rows; rows without a number are left out.
     *
     * @param name in the legend
     * @param columns names of all columns
     * @param rows as above
     * @param x name of a column
     * @param y name of a column
     * @return the line
     */
    static Line line(String name, List<String> columns, List<double[]> rows, String x, String y) {
        int first = columns.indexOf(x);
        int second = columns.indexOf(y);
        List<double[]> points = new ArrayList<>();
        for (double[] row : rows) {
            if (!Double.isNaN(row[first]) && !Double.isNaN(row[second])) {
                points.add(new double[] {row[first], row[second]});
            }
        }
        double[] xs = new double[points.size()];
        double[] ys = new double[points.size()];
        for (int i = 0; i < xs.length; i++) {
            xs[i] = points.get(i)[0];
            ys[i] = points.get(i)[1];
        }
        return new Line(name, xs, ys);
    }
}
