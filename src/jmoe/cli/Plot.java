package jmoe.cli;

import java.awt.BasicStroke;
import java.awt.Color;
import java.awt.Font;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.geom.Line2D;
import java.awt.geom.Rectangle2D;

/**
 * A frame with title, axes and legend, in which positions are fractions from the left and the top.
 * Experts and tokens are counted: their labels belong to the middle of what is drawn for them,
 * which axes of numbers do not do.
 */
final class Plot {
    static final int WIDTH = 1200;
    static final int HEIGHT = 800;

    /** Labels of an axis, at most. */
    private static final int MAX_LABELS = 16;

    private static final int LEFT = 90;
    private static final int TOP = 80;
    private static final int RIGHT = 170;
    private static final int BOTTOM = 70;
    private static final int GAP = 8;
    private static final int SWATCH = 14;
    private static final int LEGEND_LINE = 26;
    private static final Font TITLE = new Font(Font.SANS_SERIF, Font.BOLD, 18);
    private static final Font TEXT = new Font(Font.SANS_SERIF, Font.PLAIN, 13);

    private final Graphics2D graphics;
    private final double width = WIDTH - LEFT - RIGHT;
    private final double height = HEIGHT - TOP - BOTTOM;
    private double legendTop = TOP;

    /** Paints what stands above the frame; {@link #axes} follows what is in it. */
    Plot(Graphics2D graphics, String title, String subtitle) {
        this.graphics = graphics;
        graphics.setRenderingHint(
                RenderingHints.KEY_TEXT_ANTIALIASING, RenderingHints.VALUE_TEXT_ANTIALIAS_ON);
        graphics.setColor(Color.WHITE);
        graphics.fill(new Rectangle2D.Double(0, 0, WIDTH, HEIGHT));
        graphics.setColor(Color.BLACK);
        graphics.setFont(TITLE);
        graphics.drawString(title, LEFT, TOP - 46);
        graphics.setFont(TEXT);
        graphics.drawString(subtitle, LEFT, TOP - 22);
    }

    /** Fills a part of the frame, at least a pixel wide. */
    void fill(Color colour, double x, double y, double partWidth, double partHeight) {
        graphics.setColor(colour);
        // Whole pixels: what touches shows no seams.
        long left = Math.round(LEFT + x * width);
        long top = Math.round(TOP + y * height);
        long right = Math.max(left + 1, Math.round(LEFT + (x + partWidth) * width));
        long bottom = Math.round(TOP + (y + partHeight) * height);
        graphics.fill(new Rectangle2D.Double(left, top, right - left, bottom - top));
    }

    /** A dashed level. */
    void level(Color colour, double x, double y, double partWidth) {
        graphics.setColor(colour);
        graphics.setStroke(dashes());
        double from = LEFT + x * width;
        double at = TOP + y * height;
        graphics.draw(new Line2D.Double(from, at, from + partWidth * width, at));
        graphics.setStroke(new BasicStroke(1));
    }

    private static BasicStroke dashes() {
        float[] pattern = {6, 4};
        return new BasicStroke(2, BasicStroke.CAP_BUTT, BasicStroke.JOIN_MITER, 10, pattern, 0);
    }

    /** Frame and titles of the axes. */
    void axes(String x, String y) {
        graphics.setColor(Color.GRAY);
        graphics.draw(new Rectangle2D.Double(LEFT, TOP, width, height));
        graphics.setColor(Color.BLACK);
        graphics.setFont(TEXT.deriveFont(Font.BOLD));
        int xWidth = graphics.getFontMetrics().stringWidth(x);
        graphics.drawString(x, (float) (LEFT + (width - xWidth) / 2), HEIGHT - 22f);
        int yWidth = graphics.getFontMetrics().stringWidth(y);
        graphics.rotate(-Math.PI / 2);
        graphics.drawString(y, (float) -(TOP + (height + yWidth) / 2), 24f);
        graphics.rotate(Math.PI / 2);
        graphics.setFont(TEXT);
    }

