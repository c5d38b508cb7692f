package jmoe.reference;

import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;

import java.util.Arrays;

/** Which experts one token gets: the cases of {@link Selection} that order candidates. */
final class ReferenceSelection {
    private final RouterConfig config;
    private final double[] logits;
    private final double[] scores;
    private final double[] candidates;

    /** Who may still be selected. */
    private final boolean[] free;

    private final int[] ids;

    /** Works on arrays of the router's: by expert, and {@code ids} by choice. */
    ReferenceSelection(
            RouterConfig config,
            double[] logits,
            double[] scores,
            double[] candidates,
            boolean[] free,
            int[] ids) {
        this.config = config;
        this.logits = logits;
        this.scores = scores;
        this.candidates = candidates;
        this.free = free;
        this.ids = ids;
    }

    /** Writes the ids, -1 where nobody is left. */
    void select() {
        Arrays.fill(ids, -1);
        switch (config.selection()) {
            case Selection.GroupLimited limited -> {
                keepBestGroups(limited);
                takeBest(ids.length);
            }
            case Selection.OnePerGroup one -> {
                int width = free.length / one.numGroups();
                for (int g = 0; g < ids.length; g++) {
                    ids[g] = takeBest(candidates, free, g * width, (g + 1) * width);
                }
            }
            case Selection.TopP topP -> takeUntil(topP.p(), topP.minExperts());
            case Selection.EntropyK entropyK -> {
                double wanted = Math.ceil(entropyK.alpha() * entropy() - 1e-9);
                takeBest((int) Math.min(ids.length, Math.max(entropyK.minExperts(), wanted)));
            }
            case Selection.TwoLevel two -> takeInGroups(two);
            default -> takeBest(ids.length);
        }
    }

    private void takeBest(int count) {
        for (int k = 0; k < count; k++) {
            ids[k] = takeBest(candidates, free, 0, free.length);
        }
    }

    /**
     * Takes the best free entry of a range, or -1 if none is; the lowest index of equals, NaN below
     * every number.
     */
    static int takeBest(double[] values, boolean[] free, int from, int to) {
        int best = -1;
        for (int i = from; i < to; i++) {
            if (free[i] && (best < 0 || ranksAbove(values[i], values[best]))) {
                best = i;
            }
        }
        if (best >= 0) {
            free[best] = false;
        }
        return best;
    }

    private static boolean ranksAbove(double a, double b) {
        return a > b || (Double.isNaN(b) && !Double.isNaN(a));
    }

    /** Leaves only the experts of the best groups free: at least K, if all were. */
    private void keepBestGroups(Selection.GroupLimited limited) {
        int width = free.length / limited.numGroups();
        double[] judged = new double[limited.numGroups()];
        boolean[] left = new boolean[limited.numGroups()];
        boolean[] kept = new boolean[limited.numGroups()];
        boolean[] members = free.clone();
        for (int g = 0; g < judged.length; g++) {
            for (int i = 0; i < config.judgedPerGroup(); i++) {
                int best = takeBest(candidates, members, g * width, (g + 1) * width);
                if (best >= 0) {
                    left[g] = true;
                    judged[g] += candidates[best];
                }
            }
            judged[g] = config.judgesGroupsBySum() ? (float) judged[g] : judged[g];
        }
        for (int k = 0; k < limited.topGroups(); k++) {
            int g = takeBest(judged, left, 0, left.length);
            if (g >= 0) {
                kept[g] = true;
            }
        }
        for (int e = 0; e < free.length; e++) {
            free[e] &= kept[e / width];
        }
    }

    private void takeUntil(double p, int min) {
        double sum = 0;
        for (int k = 0; k < ids.length; k++) {
            int best = takeBest(candidates, free, 0, free.length);
            if (best < 0 || (k >= min && (sum >= p || Double.isNaN(logits[best])))) {
                return;
            }
            ids[k] = best;
            sum += Double.isNaN(logits[best]) ? 0 : scores[best];
        }
    }

    /** Of the softmax over free experts, in nats; NaN logits are absent. */
    private double entropy() {
        double max = Double.NEGATIVE_INFINITY;
        for (int e = 0; e < free.length; e++) {
            max = free[e] && logits[e] > max ? logits[e] : max;
        }
        double[] powers = new double[free.length];
        double sum = 0;
        for (int e = 0; e < free.length; e++) {
            if (free[e] && !Double.isNaN(logits[e])) {
                powers[e] = Math.exp(logits[e] == max ? 0 : logits[e] - max);
                sum += powers[e];
            }
        }
        double entropy = 0;
        for (double power : powers) {
            entropy -= power == 0 ? 0 : power / sum * Math.log(power / sum);
        }
        return entropy;
    }

    private void takeInGroups(Selection.TwoLevel two) {
        int width = free.length / two.numGroups();
        double[] judged = new double[two.numGroups()];
        boolean[] left = new boolean[two.numGroups()];
        for (int g = 0; g < judged.length; g++) {
            judged[g] = (float) sumOfNumbers(candidates, free, g * width, (g + 1) * width);
            for (int e = g * width; e < (g + 1) * width; e++) {
                left[g] |= free[e];
            }
        }
        for (int i = 0; i < two.topGroups(); i++) {
            int g = takeBest(judged, left, 0, left.length);
            for (int j = 0; g >= 0 && j < two.perGroup(); j++) {
                ids[i * two.perGroup() + j] =
                        takeBest(candidates, free, g * width, (g + 1) * width);
            }
        }
    }

    /** The sum of the numbers of a range that count; NaN if there is none. */
    static double sumOfNumbers(double[] values, boolean[] counts, int from, int to) {
        double sum = 0;
        boolean any = false;
        for (int i = from; i < to; i++) {
            if (counts[i] && !Double.isNaN(values[i])) {
                sum += values[i];
                any = true;
            }
        }
        return any ? sum : Double.NaN;
    }
}
