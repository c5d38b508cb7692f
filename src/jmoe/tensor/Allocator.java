package jmoe.tensor;

/** Where tensors come from: an arena of the host, the memory of a backend. */
@FunctionalInterface
public interface Allocator {
    /**
     * Allocates a tensor.
     *
     * @param dtype element type
     * @param shape dimensions, outermost first
     * @return a tensor of that type and shape
     */
    Tensor allocate(DType dtype, long... shape);
}
