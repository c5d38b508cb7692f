package jmoe.checkpoint;

import java.util.Arrays;

/** Reads the few Python literals of a NumPy header: strings, booleans and tuples of integers. */
final class PythonLiteral {
    private static final int MAX_RANK = 64;

    private final String name;
    private final String text;
    private int at;

    /**
     * Begins at the start of the text.
     *
     * @param name the file, for messages
     */
    PythonLiteral(String name, String text) {
        this.name = name;
        this.text = text;
    }

    /** Whether a character comes next; leaves it. */
    boolean next(char c) {
        while (at < text.length() && isSpace(text.charAt(at))) {
            at++;
        }
        return at < text.length() && text.charAt(at) == c;
    }

    /** Takes a character if it comes next. */
    boolean accept(char c) {
        boolean taken = next(c);
        if (taken) {
            at++;
        }
        return taken;
    }

    /** Takes a character that must come next. */
    void expect(char c) {
        if (!accept(c)) {
            throw violation("expected '" + c + "', got " + got());
        }
    }

    /** A string in single or double quotes, without escapes. */
    String string() {
        char quote = next('"') ? '"' : '\'';
        expect(quote);
        int close = text.indexOf(quote, at);
        if (close < 0) {
            throw violation("a string has no end");
        }
        String value = text.substring(at, close);
        if (value.indexOf('\\') >= 0) {
            throw violation("escapes are not expected in a string");
        }
        at = close + 1;
        return value;
    }

    /** True or False. */
    boolean bool() {
        boolean value = next('T');
        String word = value ? "True" : "False";
        if (!text.startsWith(word, at)) {
            throw violation("expected True or False, got " + got());
        }
        at += word.length();
        return value;
    }

    /** A tuple of integers that are not negative. */
    long[] integers() {
        long[] values = new long[MAX_RANK];
        int count = 0;
        boolean separated = true;
        expect('(');
        while (!accept(')')) {
            if (!separated || count == MAX_RANK) {
                throw violation(
                        separated
                                ? "more than " + MAX_RANK + " dimensions"
                                : "expected ',' or ')', got " + got());
            }
            values[count++] = integer();
            separated = accept(',');
        }
        if (count == 1 && !separated) {
            throw violation("shape: expected a tuple, got one number in parentheses");
        }
        return Arrays.copyOf(values, count);
    }

    private long integer() {
        if (next('-')) {
            throw violation("shape: a dimension is negative");
        }
        int begin = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        if (at == begin) {
            throw violation("shape: expected an integer, got " + got());
        }
        String digits = text.substring(begin, at);
        // Python 2 marks long integers.
        accept('L');
        try {
            return Long.parseLong(digits);
        } catch (NumberFormatException e) {
            throw violation("shape: " + CheckpointException.oneLine(digits) + " is above 2^63 - 1");
        }
    }

    /** Nothing but white space may follow. */
    void end() {
        next(' ');
        if (at < text.length()) {
            throw violation("expected the end, got " + got());
        }
    }

    private String got() {
        next(' ');
        return at == text.length()
                ? "the end of the header"
                : CheckpointException.quoted(text.substring(at, Math.min(text.length(), at + 12)));
    }

    CheckpointException violation(String what) {
        return new CheckpointException(name + ": header is not a NumPy array's: " + what);
    }

    private static boolean isSpace(char c) {
        return c == ' ' || c == '\n' || c == '\t' || c == '\r';
    }
}
