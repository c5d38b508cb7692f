package jmoe.reference;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsContract;

/** Of the contract, the invariants, hazards and independent checks say something here. */
final class ReferenceKernelsTest extends KernelsContract {
    @Override
    protected Kernels kernels() {
        return new ReferenceKernels();
    }

    @Override
    public boolean computesDouble() {
        return true;
    }

    @Override
    public boolean refusesCallsAfterClose() {
        return false;
    }

    @Override
    public boolean isFast() {
        return false;
    }
}
