package jmoe.ops;

import java.util.ArrayList;
import java.util.List;

/**
 * Assertions that failed, to be shown together. The soft assertions of AssertJ would do the same,
 * but need Byte Buddy, for which a bundle has no room.
 */
final class Failures {
    private final List<AssertionError> errors = new ArrayList<>();

    /** Runs an assertion at once, and keeps its failure. */
    void check(Runnable assertion) {
        try {
            assertion.run();
        } catch (AssertionError e) {
            errors.add(e);
        }
    }

    /** Fails if any assertion did, with the text of all. */
    void assertNone() {
        if (errors.isEmpty()) {
            return;
        }
        StringBuilder text = new StringBuilder();
        text.append(errors.size()).append(" assertions failed:");
        for (AssertionError error : errors) {
            text.append(System.lineSeparator()).append(error.getMessage());
        }
        AssertionError all = new AssertionError(text.toString());
        errors.forEach(all::addSuppressed);
        throw all;
    }
}
