package jmoe.cuda;

/**
 * A GPU.
 *
 * @param ordinal the driver's number, from 0
 * @param name as the driver says it, for example {@code NVIDIA H200}
 * @param capability 10 times the major plus the minor compute capability, for example 90
 * @param multiprocessors streaming multiprocessors
 * @param memoryBytes device memory
 * @param l2Bytes second-level cache
 * @param clockHertz highest clock of the multiprocessors; 0 if the driver does not say
 * @param memoryBytesPerSecond what the memory's pins can move; 0 if the driver does not say
 * @param emulated whether the CPU stands in for a GPU, for tests
 */
public record CudaDevice(
        int ordinal,
        String name,
        int capability,
        int multiprocessors,
        long memoryBytes,
        long l2Bytes,
        long clockHertz,
        long memoryBytesPerSecond,
        boolean emulated) {
    private static final int CLOCK_KILOHERTZ = 13;
    private static final int MULTIPROCESSOR_COUNT = 16;
    private static final int MEMORY_CLOCK_KILOHERTZ = 36;
    private static final int MEMORY_BUS_BITS = 37;
    private static final int L2_CACHE_BYTES = 38;
    private static final int CAPABILITY_MAJOR = 75;
    private static final int CAPABILITY_MINOR = 76;

    /** Asks the driver, which must be initialised. */
    static CudaDevice of(int ordinal) {
        return new CudaDevice(
                ordinal,
                CudaDriver.deviceName(ordinal),
                10 * CudaDriver.deviceAttribute(CAPABILITY_MAJOR, ordinal)
                        + CudaDriver.deviceAttribute(CAPABILITY_MINOR, ordinal),
                CudaDriver.deviceAttribute(MULTIPROCESSOR_COUNT, ordinal),
                CudaDriver.deviceBytes(ordinal),
                CudaDriver.deviceAttribute(L2_CACHE_BYTES, ordinal),
                1000L * CudaDriver.deviceAttribute(CLOCK_KILOHERTZ, ordinal),
                memoryBytesPerSecond(ordinal),
                CudaDriver.emulatorName() != null);
    }

    /** Both edges of the clock carry data. */
    private static long memoryBytesPerSecond(int ordinal) {
        long hertz = 1000L * CudaDriver.deviceAttribute(MEMORY_CLOCK_KILOHERTZ, ordinal);
        return 2 * hertz * CudaDriver.deviceAttribute(MEMORY_BUS_BITS, ordinal) / 8;
    }

    /**
     * The compute capability as NVIDIA writes it.
     *
     * @return for example {@code 9.0}
     */
    public String capabilityText() {
        return capability / 10 + "." + capability % 10;
    }
}
