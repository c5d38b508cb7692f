package jmoe.nativecpu;

import jmoe.ops.Kernels;
import jmoe.ops.KernelsContract;
import jmoe.threads.Workers;
import jmoe.vector.VectorKernels;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Nested;

/** The contract on every tier, with several numbers of threads. */
class NativeKernelsTest {
    static NativeKernels kernels(NativeLibrary library, int threads) {
        Workers workers = new Workers("native", threads);
        return new NativeKernels(workers, new VectorKernels(workers), library);
    }

    /** What this backend has besides. */
    abstract static class NativeContract extends KernelsContract {
        @Override
        public boolean computesQuantised() {
            return true;
        }
    }

    /** Emulated instructions take minutes for gigabytes; which bytes are read no tier decides. */
    abstract static class EmulatedContract extends NativeContract {
        @Override
        public boolean worksThroughGigabytes() {
            return false;
        }
    }

    /** Where the real library has no higher tier, the contract runs on that one. */
    @Nested
    class EmulatedAvx2 extends EmulatedContract {
        @Override
        protected Kernels kernels() {
            Assumptions.assumeTrue(
                    BuiltLibrary.REAL.open().tier() != Tier.AVX2, "AVX2 is tested for real");
            return NativeKernelsTest.kernels(BuiltLibrary.EMULATED.open(Tier.AVX2), 1);
        }
    }

    @Nested
    class EmulatedAvx512 extends EmulatedContract {
        @Override
        protected Kernels kernels() {
            return NativeKernelsTest.kernels(BuiltLibrary.EMULATED.open(Tier.AVX512), 2);
        }
    }

    @Nested
    class EmulatedAmx extends EmulatedContract {
        @Override
        protected Kernels kernels() {
            return NativeKernelsTest.kernels(BuiltLibrary.EMULATED.open(Tier.AMX), 3);
        }
    }

    @Nested
    class Real extends NativeContract {
        @Override
        protected Kernels kernels() {
            return NativeKernelsTest.kernels(BuiltLibrary.REAL.open(), 2);
        }
    }
}
