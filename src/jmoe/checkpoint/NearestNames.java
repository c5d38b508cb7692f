package jmoe.checkpoint;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;

/** Suggests existing names for a misspelt one by the Levenshtein distance. */
public final class NearestNames {
    /** Longer names are compared by their beginning; they come from untrusted files. */
    private static final int MAX_CHARS = 200;

    private record Candidate(String name, int distance) {}

    private NearestNames() {}

    /**
     * The names that are nearest to a misspelt one.
     *
     * @param wanted the misspelt name
     * @param names what there is
     * @param max how many to suggest
     * @return up to {@code max} names, the nearest first, the earlier first among equals
     */
    public static List<String> of(String wanted, Collection<String> names, int max) {
        List<Candidate> nearest = new ArrayList<>(max + 1);
        for (String name : names) {
            int bound = nearest.size() < max ? Integer.MAX_VALUE : nearest.getLast().distance();
            int distance = distance(wanted, name, bound);
            if (distance < bound) {
                int at = nearest.size();
                while (at > 0 && nearest.get(at - 1).distance() > distance) {
                    at--;
                }
                nearest.add(at, new Candidate(name, distance));
                if (nearest.size() > max) {
                    nearest.removeLast();
                }
            }
        }
        return nearest.stream().map(Candidate::name).toList();
    }

    /** The distance, or some number that is not below the bound as soon as it cannot be. */
    private static int distance(String a, String b, int bound) {
        int aChars = Math.min(a.length(), MAX_CHARS);
        int bChars = Math.min(b.length(), MAX_CHARS);
        if (Math.abs(aChars - bChars) >= bound) {
            return bound;
        }
        int[] above = new int[bChars + 1];
        int[] row = new int[bChars + 1];
        for (int j = 0; j <= bChars; j++) {
            above[j] = j;
        }
        for (int i = 1; i <= aChars; i++) {
            row[0] = i;
            int least = i;
            for (int j = 1; j <= bChars; j++) {
                int replaced = above[j - 1] + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
                row[j] = Math.min(replaced, 1 + Math.min(above[j], row[j - 1]));
                least = Math.min(least, row[j]);
            }
            if (least >= bound) {
                return bound;
            }
            int[] done = above;
            above = row;
            row = done;
        }
        return above[bChars];
    }
}