    /** Labels below the frame for things that are counted, at multiples of a round number. */
    void columns(long count, int perColumn) {
        long columns = Math.ceilDiv(count, perColumn);
        long every = roundStep(count, MAX_LABELS);
        for (long i = 0; i < count; i += every) {
            String label = Long.toString(i);
            double at = LEFT + middle(i, perColumn, columns) * width;
            int labelWidth = graphics.getFontMetrics().stringWidth(label);
            tick(at, TOP + height, at, TOP + height + 5);
            graphics.drawString(label, (float) (at - labelWidth / 2.0), HEIGHT - BOTTOM + 20f);
        }
    }

    /** The same at the left, from the top. */
    void rows(long count, long perRow) {
        long rows = Math.ceilDiv(count, perRow);
        long every = roundStep(count, MAX_LABELS);
        for (long i = 0; i < count; i += every) {
            left(middle(i, perRow, rows), Long.toString(i));
        }
    }

    /** Where the middle of the cell is that a thing shares with its neighbours. */
    private static double middle(long index, long perCell, long cells) {
        long cell = index / perCell;
        return (cell + 0.5) / cells;
    }

    /** Labels at the left for amounts, from the bottom. */
    void amounts(double max) {
        long every = roundStep((long) Math.ceil(max), MAX_LABELS / 2);
        for (long i = 0; i <= max; i += every) {
            left(1 - i / max, Units.exact(i));
        }
    }

    private void left(double y, String label) {
        double at = TOP + y * height;
        int labelWidth = graphics.getFontMetrics().stringWidth(label);
        tick(LEFT - 5, at, LEFT, at);
        graphics.drawString(label, LEFT - GAP - labelWidth, (float) at + 5);
    }

    private void tick(double fromX, double fromY, double toX, double toY) {
        graphics.setColor(Color.GRAY);
        graphics.draw(new Line2D.Double(fromX, fromY, toX, toY));
        graphics.setColor(Color.BLACK);
    }

    /** 1, 2 or 5 times a power of ten, so that there are not too many. */
    static long roundStep(long count, int most) {
        long power = 1;
        while (true) {
            for (long step : new long[] {power, 2 * power, 5 * power}) {
                if (Math.ceilDiv(count, step) <= most) {
                    return step;
                }
            }
            power *= 10;
        }
    }

    /** What a filled colour means. */
    void legend(Color colour, String text) {
        graphics.setColor(colour);
        double at = WIDTH - RIGHT + 2 * GAP;
        graphics.fill(new Rectangle2D.Double(at, legendTop, SWATCH, SWATCH));
        legend(text);
    }

    /** What a level means. */
    void legendLevel(Color colour, String text) {
        graphics.setColor(colour);
        graphics.setStroke(dashes());
        double at = WIDTH - RIGHT + 2 * GAP;
        double y = legendTop + SWATCH / 2.0;
        graphics.draw(new Line2D.Double(at - GAP, y, at + SWATCH, y));
        graphics.setStroke(new BasicStroke(1));
        legend(text);
    }

    private void legend(String text) {
        graphics.setColor(Color.BLACK);
        float at = WIDTH - RIGHT + 3 * GAP + SWATCH;
        graphics.drawString(text, at, (float) legendTop + SWATCH - 2);
        legendTop += LEGEND_LINE;
    }

    /** What the shades of a colour mean: from the top {@code max} to 0. */
    void scale(String name, Color[] shades, double max) {
        graphics.setColor(Color.BLACK);
        int at = WIDTH - RIGHT + 3 * GAP;
        graphics.drawString(name, at, (float) legendTop + SWATCH - 2);
        double top = legendTop + LEGEND_LINE;
        double step = height / 2 / shades.length;
        for (int i = 0; i < shades.length; i++) {
            graphics.setColor(shades[shades.length - 1 - i]);
            graphics.fill(new Rectangle2D.Double(at, top + i * step, 2 * SWATCH, step + 1));
        }
        graphics.setColor(Color.GRAY);
        graphics.draw(new Rectangle2D.Double(at, top, 2 * SWATCH, height / 2));
        graphics.setColor(Color.BLACK);
        for (int quarter = 0; quarter <= 4; quarter++) {
            String label = Units.significant(max * quarter / 4);
            double y = top + height / 2 * (1 - quarter / 4.0) + 5;
            graphics.drawString(label, at + 2 * SWATCH + GAP, (float) y);
        }
    }
}
