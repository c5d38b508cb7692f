package jmoe.cli;

import jmoe.checkpoint.CheckpointException;

import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYSeries;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/** A picture that a command draws. Whether it can be is made sure before anything is measured. */
final class ChartFile {
    private static final List<String> FORMATS = List.of("svg", "png");

    private ChartFile() {}

    /**
     * Checks the file to write.
     *
     * @param option that names it
     * @throws IllegalArgumentException for another format
     * @throws UnsupportedOperationException without the Java module that draws
     * @throws CheckpointException if the file cannot be written
     */
    static void check(String option, Path file) {
        format(option, file);
        if (ModuleLayer.boot().findModule("java.desktop").isEmpty()) {
            throw new UnsupportedOperationException(
                    option
                            + ": this Java runtime has no module java.desktop; draw on a machine"
                            + " with a full JDK, or take --json");
        }
        Path folder = file.toAbsolutePath().getParent();
        if (Files.isDirectory(file)
                || (Files.exists(file) && !Files.isWritable(file))
                || folder == null
                || !Files.isDirectory(folder)
                || !Files.isWritable(folder)) {
            throw new CheckpointException(
                    option
                            + ": "
                            + file
                            + ": cannot be written; name a file in a folder that exists");
        }
    }

    /** The format that the name of a file asks for: svg or png. */
    static String format(String option, Path file) {
        String name = file.toString().toLowerCase(Locale.ROOT);
        for (String format : FORMATS) {
            if (name.endsWith("." + format)) {
                return format;
            }
        }
        throw new IllegalArgumentException(
                option + ": expected a file ending in .svg or .png, got " + file);
    }

    /** Ends logarithmic axes at whole decades: only those have labels. */
    static void fitDecades(XYChart chart) {
        double[] x = {Double.POSITIVE_INFINITY, 0};
        double[] y = {Double.POSITIVE_INFINITY, 0};
        for (XYSeries series : chart.getSeriesCollection()) {
            extend(x, series.getXData());
            extend(y, series.getYData());
        }
        if (x[1] > 0) {
            chart.getStyler().setXAxisMin(decade(x[0], false)).setXAxisMax(decade(x[1], true));
            chart.getStyler().setYAxisMin(decade(y[0], false)).setYAxisMax(decade(y[1], true));
        }
    }

    private static void extend(double[] range, double[] values) {
        for (double value : values) {
            range[0] = Math.min(range[0], value);
            range[1] = Math.max(range[1], value);
        }
    }

    private static double decade(double value, boolean above) {
        double exponent = Math.log10(value);
        return Math.pow(10, above ? Math.floor(exponent) + 1 : Math.floor(exponent));
    }
}
