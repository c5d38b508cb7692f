package jmoe.vector;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsProperties;

/** The properties on this backend. */
final class VectorProperties extends KernelsProperties {
    @Override
    protected Kernels kernels() {
        return new VectorKernels(2);
    }
}
