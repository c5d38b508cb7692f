package jmoe.nativecpu;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsProperties;

/** The properties on what this machine has. */
final class NativeProperties extends KernelsProperties {
    @Override
    protected Kernels kernels() {
        return NativeKernelsTest.kernels(BuiltLibrary.REAL.open(), 2);
    }
}
