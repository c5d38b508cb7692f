package jmoe.cuda;

import org.junit.jupiter.api.Test;

/** The kernels of native/measure on whatever runs kernels here; nothing is timed. */
final class HopperMeasuresTest {
    @Test
    void check_findsEveryKernelRight() {
        Emulator.requireDevice();
        Probes.require(Probes.HOPPER);
        try (MeasureKernels kernels = new MeasureKernels()) {
            new HopperMeasures(kernels).check();
        }
    }
}
