package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/**
 * The tensors of one operation as the device sees them. Device tensors are taken as they are; of a
 * host tensor there is a copy on the device until {@link #close}. If all are on the device, nothing
 * waits: the operation is queued and that is all.
 */
final class Operands implements AutoCloseable {
    private final CudaContext context;
    private final List<CudaMemory.Block> blocks = new ArrayList<>();
    private final List<Output> outputs = new ArrayList<>();
    private boolean touchesHost;

    /**
     * A result that goes to the host.
     *
     * @param tensor where to
     * @param address of the copy on the device
     * @param onlyRows whether only the routed rows are written, and the others must be left alone
     */
    private record Output(Tensor tensor, long address, boolean onlyRows) {}

    Operands(CudaContext context) {
        this.context = context;
    }

    /** Begins an operation, and with it a turn of the context. */
    Operands open() {
        context.enter();
        return this;
    }

    /** Address of an input, 0 for none. */
    long in(@Nullable Tensor tensor) {
        if (tensor == null) {
            return 0;
        }
        if (tensor.isDevice()) {
            return tensor.data().address();
        }
        context.refuseInCapture("a tensor on the host, " + tensor.describe());
        touchesHost = true;
        long address = scratch(tensor.numBytes());
        context.staging().toDevice(tensor.data(), address);
        return address;
    }

    /** Address of an input that is overwritten in place. */
    long inOut(Tensor tensor) {
        long address = in(tensor);
        if (!tensor.isDevice()) {
            outputs.add(new Output(tensor, address, false));
        }
        return address;
    }

    /** Address of an output of which every element is written. */
    long out(Tensor tensor) {
        return out(tensor, false);
    }

    /** Address of an output of which only the rows between the offsets are written. */
    long rowsOut(Tensor tensor) {
        return out(tensor, true);
    }

    private long out(Tensor tensor, boolean onlyRows) {
        if (tensor.isDevice()) {
            return tensor.data().address();
        }
        context.refuseInCapture("a tensor on the host, " + tensor.describe());
        touchesHost = true;
        long address = scratch(tensor.numBytes());
        outputs.add(new Output(tensor, address, onlyRows));
        return address;
    }

    /** Memory for the time of the operation; its content is undefined. */
    long scratch(long bytes) {
        if (bytes == 0) {
            return 0;
        }
        CudaMemory.Block block = context.memory().allocate(bytes);
        blocks.add(block);
        return block.address();
    }

    /** Address of memory whose content matters neither before nor after. */
    long scratch(Tensor tensor) {
        return tensor.isDevice() ? tensor.data().address() : scratch(tensor.numBytes());
    }

    /** Brings outputs to the host and waits, if any operand is there. */
    void finish() {
        finish(null);
    }

    /** The same, with the offsets between whose first and last entry rows are written. */
    void finish(@Nullable Tensor expertOffsets) {
        if (!touchesHost) {
            return;
        }
        for (Output output : outputs) {
            if (!output.onlyRows) {
                context.staging().toHost(output.address, output.tensor.data());
            }
        }
        // After the others, because the offsets may be one of them.
        for (Output output : outputs) {
            if (output.onlyRows && expertOffsets != null) {
                rowsToHost(output, expertOffsets);
            }
        }
        context.stream().synchronise();
    }

    private void rowsToHost(Output output, Tensor expertOffsets) {
        Tensor rows = output.tensor;
        long last = offset(expertOffsets, expertOffsets.numElements() - 1);
        long end = Math.clamp(last, 0, rows.dim(0));
        long first = Math.clamp(offset(expertOffsets, 0), 0, end);
        Tensor written = rows.slice(first, end - first);
        long before = written.data().address() - rows.data().address();
        context.staging().toHost(output.address + before, written.data());
    }

    private long offset(Tensor expertOffsets, long entry) {
        if (!expertOffsets.isDevice()) {
            return expertOffsets.getInt(entry);
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment offset = arena.allocate(JAVA_INT);
            context.staging().toHost(expertOffsets.data().address() + 4 * entry, offset);
            return offset.get(JAVA_INT, 0);
        }
    }

    /** Frees every copy, also after one of them could not be freed. */
    @Override
    public void close() {
        CudaException failure = null;
        for (CudaMemory.Block block : blocks) {
            try {
                context.memory().free(block);
            } catch (CudaException e) {
                failure = failure == null ? e : failure;
            }
        }
        blocks.clear();
        outputs.clear();
        touchesHost = false;
        context.exit();
        if (failure != null) {
            throw failure;
        }
    }
}
