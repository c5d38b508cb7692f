package jmoe.cuda;

import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUfunction;
import jcuda.driver.CUstream;

/**
 * JCuda's pointers and handles as numbers and back. JCuda keeps the numbers to its subclasses, and
 * its own way to a host pointer ends at 2 GiB.
 */
final class JCudaPointers {
    private JCudaPointers() {}

    /** An address in host memory. */
    static final class Host extends Pointer {
        Host() {}

        Host(long address) {
            super(address);
        }

        long address() {
            return getNativePointer() + getByteOffset();
        }
    }

    /** An address in device memory. */
    static final class Device extends CUdeviceptr {
        Device() {}

        Device(long address) {
            super(new CUdeviceptr(), address);
        }

        long address() {
            return getNativePointer() + getByteOffset();
        }
    }

    /** A context. */
    static final class Context extends CUcontext {
        long address() {
            return getNativePointer();
        }
    }

    /** A stream. */
    static final class Stream extends CUstream {
        long address() {
            return getNativePointer();
        }
    }

    /** A kernel. */
    static final class Function extends CUfunction {
        long address() {
            return getNativePointer();
        }
    }
}
