package jmoe.checkpoint;

import jmoe.checkpoint.MoeBlock.Bank;
import jmoe.checkpoint.MoeBlock.Part;
import jmoe.checkpoint.MoeBlock.Piece;
import jmoe.checkpoint.MoeBlock.Router;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/**
 * Reads a {@link MoeBlock} into memory of its own: on the host, or where a backend computes. What
 * goes to a device is on the host one piece at a time, and not at all where the stored piece is
 * what is wanted: then the device copies from the mapped file.
 */
final class BlockLoader {
    private final Checkpoint checkpoint;
    private final DType dtype;
    private final @Nullable Kernels kernels;
    private final Arena arena;
    private final LoadProgress progress;
    private long totalBytes;
    private long bytes;

    /**
     * A loader for one block.
     *
     * @param dtype of the experts; routers keep theirs, everything else becomes F32
     * @param kernels who decides where the weights are, or null for the host
     * @param arena owner of the weights
     */
    BlockLoader(
            Checkpoint checkpoint,
            DType dtype,
            @Nullable Kernels kernels,
            Arena arena,
            LoadProgress progress) {
        this.checkpoint = checkpoint;
        this.dtype = dtype;
        this.kernels = kernels;
        this.arena = arena;
        this.progress = progress;
    }

    MoeWeights load(MoeBlock block) {
        totalBytes = totalBytes(block);
        List<RouterWeights> routers = new ArrayList<>();
        for (Router router : block.routers()) {
            routers.add(
                    new RouterWeights(
                            read(router.weight(), routerType(router)),
                            readIfAny(router.bias(), DType.F32),
                            readIfAny(router.selectionBias(), DType.F32)));
        }
        List<ExpertWeights> experts = new ArrayList<>();
        for (Bank bank : block.experts()) {
            experts.add(bank(bank));
        }
        Bank shared = block.shared();
        return new MoeWeights(
                routers,
                experts,
                shared == null ? null : bank(shared),
                readIfAny(block.sharedGate(), DType.F32),
                readIfAny(block.latentIn(), dtype),
                readIfAny(block.latentOut(), dtype),
                readIfAny(block.outputBias(), DType.F32));
    }

    /** As stored, if a router can be of that type. */
    private DType routerType(Router router) {
        DType stored = checkpoint.tensor(router.weight().pieces().getFirst().name()).dtype();
        return stored == DType.BF16 || stored == DType.F16 ? stored : DType.F32;
    }

    private ExpertWeights bank(Bank bank) {
        return new ExpertWeights(
                read(bank.gateUp(), dtype),
                read(bank.down(), dtype),
                readIfAny(bank.gateUpBias(), DType.F32),
                readIfAny(bank.downBias(), DType.F32),
                bank.activation());
    }

    private @Nullable Tensor readIfAny(@Nullable Part part, DType as) {
        return part == null ? null : read(part, as);
    }

    private Tensor read(Part part, DType as) {
        Tensor target =
                kernels == null
                        ? Tensor.allocate(arena, as, part.shape())
                        : kernels.allocate(arena, as, part.shape());
        try (Arena scratch = Arena.ofConfined()) {
            Tensor host = target.isDevice() ? scratch(part, as, scratch) : target;
            long to = 0;
            for (Piece piece : part.pieces()) {
                if (kernels == null || !target.isDevice()) {
                    convert(piece, host, to);
                } else {
                    upload(piece, host, target, to, kernels);
                }
                long elements = piece.rows() * piece.columns();
                to += elements;
                bytes += as.numBytes(elements);
                progress.loaded(bytes, totalBytes);
            }
        }
        return target;
    }

    /** Room for the largest piece that cannot be taken as it is stored. */
    private Tensor scratch(Part part, DType as, Arena owner) {
        long largest = 0;
        for (Piece piece : part.pieces()) {
            if (!isStoredAs(piece, as)) {
                largest = Math.max(largest, piece.rows() * piece.columns());
            }
        }
        return Tensor.allocate(owner, as, largest);
    }

    private boolean isStoredAs(Piece piece, DType as) {
        return piece.columnStride() == 1
                && piece.rowStride() == piece.columns()
                && checkpoint.tensor(piece.name()).dtype() == as;
    }

    private void upload(Piece piece, Tensor scratch, Tensor target, long to, Kernels device) {
        long elements = piece.rows() * piece.columns();
        Tensor host;
        if (isStoredAs(piece, target.dtype())) {
            Tensor stored = checkpoint.tensor(piece.name());
            host = stored.reshape(stored.numElements()).slice(piece.offset(), elements);
        } else {
            convert(piece, scratch, 0);
            host = scratch.slice(0, elements);
        }
        device.copy(host, target.reshape(target.numElements()).slice(to, elements));
    }

    private void convert(Piece piece, Tensor target, long to) {
        Tensor source = checkpoint.tensor(piece.name());
        long overflow = PieceCopy.copy(source, piece, target, to);
        if (overflow >= 0) {
            long at = PieceCopy.at(piece, overflow);
            DType as = target.dtype();
            throw new CheckpointException(
                    checkpoint.path()
                            + ": tensor "
                            + CheckpointException.quoted(piece.name())
                            + " has "
                            + source.getDouble(at)
                            + " at element "
                            + at
                            + ", which is infinite in "
                            + as
                            + "; load the weights as "
                            + (as == DType.F16 ? "BF16 or F32" : "F32"));
        }
    }

    private long totalBytes(MoeBlock block) {
        long expertElements = block.expertElements();
        long total = dtype.numBytes(expertElements);
        long others = block.totalElements() - expertElements;
        for (Router router : block.routers()) {
            long elements = router.weight().elements();
            total += routerType(router).numBytes(elements);
            others -= elements;
        }
        return total + DType.F32.numBytes(others);
    }
}
