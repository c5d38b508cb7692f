package jmoe.cuda;

import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import java.util.Locale;

/**
 * How a layer is computed. The decode path is for few tokens: three kernels, through which weights
 * are streamed once. The large path has an operation for every step, and tiles for many rows. Their
 * results differ in the last places.
 */
enum DecodePath {
    /** Few tokens. */
    DECODE,
    /** Any number of tokens. */
    LARGE;

    /** System property: the path to take wherever it suits. */
    static final String PROPERTY = "jmoe.cuda.path";

    static final long MAX_TOKENS = 128;

    /** Of all tokens; the kernels keep what they know of slots and rows in shared memory. */
    static final long MAX_SLOTS = 1024;

    /** The path that {@link #PROPERTY} names, or null. */
    static @Nullable DecodePath forced() {
        String name = System.getProperty(PROPERTY);
        if (name == null) {
            return null;
        }
        for (DecodePath path : values()) {
            if (path.id().equals(name)) {
                return path;
            }
        }
        throw new IllegalArgumentException(PROPERTY + ": expected decode or large, got " + name);
    }

    /** What users call it. */
    String id() {
        return name().toLowerCase(Locale.ROOT);
    }

    /** Whether the decode path has kernels for so many tokens of these types. */
    static boolean suits(long tokens, long topK, DType x, DType weight) {
        return tokens > 0
                && tokens <= MAX_TOKENS
                && tokens * topK <= MAX_SLOTS
                && GroupedGemm.onMatrixUnits(x, weight);
    }
}
