package jmoe.cli;

import java.util.ArrayList;
import java.util.List;

/** Cells in aligned columns, two spaces apart. Escape codes in cells take no room. */
final class TextTable {
    private static final String INDENT = "  ";

    private final boolean[] right;
    private final List<String[]> rows = new ArrayList<>();

    /**
     * A table with a heading.
     *
     * @param align one letter per column, {@code l} or {@code r}
     * @param heading titles
     */
    TextTable(String align, String... heading) {
        right = new boolean[align.length()];
        for (int i = 0; i < right.length; i++) {
            right[i] = align.charAt(i) == 'r';
        }
        row(heading);
    }

    void row(String... cells) {
        if (cells.length != right.length) {
            throw new IllegalArgumentException(
                    "cells: expected " + right.length + ", got " + cells.length);
        }
        rows.add(cells.clone());
    }

    void print(Screen screen) {
        int[] widths = new int[right.length];
        for (String[] row : rows) {
            for (int i = 0; i < row.length; i++) {
                widths[i] = Math.max(widths[i], width(row[i]));
            }
        }
        for (String[] row : rows) {
            StringBuilder line = new StringBuilder(INDENT);
            for (int i = 0; i < row.length; i++) {
                String gap = " ".repeat(widths[i] - width(row[i]));
                line.append(right[i] ? gap + row[i] : row[i] + gap);
                line.append(INDENT);
            }
            screen.line(line.toString().stripTrailing());
        }
    }

    private static int width(String cell) {
        return cell.replaceAll("\u001b\\[\\d+m", "").length();
    }
}
