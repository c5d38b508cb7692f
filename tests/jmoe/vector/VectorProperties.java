package jmoe.vector;

import jmoe.ops.Kernels;
import jmoe.ops.PermutationProperties;

/** The properties of permutations on this backend. */
final class VectorProperties extends PermutationProperties {
    @Override
    protected Kernels kernels() {
        return new VectorKernels(2);
    }
}
