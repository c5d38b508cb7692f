package jmoe.tensor;

import java.lang.foreign.MemorySegment;

/**
 * Every argument check of the operations and its message: {@code topkIds: expected I32
 * [tokens=4096, topK=8], got I32 [4096, 6]}. Checks run before any work is queued and allocate
 * nothing when they pass.
 */
public final class Check {
    private Check() {}

    /**
     * A tensor of one dimension.
     *
     * @param name parameter name
     * @param tensor the argument
     * @param dtype expected type
     * @param dim what the dimension counts
     * @param length its expected length
     */
    public static void vector(String name, Tensor tensor, DType dtype, String dim, long length) {
        if (tensor.dtype() != dtype || tensor.rank() != 1 || tensor.dim(0) != length) {
            throw mismatch(name, dtype + " [" + dim + "=" + length + "]", tensor);
        }
        accessible(name, tensor);
        rowMajor(name, tensor);
    }

    /**
     * A tensor of two dimensions.
     *
     * @param name parameter name
     * @param tensor the argument
     * @param dtype expected type
     * @param rowDim what the first dimension counts
     * @param rows its expected length
     * @param columnDim what the second dimension counts
     * @param columns its expected length
     */
    public static void matrix(
            String name,
            Tensor tensor,
            DType dtype,
            String rowDim,
            long rows,
            String columnDim,
            long columns) {
        if (tensor.dtype() != dtype
                || tensor.rank() != 2
                || tensor.dim(0) != rows
                || tensor.dim(1) != columns) {
            throw mismatch(
                    name,
                    dtype + " [" + rowDim + "=" + rows + ", " + columnDim + "=" + columns + "]",
                    tensor);
        }
        accessible(name, tensor);
        rowMajor(name, tensor);
    }

    /**
     * A matrix of any floating-point type.
     *
     * @param name parameter name
     * @param tensor the argument
     * @param rowDim what the first dimension counts
     * @param rows its expected length
     * @param columnDim what the second dimension counts
     * @param columns its expected length
     */
    public static void floatMatrix(
            String name, Tensor tensor, String rowDim, long rows, String columnDim, long columns) {
        if (!tensor.dtype().isFloating()
                || tensor.rank() != 2
                || tensor.dim(0) != rows
                || tensor.dim(1) != columns) {
            throw mismatch(
                    name,
                    "F32, F16, BF16 or F64 ["
                            + rowDim
                            + "="
                            + rows
                            + ", "
                            + columnDim
                            + "="
                            + columns
                            + "]",
                    tensor);
        }
        accessible(name, tensor);
    }

    /**
     * A tensor of any floating-point type and a given rank.
     *
     * @param name parameter name
     * @param tensor the argument
     * @param dims what the dimensions count, for the message, for example {@code "[tokens,
     *     hidden]"}
     * @param rank number of dimensions
     */
    public static void floating(String name, Tensor tensor, String dims, int rank) {
        if (!tensor.dtype().isFloating() || tensor.rank() != rank) {
            throw mismatch(name, "F32, F16, BF16 or F64 " + dims, tensor);
        }
        accessible(name, tensor);
    }

    /**
     * A weight: numbers of any floating-point type, or I8 codes that have a scale.
     *
     * @param name parameter name
     * @param weight the argument
     * @param dims what the three dimensions count, for the message
     */
    public static void weight(String name, Tensor weight, String dims) {
        boolean usable = weight.dtype().isFloating() || weight.scale() != null;
        if (!usable || weight.rank() != 3) {
            String expected = "F32, F16, BF16, F64 or scaled I8 " + dims;
            if (weight.dtype() == DType.I8 && !usable) {
                throw new IllegalArgumentException(
                        mismatch(name, expected, weight).getMessage()
                                + "; give the codes their factors by Tensor.scaled, or numbers"
                                + " codes by Quantisation.of");
            }
            throw mismatch(name, expected, weight);
        }
        accessible(name, weight);
    }

    /**
     * Numbers as they are, for a backend that does not multiply by codes.
     *
     * @param operation its name
     * @param name parameter name
     * @param tensor the argument
     * @param backend which backend it is
     * @throws UnsupportedOperationException if there is a scale
     */
    public static void unscaled(String operation, String name, Tensor tensor, String backend) {
        if (tensor.scale() != null) {
            throw new UnsupportedOperationException(
                    operation
                            + ": "
                            + name
                            + " of type scaled I8 is not supported by "
                            + backend
                            + "; quantised weights run on the native and reference backends; load"
                            + " them as BF16");
        }
    }

    /**
     * An argument that is not what was expected.
     *
     * @param name parameter name
     * @param expected type and shape in words
     * @param tensor the argument
     * @return the exception to throw
     */
    public static IllegalArgumentException mismatch(String name, String expected, Tensor tensor) {
        return new IllegalArgumentException(
                name + ": expected " + expected + ", got " + tensor.describe());
    }

    /**
     * An output: writable memory that shares no byte with an input.
     *
     * @param name parameter name of the output
     * @param output the output
     * @param inputName parameter name of the input
     * @param input the input
     */
    public static void disjoint(String name, Tensor output, String inputName, Tensor input) {
        long outputFrom = output.data().address();
        long inputFrom = input.data().address();
        if (output.numElements() > 0
                && input.numElements() > 0
                && outputFrom < inputFrom + input.numBytes()
                && inputFrom < outputFrom + output.numBytes()) {
            throw new IllegalArgumentException(
                    name + ": expected memory of its own, got memory shared with " + inputName);
        }
        Tensor scale = input.scale();
        if (scale != null) {
            disjoint(name, output, inputName, scale);
        }
    }

    /**
     * Memory that may be written.
     *
     * @param name parameter name
     * @param output the output
     */
    public static void writable(String name, Tensor output) {
        if (output.data().isReadOnly()) {
            throw new IllegalArgumentException(
                    name + ": expected writable memory, got a read-only segment");
        }
    }

    /**
     * Host memory.
     *
     * @param name parameter name
     * @param tensor the argument
     */
    public static void host(String name, Tensor tensor) {
        if (tensor.isDevice()) {
            throw new IllegalArgumentException(
                    name
                            + ": expected host memory, got "
                            + tensor.describe()
                            + " on a device; copy it to the host first");
        }
    }

    /**
     * Elements in row-major order.
     *
     * @param name parameter name
     * @param tensor the argument
     */
    public static void rowMajor(String name, Tensor tensor) {
        if (tensor.layout() != null) {
            throw new IllegalArgumentException(
                    name
                            + ": expected row-major elements, got "
                            + tensor
                            + "; only the backend that prepared a weight can multiply by it");
        }
    }

    /**
     * Memory that the calling thread may use now.
     *
     * @param name parameter name
     * @param tensor the argument
     * @throws IllegalStateException if its arena is closed
     * @throws WrongThreadException if its arena is confined to another thread
     */
    public static void accessible(String name, Tensor tensor) {
        MemorySegment data = tensor.data();
        if (!data.scope().isAlive()) {
            throw new IllegalStateException(
                    name + ": its arena is closed; keep the arena open while the tensor is used");
        }
        if (!data.isAccessibleBy(Thread.currentThread())) {
            throw new WrongThreadException(
                    name
                            + ": belongs to the confined arena of another thread; use"
                            + " Arena.ofShared() or call from the owner");
        }
        Tensor scale = tensor.scale();
        if (scale != null) {
            accessible(name, scale);
        }
    }
}
