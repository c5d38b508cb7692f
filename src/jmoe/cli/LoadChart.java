package jmoe.cli;

import jmoe.ops.MoeConfig;
import jmoe.tensor.Tensor;
import jmoe.train.ExpertLoad;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** How evenly the router spreads the tokens: a bar per expert and what sums it up. */
final class LoadChart {
    /** More experts than that are shown by the busiest and the idlest. */
    private static final int MAX_BARS = 64;

    private static final int BUSIEST = 16;
    private static final int IDLEST = 4;
    private static final int BAR_COLUMNS = 48;
    private static final String EIGHTHS = " ▏▎▍▌▋▊▉";

    private final int numIdentityExperts;
    private final List<int[]> tokensPerExpert = new ArrayList<>();

    /**
     * The load of a pass.
     *
     * @param config of the layer
     * @param load I32 [numTokenTypes * experts], identity experts included
     */
    LoadChart(MoeConfig config, Tensor load) {
        numIdentityExperts = config.numIdentityExperts();
        int experts = config.numExperts() + numIdentityExperts;
        for (int type = 0; type < config.numTokenTypes(); type++) {
            int[] counts = new int[experts];
            for (int expert = 0; expert < experts; expert++) {
                counts[expert] = load.getInt((long) type * experts + expert);
            }
            tokensPerExpert.add(counts);
        }
    }

    void print(Screen screen) {
        for (int type = 0; type < tokensPerExpert.size(); type++) {
            printBars(screen, type);
            screen.line("  " + summary(tokensPerExpert.get(type)));
        }
    }

    /** A heading and a bar per expert. */
    void printBars(Screen screen, int type) {
        screen.heading(
                tokensPerExpert.size() == 1
                        ? "Expert load (tokens per expert)"
                        : "Expert load of token type " + type + " (tokens per expert)");
        printBars(screen, tokensPerExpert.get(type));
    }

    private void printBars(Screen screen, int[] counts) {
        if (counts.length <= MAX_BARS) {
            for (int expert = 0; expert < counts.length; expert++) {
                printBar(screen, counts, expert);
            }
            return;
        }
        List<Integer> order = new ArrayList<>();
        for (int expert = 0; expert < counts.length; expert++) {
            order.add(expert);
        }
        order.sort(Comparator.comparingInt((Integer expert) -> -counts[expert]));
        screen.line("  the busiest " + BUSIEST + " of " + counts.length + " experts:");
        for (int expert : order.subList(0, BUSIEST)) {
            printBar(screen, counts, expert);
        }
        screen.line("  the idlest " + IDLEST + ":");
        for (int expert : order.subList(order.size() - IDLEST, order.size())) {
            printBar(screen, counts, expert);
        }
    }

    private void printBar(Screen screen, int[] counts, int expert) {
        int idColumns = Integer.toString(counts.length - 1).length();
        long max = Math.max(1, max(counts));
        int countColumns = Long.toString(max).length();
        screen.line(
                String.format(
                                Locale.ROOT,
                                "  %" + idColumns + "d %" + countColumns + "d  %s",
                                expert,
                                counts[expert],
                                bar(counts[expert], max, screen.unicode())
                                        + (expert >= counts.length - numIdentityExperts
                                                ? " (identity)"
                                                : ""))
                        .stripTrailing());
    }

    /** A bar in eighths of a column, or in whole columns without block characters. */
    private static String bar(long count, long max, boolean unicode) {
        if (!unicode) {
            long columns = Math.ceilDiv(count * BAR_COLUMNS, max);
            return "#".repeat((int) columns);
        }
        int eighths = (int) Math.ceilDiv(count * BAR_COLUMNS * 8L, max);
        String whole = "█".repeat(eighths / 8);
        return eighths % 8 == 0 ? whole : whole + EIGHTHS.charAt(eighths % 8);
    }

    private String summary(int[] counts) {
        if (mean(counts) == 0) {
            return "no tokens";
        }
        return String.format(
                Locale.ROOT,
                "max/mean %.2f, coefficient of variation %.2f, %s",
                max(counts) / mean(counts),
                load(counts).variation(),
                load(counts).idle() == 0
                        ? "no idle expert"
                        : Units.plural(load(counts).idle(), "idle expert", "idle experts"));
    }

    /** The same for programs. */
    List<Map<String, Object>> json() {
        List<Map<String, Object>> all = new ArrayList<>();
        for (int type = 0; type < tokensPerExpert.size(); type++) {
            int[] counts = tokensPerExpert.get(type);
            List<Integer> list = new ArrayList<>();
            for (int count : counts) {
                list.add(count);
            }
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("token_type", type);
            json.put("tokens_per_expert", list);
            json.put("max_over_mean", max(counts) / mean(counts));
            json.put("coefficient_of_variation", load(counts).variation());
            json.put("idle_experts", load(counts).idle());
            all.add(json);
        }
        return all;
    }

    private static ExpertLoad.Counts load(int[] counts) {
        return new ExpertLoad.Counts(Arrays.stream(counts).asLongStream().toArray());
    }

    private static long max(int[] counts) {
        long max = 0;
        for (int count : counts) {
            max = Math.max(max, count);
        }
        return max;
    }

    private static double mean(int[] counts) {
        double sum = 0;
        for (int count : counts) {
            sum += count;
        }
        return sum / counts.length;
    }
}
