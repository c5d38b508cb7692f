package jmoe.checkpoint;

import java.util.Collection;
import java.util.Comparator;
import java.util.List;

/** Suggests existing names for a misspelt one by the Levenshtein distance. */
final class NearestNames {
    /** Longer names are compared by their beginning; they come from untrusted files. */
    private static final int MAX_CHARS = 200;

    private record Candidate(String name, int distance) {}

    private NearestNames() {}

    /** Up to {@code max} names, the nearest first. */
    static List<String> of(String wanted, Collection<String> names, int max) {
        return names.stream()
                .map(name -> new Candidate(name, distance(wanted, name)))
                .sorted(Comparator.comparingInt(Candidate::distance))
                .limit(max)
                .map(Candidate::name)
                .toList();
    }

    private static int distance(String a, String b) {
        int aChars = Math.min(a.length(), MAX_CHARS);
        int bChars = Math.min(b.length(), MAX_CHARS);
        int[] above = new int[bChars + 1];
        int[] row = new int[bChars + 1];
        for (int j = 0; j <= bChars; j++) {
            above[j] = j;
        }
        for (int i = 1; i <= aChars; i++) {
            row[0] = i;
            for (int j = 1; j <= bChars; j++) {
                int replaced = above[j - 1] + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
                row[j] = Math.min(replaced, 1 + Math.min(above[j], row[j - 1]));
            }
            int[] done = above;
            above = row;
            row = done;
        }
        return above[bChars];
    }
}
