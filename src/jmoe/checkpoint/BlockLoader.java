package jmoe.checkpoint;

import jmoe.checkpoint.MoeBlock.Bank;
import jmoe.checkpoint.MoeBlock.Part;
import jmoe.checkpoint.MoeBlock.Piece;
import jmoe.checkpoint.MoeBlock.Router;
import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** Reads a {@link MoeBlock} into memory of its own. */
final class BlockLoader {
    private final Checkpoint checkpoint;
    private final DType dtype;
    private final Arena arena;
    private final LoadProgress progress;
    private long totalBytes;
    private long bytes;

    /**
     * A loader for one block.
     *
     * @param dtype of the experts; everything else becomes F32
     * @param arena owner of the weights
     */
    BlockLoader(Checkpoint checkpoint, DType dtype, Arena arena, LoadProgress progress) {
        this.checkpoint = checkpoint;
        this.dtype = dtype;
        this.arena = arena;
        this.progress = progress;
    }

    MoeWeights load(MoeBlock block) {
        totalBytes = totalBytes(block);
        List<RouterWeights> routers = new ArrayList<>();
        for (Router router : block.routers()) {
            routers.add(
                    new RouterWeights(
                            read(router.weight(), DType.F32),
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
        Tensor target = Tensor.allocate(arena, as, part.shape());
        long to = 0;
        for (Piece piece : part.pieces()) {
            Tensor source = checkpoint.tensor(piece.name());
            long overflow = PieceCopy.copy(source, piece, target, to);
            if (overflow >= 0) {
                long at = PieceCopy.at(piece, overflow);
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
            long elements = piece.rows() * piece.columns();
            to += elements;
            bytes += as.numBytes(elements);
            progress.loaded(bytes, totalBytes);
        }
        return target;
    }

    private long totalBytes(MoeBlock block) {
        long expertElements = block.expertElements();
        return dtype.numBytes(expertElements)
                + DType.F32.numBytes(block.totalElements() - expertElements);
    }
}
