package jmoe.vector;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Tensor;

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

    void setFloat(long element, float value) {
        data.set(JAVA_FLOAT_UNALIGNED, element * 4, value);
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
            case BF16 -> readBf16(element * 2, count, to, at);
            case F16 -> readF16(element * 2, count, to, at);
            default -> throw unsupported();
        }
        for (int i = count; i < Lanes.padded(count); i++) {
            to[at + i] = 0;
        }
    }

    private void readBf16(long offsetBytes, int count, float[] to, int at) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            HalfFloats.widenBf16(data, offsetBytes + 2L * i).intoArray(to, at + i);
        }
        for (int i = whole; i < count; i++) {
            short bits = data.get(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i);
            to[at + i] = Floats.bf16ToFloat(bits);
        }
    }

    private void readF16(long offsetBytes, int count, float[] to, int at) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            HalfFloats.widenF16(data, offsetBytes + 2L * i).intoArray(to, at + i);
        }
        for (int i = whole; i < count; i++) {
            short bits = data.get(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i);
            to[at + i] = HalfFloats.widenF16(bits);
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
            case BF16 -> writeBf16(from, at, count, element * 2);
            case F16 -> writeF16(from, at, count, element * 2);
            default -> throw unsupported();
        }
    }

    private void writeBf16(float[] from, int at, int count, long offsetBytes) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            HalfFloats.narrowBf16(from, at + i, data, offsetBytes + 2L * i);
        }
        for (int i = whole; i < count; i++) {
            short bits = Floats.floatToBf16(from[at + i]);
            data.set(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i, bits);
        }
    }

    private void writeF16(float[] from, int at, int count, long offsetBytes) {
        int whole = Lanes.FLOATS.loopBound(count);
        for (int i = 0; i < whole; i += Lanes.COUNT) {
            HalfFloats.narrowF16(from, at + i, data, offsetBytes + 2L * i);
        }
        for (int i = whole; i < count; i++) {
            short bits = Floats.floatToF16(from[at + i]);
            data.set(JAVA_SHORT_UNALIGNED, offsetBytes + 2L * i, bits);
        }
    }

    private UnsupportedOperationException unsupported() {
        return new UnsupportedOperationException(dtype + " elements are not computed with here");
    }
}
