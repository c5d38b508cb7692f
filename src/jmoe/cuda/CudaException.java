package jmoe.cuda;

import org.jspecify.annotations.Nullable;

/** A call that the CUDA driver refused or that failed on the device. */
public final class CudaException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final int code;
    private final String name;
    private final String call;
    private final @Nullable String lastKernel;

    private CudaException(
            String message, int code, String name, String call, @Nullable String lastKernel) {
        super(message);
        this.code = code;
        this.name = name;
        this.call = call;
        this.lastKernel = lastKernel;
    }

    static CudaException of(int code, String call, @Nullable String lastKernel) {
        String name = CudaDriver.errorName(code);
        StringBuilder message = new StringBuilder(call);
        message.append(" failed with ").append(name).append(" (").append(code).append("): ");
        message.append(CudaDriver.errorText(code));
        if (lastKernel != null) {
            message.append("; the last kernel launched was ").append(lastKernel);
            if (isLost(code)) {
                message.append(", and -D").append(CudaContext.SYNC_PROPERTY);
                message.append("=true finds the one that failed");
            }
        }
        return new CudaException(message.toString(), code, name, call, lastKernel);
    }

    /** Whether the context is unusable after this error, up to its end. */
    static boolean isLost(int code) {
        return switch (code) {
            // ECC and NVLink errors, illegal address, time-out, assertion, faults of instructions
            case 214, 220, 700, 702, 710, 714, 715, 716, 717, 718, 719 -> true;
            default -> false;
        };
    }

    /**
     * The driver's number of the error.
     *
     * @return a CUresult
     */
    public int code() {
        return code;
    }

    /**
     * The driver's name of the error.
     *
     * @return for example {@code CUDA_ERROR_OUT_OF_MEMORY}
     */
    public String name() {
        return name;
    }

    /**
     * What was called.
     *
     * @return a function of the driver, with what it was asked for
     */
    public String call() {
        return call;
    }

    /**
     * The kernel launched last before the call. Kernels run later than they are launched, so
     * another one may have failed; {@code -Djmoe.sync=true} waits for each and names the culprit.
     *
     * @return a kernel symbol, or null if none was launched
     */
    public @Nullable String lastKernel() {
        return lastKernel;
    }
}
