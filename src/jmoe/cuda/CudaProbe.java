package jmoe.cuda;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;

/**
 * Whether the CUDA backend can run here. Asking loads the driver library and nothing else: JCuda is
 * not touched, because its classes cannot be used again once they failed to load.
 *
 * @param status what was found
 * @param reason what is missing, in words; empty if nothing is
 * @param remedy what to do about it; empty if nothing is missing
 * @param driverVersion 1000 major + 10 minor of the newest CUDA that the driver supports; 0 if
 *     there is no driver
 * @param device the device that would be used, or null if there is none
 */
public record CudaProbe(
        Status status,
        String reason,
        String remedy,
        int driverVersion,
        @Nullable CudaDevice device) {
    /** What is missing, in the order of asking. */
    public enum Status {
        /** The driver library is missing or does not start. */
        NO_DRIVER,
        /** The driver cannot load what CUDA 13 compiled. */
        DRIVER_TOO_OLD,
        /** There is no GPU, or none of the number that was asked for. */
        NO_DEVICE,
        /** The GPU is older than Ampere. */
        DEVICE_UNSUPPORTED,
        /** jmoe was built without the CUDA compiler. */
        KERNELS_NOT_BUILT,
        /** Nothing is missing. */
        OK
    }

    /**
     * A library that jmoe can do without.
     *
     * @param present whether it can be loaded
     * @param reason what is missing; empty if nothing is
     * @param remedy what to do about it; empty if nothing is missing
     */
    public record Library(boolean present, String reason, String remedy) {}

    /** System property: number of the device to use, 0 by default. */
    public static final String DEVICE_PROPERTY = "jmoe.cuda.device";

    /** First driver branch of CUDA 13.0. */
    static final int OLDEST_DRIVER = 580;

    private static final int OLDEST_VERSION = 13000;
    private static final int OLDEST_CAPABILITY = 80;
    private static final String CUBLAS = "libcublas.so.12";

    /**
     * Looks for a driver, a device and the kernels.
     *
     * @return what was found; never throws
     */
    public static CudaProbe probe() {
        try {
            return probeDriver();
        } catch (RuntimeException | LinkageError e) {
            return failed(
                    Status.NO_DRIVER,
                    0,
                    "the driver library " + CudaDriver.libraryName() + " fails: " + e.getMessage(),
                    "reinstall the NVIDIA driver");
        }
    }

    /** The device that there is; throws if something is missing. */
    static CudaDevice usableDevice() {
        CudaProbe probe = probe();
        CudaDevice device = probe.device();
        if (probe.status() != Status.OK || device == null) {
            throw new UnsupportedOperationException(
                    "CUDA: " + probe.reason() + "; " + probe.remedy());
        }
        return device;
    }

    /**
     * Looks for cuBLAS, which jmoe only measures itself against.
     *
     * @return what was found; never throws
     */
    public static Library cublas() {
        try (Arena arena = Arena.ofConfined()) {
            load(CUBLAS, arena);
            return new Library(true, "", "");
        } catch (RuntimeException | LinkageError e) {
            return new Library(
                    false,
                    CUBLAS + " cannot be loaded",
                    "install cuBLAS of CUDA 12, which JCublas is linked to, for comparisons with"
                            + " it");
        }
    }

    @SuppressWarnings("restricted")
    private static void load(String library, Arena arena) {
        SymbolLookup.libraryLookup(library, arena);
    }

    private static CudaProbe probeDriver() {
        Throwable failure = CudaDriver.loadFailure();
        if (failure != null) {
            return noLibrary(failure);
        }
        if (!CudaDriver.has("cuInit")) {
            return failed(
                    Status.NO_DRIVER,
                    0,
                    "the driver library " + CudaDriver.libraryName() + " lacks cuInit",
                    installOrCorrect());
        }
        int started = CudaDriver.init();
        if (started != CudaDriver.SUCCESS && started != CudaDriver.NO_DEVICE) {
            return failed(
                    Status.NO_DRIVER,
                    0,
                    "the NVIDIA driver does not start: "
                            + CudaDriver.errorName(started)
                            + ", "
                            + CudaDriver.errorText(started),
                    "restart the machine, or reinstall the NVIDIA driver");
        }
        int version = CudaDriver.driverVersion();
        if (version < OLDEST_VERSION) {
            return failed(
                    Status.DRIVER_TOO_OLD,
                    version,
                    "the NVIDIA driver supports CUDA up to "
                            + versionText(version)
                            + ", jmoe needs "
                            + versionText(OLDEST_VERSION),
                    "install NVIDIA driver " + OLDEST_DRIVER + " or later");
        }
        int devices = started == CudaDriver.NO_DEVICE ? 0 : CudaDriver.deviceCount();
        return probeDevice(version, devices);
    }

    private static CudaProbe noLibrary(Throwable failure) {
        if (failure instanceof IllegalCallerException) {
            return failed(
                    Status.NO_DRIVER,
                    0,
                    "java does not allow native libraries",
                    "start java with --enable-native-access=ALL-UNNAMED");
        }
        return failed(
                Status.NO_DRIVER,
                0,
                "the driver library " + CudaDriver.libraryName() + " cannot be loaded",
                installOrCorrect());
    }

    private static String installOrCorrect() {
        return System.getProperty(CudaDriver.LIBRARY_PROPERTY) == null
                ? "install NVIDIA driver " + OLDEST_DRIVER + " or later"
                : "correct -D" + CudaDriver.LIBRARY_PROPERTY;
    }

    private static CudaProbe probeDevice(int version, int devices) {
        if (devices == 0) {
            return failed(
                    Status.NO_DEVICE,
                    version,
                    "the NVIDIA driver finds no GPU",
                    "make a GPU visible, for example with CUDA_VISIBLE_DEVICES");
        }
        String wanted = System.getProperty(DEVICE_PROPERTY, "0");
        int ordinal = ordinal(wanted);
        if (ordinal < 0 || ordinal >= devices) {
            return failed(
                    Status.NO_DEVICE,
                    version,
                    "there is no GPU number " + wanted,
                    "set -D"
                            + DEVICE_PROPERTY
                            + (devices == 1 ? "=0" : " to 0 up to " + (devices - 1)));
        }
        CudaDevice device = CudaDevice.of(ordinal);
        if (device.capability() < OLDEST_CAPABILITY) {
            return new CudaProbe(
                    Status.DEVICE_UNSUPPORTED,
                    device.name()
                            + " has compute capability "
                            + device.capabilityText()
                            + ", jmoe needs 8.0",
                    "use a GPU of the Ampere generation or later",
                    version,
                    device);
        }
        return probeKernels(version, device, CudaModule.missingImage());
    }

    /** The emulator has the kernels built in. */
    static CudaProbe probeKernels(int version, CudaDevice device, @Nullable String missingImage) {
        if (missingImage != null && !device.emulated()) {
            return new CudaProbe(
                    Status.KERNELS_NOT_BUILT,
                    "this build of jmoe has no CUDA kernels: " + missingImage + " is missing",
                    "build jmoe with nvcc of CUDA 13.0 on the PATH",
                    version,
                    device);
        }
        return new CudaProbe(Status.OK, "", "", version, device);
    }

    private static int ordinal(String text) {
        try {
            return Integer.parseInt(text);
        } catch (NumberFormatException e) {
            return -1;
        }
    }

    private static CudaProbe failed(Status status, int version, String reason, String remedy) {
        return new CudaProbe(status, reason, remedy, version, null);
    }

    private static String versionText(int version) {
        return version / 1000 + "." + version % 1000 / 10;
    }
}
