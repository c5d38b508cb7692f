package jmoe.tensor;

import java.lang.foreign.MemorySegment;

/**
 * How a backend arranged the elements of a tensor for itself. A tensor with a layout has a type and
 * a shape like any other, but only the backend that prepared it can read its elements.
 */
public interface Layout {
    /**
     * Where the elements are.
     *
     * @return memory of the backend's own arrangement
     */
    MemorySegment memory();

    /**
     * The arrangement, for messages.
     *
     * @return for example {@code panels of 16 columns}
     */
    String describe();
}
