package jmoe.experiment;

/** How long an experiment may take. */
public enum Effort {
    /** Sizes at which the numbers mean something: up to some minutes. */
    FULL(2_000_000_000L, 25),
    /** Small sizes, to see that everything works: some seconds. */
    QUICK(0, 3);

    private final long nanos;
    private final int maxRepeats;

    Effort(long nanos, int maxRepeats) {
        this.nanos = nanos;
        this.maxRepeats = maxRepeats;
    }

    /** How long a time is measured again and again. */
    long nanos() {
        return nanos;
    }

    /** How often at most. */
    int maxRepeats() {
        return maxRepeats;
    }

    /** One of two choices. */
    int of(int full, int quick) {
        return this == FULL ? full : quick;
    }

    /** One of two choices. */
    int[] of(int[] full, int[] quick) {
        return this == FULL ? full : quick;
    }
}
