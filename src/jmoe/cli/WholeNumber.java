package jmoe.cli;

import org.jspecify.annotations.Nullable;

/** Options that take a whole number, and which. */
enum WholeNumber {
    LAYER("--layer", 0, Integer.MAX_VALUE),
    REPEAT("--repeat", 1, 1_000_000),
    TOKENS("--tokens", 1, 1 << 20),
    SEED("--seed", 0, 1_000_000_000),
    THREADS("--threads", 1, 1024);

    private final String option;
    private final int min;
    private final int max;

    WholeNumber(String option, int min, int max) {
        this.option = option;
        this.min = min;
        this.max = max;
    }

    /** The entry of an option, or null if it takes something else. */
    static @Nullable WholeNumber of(String option) {
        for (WholeNumber number : values()) {
            if (number.option.equals(option)) {
                return number;
            }
        }
        return null;
    }

    /** Refuses what is out of range; null is an option not given. */
    void check(@Nullable Integer value) {
        if (value != null && (value < min || value > max)) {
            throw new IllegalArgumentException(refusal(value.toString()));
        }
    }

    /** Reads one of several numbers. */
    int parse(String text) {
        if (!text.matches("[+-]?\\d{1,9}")) {
            throw new IllegalArgumentException(refusal(text));
        }
        int value = Integer.parseInt(text);
        check(value);
        return value;
    }

    /** What to say about a value that is none of these. */
    String refusal(String value) {
        return option + ": expected a whole number from " + min + " to " + max + ", got " + value;
    }
}
