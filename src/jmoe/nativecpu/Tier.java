package jmoe.nativecpu;

import org.jspecify.annotations.Nullable;

import java.util.Locale;

/** Instructions that the library computes with; what a tier has, the tiers below it have too. */
public enum Tier {
    /** AVX2, FMA and F16C: 256-bit vectors. */
    AVX2(1, "AVX2"),
    /** AVX-512 with BW, DQ, VL and VNNI. */
    AVX512(2, "AVX-512"),
    /** AMX with BF16 and INT8: tiles. */
    AMX(3, "AMX");

    private static final int HAS_AVX2 = 1;
    private static final int HAS_AVX512 = 2;
    private static final int KEEPS_AVX512 = 4;
    private static final int HAS_AMX = 8;
    private static final int KEEPS_AMX = 16;
    private static final int PERMITS_AMX = 32;

    private final int code;
    private final String text;

    Tier(int code, String text) {
        this.code = code;
        this.text = text;
    }

    /**
     * Finds a tier by the word that users type.
     *
     * @param word for example {@code avx512}
     * @return the tier
     * @throws IllegalArgumentException for any other word
     */
    public static Tier of(String word) {
        for (Tier tier : values()) {
            if (tier.word().equals(word)) {
                return tier;
            }
        }
        throw new IllegalArgumentException(
                NativeProbe.TIER_PROPERTY + ": expected avx2, avx512 or amx, got " + word);
    }

    /** The tier of a number of the library's. */
    static @Nullable Tier ofCode(int code) {
        for (Tier tier : values()) {
            if (tier.code == code) {
                return tier;
            }
        }
        return null;
    }

    /** The library's number. */
    int code() {
        return code;
    }

    /**
     * The word that users type.
     *
     * @return the constant in lower case
     */
    public String word() {
        return name().toLowerCase(Locale.ROOT);
    }

    /**
     * The name of the instructions.
     *
     * @return for example {@code AVX-512}
     */
    public String text() {
        return text;
    }

    /** What a machine with some of the library's features lacks for this tier, or null. */
    @Nullable String missing(int features) {
        return switch (this) {
            case AVX2 -> has(features, HAS_AVX2) ? null : "the CPU has no AVX2 with FMA and F16C";
            case AVX512 -> {
                if (!has(features, HAS_AVX512)) {
                    yield "the CPU has no AVX-512 with BW, DQ, VL and VNNI";
                }
                yield has(features, KEEPS_AVX512)
                        ? null
                        : "the system does not keep the registers of AVX-512";
            }
            case AMX -> {
                if (!has(features, HAS_AMX)) {
                    yield "the CPU has no AMX with BF16 and INT8";
                }
                if (!has(features, KEEPS_AMX)) {
                    yield "the system does not keep tiles";
                }
                yield has(features, PERMITS_AMX)
                        ? AVX512.missing(features)
                        : "the system does not permit tiles";
            }
        };
    }

    private static boolean has(int features, int bit) {
        return (features & bit) != 0;
    }
}
