package jmoe.cuda;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsContract;

import org.junit.jupiter.api.BeforeAll;

/** The contract on host tensors. */
final class CudaKernelsTest extends KernelsContract {
    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @Override
    protected Kernels kernels() {
        return new CudaKernels();
    }

    @Override
    public boolean computesOnHost() {
        return false;
    }

    @Override
    public boolean worksThroughGigabytes() {
        return CudaDriver.emulatorName() == null;
    }
}
