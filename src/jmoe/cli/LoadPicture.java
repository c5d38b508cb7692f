package jmoe.cli;

import jmoe.cli.RoutedTokens.OfType;
import jmoe.ops.Capacity;

import java.awt.Color;
import java.nio.file.Path;
import java.util.Arrays;

/** The load of each expert as a picture: what is computed, and above it what is dropped. */
final class LoadPicture {
    static final String OPTION = "--load-chart";

    private static final Color COMPUTED = new Color(0x2171b5);
    private static final Color DROPPED = new Color(0xfdae6b);
    private static final Color MEAN = Color.BLACK;
    private static final Color CAPACITY = new Color(0xd62728);

    private static final String SUBTITLE =
            "How many slots ask for each expert; a token has a slot for each of its top-k experts";

    /** Room above the largest. */
    private static final double HEADROOM = 1.05;

    /** Of the width of an expert, between bars. */
    private static final double SPACE = 0.1;

    private LoadPicture() {}

    /** Draws and writes. */
    static void write(Path file, String title, RoutedTokens routed) {
        Picture.write(
                OPTION,
                file,
                Plot.WIDTH,
                Plot.HEIGHT,
                graphics -> {
                    paint(new Plot(graphics, title, SUBTITLE), routed);
                });
    }

    /** What the numbers of experts mean where there are several routers. */
    static String expertAxis(int experts, int numTokenTypes) {
        return numTokenTypes == 1
                ? "expert"
                : "expert (the first "
                        + experts / numTokenTypes
                        + " are those of token type 0, then those of type 1)";
    }

    private static void paint(Plot plot, RoutedTokens routed) {
        int experts = 0;
        double max = 1;
        boolean drops = false;
        for (OfType routes : routed.types()) {
            long[] counts = routes.load().assigned().perExpert();
            experts += counts.length;
            max = Math.max(max, (double) Arrays.stream(counts).max().orElseThrow());
            drops |= routes.load().dropRate() > 0;
        }
        max *= HEADROOM;
        int first = 0;
        for (OfType routes : routed.types()) {
            bars(plot, routes, first, experts, max);
            first += routes.rule().numExperts();
        }
        plot.axes(expertAxis(experts, routed.types().size()), "slots");
        plot.columns(experts, 1);
        plot.amounts(max);
        plot.legend(COMPUTED, drops ? "computed" : "asked for");
        if (drops) {
            plot.legend(DROPPED, "dropped");
            plot.legendLevel(CAPACITY, "capacity");
        }
        plot.legendLevel(MEAN, "mean asked for");
    }

    private static void bars(Plot plot, OfType routes, int first, int experts, double max) {
        long[] asked = routes.load().assigned().perExpert();
        long[] kept = routes.load().kept().perExpert();
        double width = 1.0 / experts;
        // Thinner bars than a pixel overlap: the larger is seen.
        double space = experts <= Plot.WIDTH / 8 ? SPACE * width : 0;
        for (int expert = 0; expert < asked.length; expert++) {
            double x = (first + expert) * width + space;
            double computed = kept[expert] / max;
            double all = asked[expert] / max;
            plot.fill(COMPUTED, x, 1 - computed, width - 2 * space, computed);
            plot.fill(DROPPED, x, 1 - all, width - 2 * space, all - computed);
        }
        double share = (double) asked.length / experts;
        double mean = (double) routes.load().assigned().sum() / asked.length;
        plot.level(MEAN, first * width, 1 - mean / max, share);
        Capacity capacity = routes.rule().capacity();
        if (capacity != null && routes.load().dropRate() > 0) {
            double limit = capacity.limit(routes.rule(), routes.topkIds().dim(0));
            plot.level(CAPACITY, first * width, 1 - limit / max, share);
        }
    }
}
