package jmoe.checkpoint;

import jmoe.checkpoint.MoeBlock.Bank;
import jmoe.checkpoint.MoeBlock.Part;
import jmoe.checkpoint.MoeBlock.Piece;
import jmoe.checkpoint.MoeBlock.Router;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterWeights;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
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
    private final Allocator memory;
    private final LoadProgress progress;
    private long totalBytes;
    private long bytes;

    /**
     * A loader for one block.
     *
     * @param dtype of the experts, and unless it is I8 of latent projections; routers keep theirs,
     *     everything else becomes F32
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
        this.memory =
                kernels == null
                        ? (type, shape) -> Tensor.allocate(arena, type, shape)
                        : (type, shape) -> kernels.allocate(arena, type, shape);
        this.progress = progress;
    }

    MoeWeights load(MoeBlock block) {
        if (dtype == DType.I8 && kernels != null) {
            refuseUnlessQuantised(kernels);
        }
        totalBytes = totalBytes(block);
        List<RouterWeights> routers = routers(block);
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
                readLatent(block.latentIn()),
                readLatent(block.latentOut()),
                readIfAny(block.outputBias(), DType.F32));
    }

    /** The routers alone: what decides, without what computes. */
    List<RouterWeights> routers(MoeBlock block) {
        List<RouterWeights> routers = new ArrayList<>();
        for (Router router : block.routers()) {
            routers.add(
                    new RouterWeights(
                            read(router.weight(), storedType(router.weight())),
                            readIfAny(router.bias(), DType.F32),
                            readIfAny(router.selectionBias(), DType.F32)));
        }
        return routers;
    }

    /** A backend that does not multiply by codes says so before billions of them are made. */
    private static void refuseUnlessQuantised(Kernels kernels) {
        try (Arena arena = Arena.ofShared()) {
            Allocator allocator = (type, shape) -> Tensor.allocate(arena, type, shape);
            kernels.prepare(Quantisation.allocate(allocator, 1, 1, 1), arena);
        }
    }

    /** As stored, if a router can be of that type. */
    private DType storedType(Part weight) {
        DType stored = checkpoint.tensor(weight.pieces().getFirst().name()).dtype();
        return stored == DType.BF16 || stored == DType.F16 ? stored : DType.F32;
    }

    /** Only experts are quantised. */
    private DType latentType(Part part) {
        return dtype == DType.I8 ? storedType(part) : dtype;
    }

    private @Nullable Tensor readLatent(@Nullable Part part) {
        return part == null ? null : read(part, latentType(part));
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
                as == DType.I8
                        ? Quantisation.allocate(memory, part.shape())
                        : memory.allocate(as, part.shape());
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
                            + (as == DType.I8
                                    ? ", which cannot be quantised"
                                    : ", which is infinite in " + as)
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
            total += storedType(router.weight()).numBytes(elements);
            others -= elements;
        }
        for (Part latent : new @Nullable Part[] {block.latentIn(), block.latentOut()}) {
            if (latent != null) {
                long elements = latent.elements();
                total += latentType(latent).numBytes(elements) - dtype.numBytes(elements);
            }
        }
        return total + DType.F32.numBytes(others);
    }
}
