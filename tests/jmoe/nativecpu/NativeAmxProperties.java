package jmoe.nativecpu;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsProperties;

/** The properties on emulated tiles, and on emulated AVX-512 where tiles are not used. */
final class NativeAmxProperties extends KernelsProperties {
    @Override
    protected Kernels kernels() {
        return NativeKernelsTest.kernels(BuiltLibrary.EMULATED.open(Tier.AMX), 2);
    }
}
