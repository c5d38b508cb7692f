package jmoe.vector;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import java.lang.foreign.MemorySegment;

/**
 * A tensor's elements as the workers see them: runs of F32, F16 or BF16 are widened to F32 when
 * read and rounded when written; single elements are I32 or F32.
 *
 * @param data the memory, usable by every worker
 * @param dtype type of the elements
 */
record Elements(MemorySegment data, DType dtype) {
    static Elements of(Tensor tensor, Workers workers) {
        return new Elements(workers.view(tensor.data()), tensor.dtype());
    }

    int getInt(long element) {
        return data.get(JAVA_INT_UNALIGNED, element * 4);
    }

    float getFloat(long element) {
        return data.get(JAVA_FLOAT_UNALIGNED, element * 4);
    }

    void setInt(long element, int value) {
        data.set(JAVA_INT_UNALIGNED, element * 4, value);
    }

    /** Stores the value; every NaN becomes the canonical one. */
    void setFloat(long element, float value) {
        data.set(JAVA_FLOAT_UNALIGNED, element * 4, Float.isNaN(value) ? Float.NaN : value);
    }

    /**
     * Widens consecutive elements, exactly, and appends zeros up to whole vectors.
     *
     * @param element first one
     * @param count how many
     * @param to receives {@link Lanes#padded} elements
     * @param at first index to write
     */
    void read(long element, int count, float[] to, int at) {
        switch (dtype) {
            case F32 -> MemorySegment.copy(data, JAVA_FLOAT_UNALIGNED, element * 4, to, at, count);
            case BF16 -> HalfFloats.widenBf16(data, element * 2, count, to, at);
            case F16 -> HalfFloats.widenF16(data, element * 2, count, to, at);
            default -> throw unsupported();
        }
        for (int i = count; i < Lanes.padded(count); i++) {
            to[at + i] = 0;
        }
    }

    /**
     * Rounds to the type, to nearest, ties to even; every NaN becomes the canonical one.
     *
     * @param from elements, with room up to whole vectors; changed by the call
     * @param at first index to read
     * @param count how many
     * @param element first one to write
     */
    void write(float[] from, int at, int count, long element) {
        HalfFloats.canonicaliseNaN(from, at, Lanes.padded(count));
        switch (dtype) {
            case F32 ->
                    MemorySegment.copy(from, at, data, JAVA_FLOAT_UNALIGNED, element * 4, count);
            case BF16 -> HalfFloats.narrowBf16(from, at, count, data, element * 2);
            case F16 -> HalfFloats.narrowF16(from, at, count, data, element * 2);
            default -> throw unsupported();
        }
    }

    private UnsupportedOperationException unsupported() {
        return new UnsupportedOperationException(dtype + " elements are not computed with here");
    }
}
