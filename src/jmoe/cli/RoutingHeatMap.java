package jmoe.cli;

import java.awt.Color;
import java.nio.file.Path;

/** The weights that tokens give to experts as a picture: the first token on top. */
final class RoutingHeatMap {
    static final String OPTION = "--heat-map";

    /** From no weight to the largest. */
    private static final int[] STOPS = {0xffffff, 0xc6dbef, 0x6baed6, 0x2171b5, 0x08306b};

    private static final int SHADES = 100;

    private RoutingHeatMap() {}

    /** Draws and writes. */
    static void write(Path file, String title, RoutingGrid grid, int numTokenTypes) {
        Picture.write(
                OPTION,
                file,
                Plot.WIDTH,
                Plot.HEIGHT,
                graphics -> {
                    paint(new Plot(graphics, title, subtitle(grid)), grid, numTokenTypes);
                });
    }

    private static String subtitle(RoutingGrid grid) {
        String subtitle = "The darker, the more weight a token gives to the output of an expert";
        if (grid.tokensPerRow() > 1) {
            subtitle += "; a row is the mean of " + grid.tokensPerRow() + " tokens";
        }
        if (grid.expertsPerColumn() > 1) {
            subtitle += "; a column is the sum of " + grid.expertsPerColumn() + " experts";
        }
        return subtitle;
    }

    private static void paint(Plot plot, RoutingGrid grid, int numTokenTypes) {
        Color[] shades = shades();
        double max = grid.max();
        double[][] weights = grid.weights();
        for (int row = 0; row < weights.length; row++) {
            int columns = weights[row].length;
            for (int column = 0; column < columns; column++) {
                double weight = weights[row][column];
                if (weight > 0) {
                    int shade = (int) Math.round(weight / max * (SHADES - 1));
                    double x = (double) column / columns;
                    double y = (double) row / weights.length;
                    plot.fill(shades[shade], x, y, 1.0 / columns, 1.0 / weights.length);
                }
            }
        }
        plot.axes(LoadPicture.expertAxis(grid.experts(), numTokenTypes), "token");
        plot.columns(grid.experts(), grid.expertsPerColumn());
        plot.rows(grid.tokens(), grid.tokensPerRow());
        plot.scale("weight", shades, max);
    }

    private static Color[] shades() {
        Color[] shades = new Color[SHADES];
        for (int i = 0; i < SHADES; i++) {
            double at = (double) i / (SHADES - 1) * (STOPS.length - 1);
            int stop = Math.min((int) at, STOPS.length - 2);
            shades[i] = between(new Color(STOPS[stop]), new Color(STOPS[stop + 1]), at - stop);
        }
        return shades;
    }

    private static Color between(Color a, Color b, double share) {
        return new Color(
                (int) Math.round(a.getRed() + share * (b.getRed() - a.getRed())),
                (int) Math.round(a.getGreen() + share * (b.getGreen() - a.getGreen())),
                (int) Math.round(a.getBlue() + share * (b.getBlue() - a.getBlue())));
    }
}
