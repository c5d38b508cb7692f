package jmoe.cuda;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsProperties;

/** The properties on this backend. */
final class CudaProperties extends KernelsProperties {
    @Override
    protected Kernels kernels() {
        Emulator.requireDevice();
        return new CudaKernels();
    }
}
