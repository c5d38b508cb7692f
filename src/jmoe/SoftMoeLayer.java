package jmoe;

import jmoe.ops.Bank;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Routing;
import jmoe.ops.SoftMoeWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * A Soft-MoE layer: experts see mixtures of all tokens, and tokens get mixtures of all results, so
 * that nothing is chosen and nothing dropped. Puigcerver et al. 2023, "From Sparse to Soft Mixtures
 * of Experts".
 *
 * <pre>
 * logits = factor (x / |x|) (slots / |slots|)^T          [tokens, numSlots]
 * rows   = softmax of logits over tokens, transposed, x  [numSlots, H]
 * rows'  = expert s / slotsPerExpert of rows[s]
 * y      = softmax of logits over slots, rows'
 * </pre>
 *
 * <p>Every token depends on all others: pass one sequence at a time. A layer runs one pass at a
 * time; other threads wait.
 */
public final class SoftMoeLayer implements AutoCloseable {
    /** Added to each length, as the authors do. */
    public static final double EPSILON = 1e-6;

    private final Kernels kernels;
    private final int numSlots;
    private final DType rowType;
    private final LayerMemory memory;
    private final Tensor slots;
    private final Bank bank;
    private final Tensor directions;
    private final Tensor logits;
    private final Tensor tokenOffsets;
    private final Tensor rows;
    private final Tensor results;
    private final Tensor scratch;

    /**
     * A layer over weights and kernels that the caller owns and keeps open. Weights are brought to
     * where the backend computes.
     *
     * @param weights slots and experts
     * @param kernels the backend
     * @param maxTokens most tokens of a pass
     * @param rowType F32, F16 or BF16, in which mixtures and results of experts are stored; a GPU
     *     multiplies on tensor cores where it is the 16-bit type of the experts
     */
    public SoftMoeLayer(SoftMoeWeights weights, Kernels kernels, long maxTokens, DType rowType) {
        this.kernels = kernels;
        this.rowType = rowType;
        numSlots = weights.numSlots();
        if (rowType != DType.F32 && rowType != DType.F16 && rowType != DType.BF16) {
            throw new IllegalArgumentException(
                    "rowType: expected F32, F16 or BF16, got " + rowType);
        }
        LayerMemory.checkMaxTokens(maxTokens, 1);
        long hidden = weights.experts().hidden();
        memory = new LayerMemory(kernels, maxTokens, hidden);
        try {
            directions = memory.allocate(DType.F32, maxTokens, hidden);
            logits = memory.allocate(DType.F32, maxTokens * numSlots);
            tokenOffsets = memory.allocate(DType.I32, 2);
            rows = memory.allocate(rowType, numSlots, hidden);
            results = memory.allocate(rowType, numSlots, hidden);
            Tensor normalised = memory.allocate(DType.F32, numSlots, hidden);
            kernels.normaliseRows(weights.slots(), weights.factor(), EPSILON, normalised);
            slots = kernels.prepare(normalised.reshape(1, numSlots, hidden), memory.arena());
            ExpertWeights experts = kernels.prepare(weights.experts(), memory.arena());
            bank = new Bank(experts, routing(experts.numExperts()), null, null);
            scratch = memory.allocate(DType.F32, kernels.expertsScratch(rowType, bank, null));
        } catch (RuntimeException | Error e) {
            memory.close();
            throw e;
        }
    }

    /** Every slot is a token with one expert, and in expert order already. */
    private Routing routing(int numExperts) {
        Routing routing = Routing.allocate(memory::allocate, numSlots, 1, numExperts);
        int slotsPerExpert = numSlots / numExperts;
        try (Arena arena = Arena.ofConfined()) {
            Tensor ids = Tensor.allocate(arena, DType.I32, numSlots, 1);
            for (int slot = 0; slot < numSlots; slot++) {
                ids.setInt(slot, slot / slotsPerExpert);
            }
            kernels.copy(ids, routing.topkIds());
        }
        kernels.sortByExpert(routing);
        return routing;
    }

    /**
     * Computes the layer. With x and y on a device the pass is queued there and the call returns.
     *
     * @param x in, F32, F16 or BF16 [tokens, H]: the tokens of one sequence
     * @param y out, F32, F16 or BF16 [tokens, H]
     */
    public synchronized void forward(Tensor x, Tensor y) {
        long tokens = memory.tokens(x, y);
        memory.setOffsets(tokenOffsets, tokens);
        Tensor unit = directions.slice(0, tokens);
        Tensor z = logits.slice(0, tokens * numSlots).reshape(tokens, numSlots);
        kernels.normaliseRows(x, 1, EPSILON, unit);
        kernels.groupedGemm(unit, slots, null, tokenOffsets, z);
        kernels.softDispatch(x, z, rows);
        kernels.experts(rows, bank, null, Kernels.Residual.NONE, rowType, scratch, results);
        kernels.softCombine(results, z, y);
    }

    /** Frees the layer's memory, but neither weights nor kernels; may be called again. */
    @Override
    public synchronized void close() {
        memory.close();
    }
}
