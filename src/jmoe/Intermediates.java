package jmoe;

import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.Routing;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * What a pass computes on the way from its input to its output, where the backend computes. Made
 * once for the largest batch; a pass views the first tokens.
 */
final class Intermediates {
    private final MoeConfig config;
    private final long maxTokens;
    private final Allocator memory;
    private long numBytes;

    /** Every token is row {@code token} of one expert: how dense layers look to the operations. */
    private final Routing dense;

    /**
     * The offsets [0, tokens] of every batch, so that no pass has to write any: I32 [maxTokens + 1,
     * 2].
     */
    private final Tensor denseOffsets;

    /** One per token type. */
    private final Routing[] routings;

    private final Tensor[] logits;
    private final Tensor tokenTypes;
    private final Tensor narrow;
    private final Tensor scratch;
    private final Tensor hidden;
    private final Tensor expertRows;
    private final Tensor sharedRows;
    private final Tensor sharedGateLogits;
    private final Tensor sum;
    private final Tensor latent;
    private final Tensor latentSum;
    private final Tensor projected;

    /** Allocates; {@link #writeDense} has to follow. */
    Intermediates(
            MoeConfig config,
            MoeWeights weights,
            Kernels kernels,
            long maxTokens,
            DType rowType,
            Allocator memory) {
        this.config = config;
        this.maxTokens = maxTokens;
        this.memory = memory;
        int types = config.numTokenTypes();
        int experts = config.numExperts() + config.numIdentityExperts();
        long slots = maxTokens * config.topK();
        dense = Routing.allocate(this::allocate, maxTokens, 1, 1);
        denseOffsets = allocate(DType.I32, maxTokens + 1, 2);
        tokenTypes = allocate(DType.I32, maxTokens);
        routings = new Routing[types];
        logits = new Tensor[types];
        for (int type = 0; type < types; type++) {
            routings[type] = Routing.allocate(this::allocate, maxTokens, config.topK(), experts);
            logits[type] = allocate(DType.F32, maxTokens, config.routers().get(type).numLogits());
        }
        narrow = allocate(rowType, rowType == DType.F32 ? 0 : maxTokens, config.hidden());
        long scratchElements = 0;
        long hiddenElements = 0;
        for (ExpertWeights bank : weights.experts()) {
            scratchElements =
                    Math.max(scratchElements, kernels.gateUpSwigluScratch(rowType, slots, bank));
            hiddenElements = Math.max(hiddenElements, slots * bank.intermediate());
        }
        ExpertWeights shared = weights.shared();
        if (shared != null) {
            scratchElements =
                    Math.max(
                            scratchElements,
                            kernels.gateUpSwigluScratch(rowType, maxTokens, shared));
            hiddenElements = Math.max(hiddenElements, maxTokens * shared.intermediate());
        }
        scratch = allocate(DType.F32, scratchElements);
        hidden = allocate(rowType, hiddenElements);
        expertRows = allocate(rowType, slots, config.expertHidden());
        sharedRows = allocate(rowType, shared == null ? 0 : maxTokens, config.hidden());
        sharedGateLogits = allocate(DType.F32, config.sharedGated() ? maxTokens : 0, 1);
        sum = allocate(DType.F32, maxTokens, config.hidden());
        long latentTokens = weights.latentIn() == null ? 0 : maxTokens;
        latent = allocate(rowType, latentTokens, config.expertHidden());
        latentSum = allocate(rowType, latentTokens, config.expertHidden());
        projected = allocate(rowType, latentTokens, config.hidden());
    }

    private Tensor allocate(DType dtype, long... shape) {
        Tensor tensor = memory.allocate(dtype, shape);
        numBytes += tensor.numBytes();
        return tensor;
    }

    /** What an instance would take, without taking it. */
    static long numBytes(
            MoeConfig config, MoeWeights weights, Kernels kernels, long maxTokens, DType rowType) {
        Allocator none = (dtype, shape) -> Tensor.device(0, dtype, shape);
        return new Intermediates(config, weights, kernels, maxTokens, rowType, none).numBytes;
    }

    /** Writes the routing of the dense layers, which no pass changes. */
    void writeDense(Kernels kernels) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor identity = Tensor.allocate(arena, DType.I32, maxTokens);
            Tensor offsets = Tensor.allocate(arena, DType.I32, maxTokens + 1, 2);
            for (int token = 0; token < maxTokens; token++) {
                identity.setInt(token, token);
                offsets.setInt(2L * token + 3, token + 1);
            }
            kernels.copy(identity, dense.rowToSlot());
            kernels.copy(identity.reshape(maxTokens, 1), dense.slotToRow());
            kernels.copy(offsets, denseOffsets);
            kernels.fill(dense.topkIds(), 0);
        }
    }

    long numBytes() {
        return numBytes;
    }

    /** Whether the backend computes in memory that the host cannot read. */
    boolean onDevice() {
        return sum.isDevice();
    }

    /** The dense routing of a batch. */
    Routing dense(long tokens) {
        return dense(tokens, denseOffsets.row(tokens));
    }

    /** The dense routing with offsets that may say fewer tokens. */
    Routing dense(long tokens, Tensor offsets) {
        Routing first = dense.first(tokens);
        return new Routing(
                first.topkIds(),
                first.topkWeights(),
                first.tokensPerExpert(),
                offsets,
                first.rowToSlot(),
                first.slotToRow());
    }

    /** For the largest batch. */
    Routing routing(int type) {
        return routings[type];
    }

    /** For the largest batch. */
    Tensor logits(int type) {
        return logits[type];
    }

    /** For the largest batch. */
    Tensor tokenTypes() {
        return tokenTypes;
    }

    /** Whether experts read x in a narrower type than it has. */
    boolean narrows(DType x) {
        return narrow.dtype() != DType.F32 && narrow.dtype() != x;
    }

    Tensor narrow(long tokens) {
        return narrow.slice(0, tokens);
    }

    Tensor expertRows(long tokens) {
        return expertRows.slice(0, tokens * config.topK());
    }

    Tensor scratch(long elements) {
        return scratch.slice(0, elements);
    }

    Tensor hidden(long numRows, long columns) {
        return hidden.slice(0, numRows * columns).reshape(numRows, columns);
    }

    Tensor sharedRows(long tokens) {
        return sharedRows.slice(0, tokens);
    }

    Tensor sharedGateLogits(long tokens) {
        return sharedGateLogits.slice(0, tokens);
    }

    Tensor sum(long tokens) {
        return sum.slice(0, tokens);
    }

    Tensor latent(long tokens) {
        return latent.slice(0, tokens);
    }

    Tensor latentSum(long tokens) {
        return latentSum.slice(0, tokens);
    }

    Tensor projected(long tokens) {
        return projected.slice(0, tokens);
    }
}
