package jmoe.reference;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsProperties;

/** The properties on this backend. */
final class ReferenceProperties extends KernelsProperties {
    @Override
    protected Kernels kernels() {
        return new ReferenceKernels();
    }
}
