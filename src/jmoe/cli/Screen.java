package jmoe.cli;

import jmoe.checkpoint.Json;

import java.io.PrintWriter;
import java.nio.charset.Charset;
import java.util.Map;

/**
 * Where a command writes, and what may be written there.
 *
 * @param out results
 * @param err errors and progress
 * @param colour whether {@code out} understands escape codes
 * @param unicode whether {@code out} can show block characters
 * @param progress whether {@code err} is a terminal on which a line may be redrawn
 */
record Screen(PrintWriter out, PrintWriter err, boolean colour, boolean unicode, boolean progress) {
    /** Columns that every report fits in, except for long names at the end of a line. */
    static final int COLUMNS = 80;

    private static final int LABEL_COLUMNS = 12;

    /** A screen without escape codes, block characters and progress, as for a file. */
    static Screen plain(PrintWriter out, PrintWriter err) {
        return new Screen(out, err, false, false, false);
    }

    /**
     * The screen of this process. Java cannot ask whether one stream is a terminal; the launcher
     * can, and says so in system properties.
     */
    static Screen ofProcess() {
        String noColour = System.getenv("NO_COLOR");
        boolean colour =
                Boolean.getBoolean("jmoe.tty.out")
                        && (noColour == null || noColour.isEmpty())
                        && !"dumb".equals(System.getenv("TERM"));
        Charset charset = System.out.charset();
        return new Screen(
                new PrintWriter(new StandardOutput(), true, charset),
                new PrintWriter(System.err, true, System.err.charset()),
                colour,
                charset.newEncoder().canEncode("█▌×"),
                Boolean.getBoolean("jmoe.tty.err"));
    }

    /** Whether results were lost; writes what is still held back. */
    boolean lost() {
        return out.checkError();
    }

    void line(String text) {
        out.println(text);
    }

    void line() {
        out.println();
    }

    /** A heading, set apart by an empty line above. */
    void heading(String text) {
        out.println();
        out.println(bold(text));
    }

    /** A named value; long values continue below themselves. */
    void field(String label, String value) {
        field(label, LABEL_COLUMNS, value);
    }

    /** A named value, with room for longer names. */
    void field(String label, int labelColumns, String value) {
        StringBuilder line = new StringBuilder("  ").append(label).append(' ');
        pad(line, labelColumns + 2);
        for (String word : value.split(" ", -1)) {
            if (line.length() + word.length() > COLUMNS && line.length() > labelColumns + 2) {
                out.println(line.toString().stripTrailing());
                line.setLength(0);
                pad(line, labelColumns + 2);
            }
            line.append(word).append(' ');
        }
        out.println(line.toString().stripTrailing());
    }

    /** Exactly one object, for programs. */
    void json(Map<String, ?> object) {
        out.println(Json.text(object));
    }

    String bold(String text) {
        return escape("1", text);
    }

    String good(String text) {
        return escape("32", text);
    }

    String bad(String text) {
        return escape("31", text);
    }

    private String escape(String code, String text) {
        return colour ? "\u001b[" + code + "m" + text + "\u001b[0m" : text;
    }

    /** The character that multiplies. */
    String times() {
        return unicode ? "×" : "x";
    }

    private static void pad(StringBuilder line, int columns) {
        while (line.length() < columns) {
            line.append(' ');
        }
    }
}
