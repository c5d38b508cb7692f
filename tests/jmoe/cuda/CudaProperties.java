package jmoe.cuda;

import jmoe.ops.Kernels;
import jmoe.ops.PermutationProperties;

/** The properties of permutations on this backend. */
final class CudaProperties extends PermutationProperties {
    @Override
    protected Kernels kernels() {
        Emulator.requireDevice();
        return new CudaKernels();
    }
}
