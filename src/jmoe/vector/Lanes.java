package jmoe.vector;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/** The vector shapes of this package: as many F32 lanes as the machine likes. */
final class Lanes {
    /** System property for tests: 128, 256 or 512 instead of what the machine likes. */
    static final String BITS_PROPERTY = "jmoe.vector.bits";

    static final VectorSpecies<Float> FLOATS =
            VectorSpecies.of(float.class, VectorShape.forBitSize(bits()));

    static final VectorSpecies<Integer> INTS = VectorSpecies.of(int.class, FLOATS.vectorShape());

    /** As many 16-bit lanes as there are F32 lanes. */
    static final VectorSpecies<Short> SHORTS =
            VectorSpecies.of(short.class, VectorShape.forBitSize(FLOATS.vectorBitSize() / 2));

    static final int COUNT = FLOATS.length();

    /** Whether there are 32 vector registers, as with AVX-512 and on AArch64, instead of 16. */
    static final boolean MANY_REGISTERS =
            FLOATS.vectorBitSize() == 512 || System.getProperty("os.arch").equals("aarch64");

    private Lanes() {}

    private static int bits() {
        Integer forced = Integer.getInteger(BITS_PROPERTY);
        if (forced == null) {
            // A JVM without its optimising compiler reports 64, for which no half shape exists.
            return Math.max(128, FloatVector.SPECIES_PREFERRED.vectorBitSize());
        }
        if (forced != 128 && forced != 256 && forced != 512) {
            throw new IllegalArgumentException(
                    "-D" + BITS_PROPERTY + ": expected 128, 256 or 512, got " + forced);
        }
        return forced;
    }

    /** The least multiple of the lanes that holds {@code elements}. */
    static int padded(int elements) {
        return Math.addExact(elements, COUNT - 1) / COUNT * COUNT;
    }
}
