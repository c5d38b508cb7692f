package jmoe.reference;

import jmoe.ops.Kernels;
import jmoe.ops.PermutationProperties;

/** The properties of permutations on this backend. */
final class ReferenceProperties extends PermutationProperties {
    @Override
    protected Kernels kernels() {
        return new ReferenceKernels();
    }
}
