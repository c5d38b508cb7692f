package jmoe.vector;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/** The vector shapes of this package: as many F32 lanes as the machine likes. */
final class Lanes {
    // A JVM without its optimising compiler reports 64 bits, for which no half shape exists.
    static final VectorSpecies<Float> FLOATS =
            FloatVector.SPECIES_PREFERRED.vectorBitSize() < 128
                    ? FloatVector.SPECIES_128
                    : FloatVector.SPECIES_PREFERRED;

    static final VectorSpecies<Integer> INTS = VectorSpecies.of(int.class, FLOATS.vectorShape());

    /** As many 16-bit lanes as there are F32 lanes. */
    static final VectorSpecies<Short> SHORTS =
            VectorSpecies.of(short.class, VectorShape.forBitSize(FLOATS.vectorBitSize() / 2));

    static final int COUNT = FLOATS.length();

    private Lanes() {}

    /** The least multiple of the lanes that holds {@code elements}. */
    static int padded(int elements) {
        return Math.addExact(elements, COUNT - 1) / COUNT * COUNT;
    }
}
