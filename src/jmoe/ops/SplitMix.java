package jmoe.ops;

/**
 * Random numbers by counter: the generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose
 * n-th number needs none of those before it. Every backend computes the same bits.
 */
public final class SplitMix {
    private static final long GAMMA = 0x9E3779B97F4A7C15L;

    private SplitMix() {}

    /**
     * The number that a generator with this seed gives after {@code counter} others.
     *
     * @param seed of the generator
     * @param counter numbers before it
     * @return 64 random bits
     */
    public static long bits(long seed, long counter) {
        long z = seed + (counter + 1) * GAMMA;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }

    /**
     * The same, as a number from 0 to below 1: a multiple of 2^-24, exact in F32.
     *
     * @param seed of the generator
     * @param counter numbers before it
     * @return its highest 24 bits, times 2^-24
     */
    public static double uniform(long seed, long counter) {
        return (bits(seed, counter) >>> 40) * 0x1p-24;
    }
}
