package jmoe.checkpoint;

import org.jspecify.annotations.Nullable;

import java.io.Serial;

/**
 * A file that cannot be used: missing, unreadable, damaged, incomplete or of an unsupported kind.
 * The message is one sentence that names the file, the tensor if there is one, what is wrong and,
 * where there is one, the remedy.
 */
public final class CheckpointException extends RuntimeException {
    @Serial private static final long serialVersionUID = 1L;

    /** Longest name quoted in full; headers are untrusted and messages must stay readable. */
    private static final int MAX_QUOTED_CHARS = 200;

    /**
     * A file that violates its format or its use.
     *
     * @param message one sentence: file, tensor, violation, remedy
     */
    public CheckpointException(String message) {
        super(message);
    }

    /**
     * A file that cannot be used because of another failure.
     *
     * @param message one sentence: file, tensor, violation, remedy
     * @param cause the other failure, null if there is none
     */
    public CheckpointException(String message, @Nullable Throwable cause) {
        super(message, cause);
    }

    /** A name from a file in quotes, on one line and of bounded length. */
    static String quoted(String name) {
        return "'" + oneLine(name) + "'";
    }

    /** Text from a file on one line and of bounded length. */
    static String oneLine(String text) {
        int length = Math.min(text.length(), MAX_QUOTED_CHARS);
        StringBuilder line = new StringBuilder(length + 3);
        for (int i = 0; i < length; i++) {
            char c = text.charAt(i);
            line.append(Character.isISOControl(c) ? ' ' : c);
        }
        return text.length() > length ? line.append("...").toString() : line.toString();
    }
}
