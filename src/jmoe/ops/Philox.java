package jmoe.ops;

/**
 * Random words as a function of a key and a counter, without state: Philox4x32-10 (Salmon et al.
 * 2011, "Parallel random numbers: as easy as 1, 2, 3").
 */
final class Philox {
    private static final int ROUNDS = 10;
    private static final long MULTIPLIER_0 = 0xD2511F53L;
    private static final long MULTIPLIER_1 = 0xCD9E8D57L;

    /** The golden ratio and the square root of 3, which make each round's key another one. */
    private static final int KEY_STEP_0 = 0x9E3779B9;

    private static final int KEY_STEP_1 = 0xBB67AE85;

    private Philox() {}

    /** Turns a counter of four words into four random words, in place. */
    static void scramble(int[] words, long key) {
        int key0 = (int) key;
        int key1 = (int) (key >>> 32);
        for (int round = 0; round < ROUNDS; round++) {
            long product0 = MULTIPLIER_0 * Integer.toUnsignedLong(words[0]);
            long product1 = MULTIPLIER_1 * Integer.toUnsignedLong(words[2]);
            words[0] = (int) (product1 >>> 32) ^ words[1] ^ key0;
            words[1] = (int) product1;
            words[2] = (int) (product0 >>> 32) ^ words[3] ^ key1;
            words[3] = (int) product0;
            key0 += KEY_STEP_0;
            key1 += KEY_STEP_1;
        }
    }
}
