package jmoe;

import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Selection;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * All memory that a forward pass needs besides its input and output, allocated once. After a pass
 * it holds what the router decided. One pass at a time uses a workspace; several threads need one
 * each.
 */
public final class Workspace implements AutoCloseable {
    private final Arena arena;
    private final AtomicBoolean busy = new AtomicBoolean();
    private final MoeConfig config;
    private final long maxTokens;
    private long allocatedBytes;

    /** Every token is row {@code token} of one expert: how dense layers look to the operations. */
    final Routing dense;

    /** One routing per token type. */
    final Routing[] routings;

    private final Tensor[] logits;
    private final Tensor mergedIds;
    private final Tensor mergedWeights;
    private final Tensor mergedLogits;
    private final Tensor tokensPerExpert;

    private final Tensor scratch;
    private final Tensor hidden;
    private final Tensor expertRows;
    private final Tensor sharedRows;
    private final Tensor sharedGateLogits;
    private final Tensor sum;
    private final Tensor latent;
    private final Tensor latentSum;
    private final Tensor projected;
    private long tokens;

    /** Frees what it had allocated if the memory does not suffice. */
    static Workspace allocate(
            MoeConfig config, MoeWeights weights, Kernels kernels, long maxTokens) {
        Arena arena = Arena.ofShared();
        try {
            return new Workspace(arena, config, weights, kernels, maxTokens);
        } catch (RuntimeException | Error e) {
            arena.close();
            throw e;
        }
    }

    private Workspace(
            Arena arena, MoeConfig config, MoeWeights weights, Kernels kernels, long maxTokens) {
        this.arena = arena;
        if (maxTokens < 0 || maxTokens > Integer.MAX_VALUE / config.topK()) {
            throw new IllegalArgumentException(
                    "maxTokens: expected 0 to "
                            + Integer.MAX_VALUE / config.topK()
                            + ", got "
                            + maxTokens);
        }
        this.config = config;
        this.maxTokens = maxTokens;
        int types = config.numTokenTypes();
        int experts = config.numExperts() + config.numIdentityExperts();
        long slots = maxTokens * config.topK();
        dense = Routing.allocate(arena, maxTokens, 1, 1);
        routings = new Routing[types];
        logits = new Tensor[types];
        for (int type = 0; type < types; type++) {
            routings[type] = Routing.allocate(arena, maxTokens, config.topK(), experts);
            logits[type] = allocate(DType.F32, maxTokens, config.routers().get(type).numLogits());
        }
        boolean merge = types > 1;
        mergedIds = merge ? allocate(DType.I32, maxTokens, config.topK()) : routings[0].topkIds();
        mergedWeights =
                merge ? allocate(DType.F32, maxTokens, config.topK()) : routings[0].topkWeights();
        mergedLogits = merge ? allocate(DType.F32, maxTokens, experts) : logits[0];
        tokensPerExpert =
                merge ? allocate(DType.I32, (long) types * experts) : routings[0].tokensPerExpert();

        long scratchElements = 0;
        long hiddenElements = 0;
        for (ExpertWeights bank : weights.experts()) {
            scratchElements =
                    Math.max(scratchElements, kernels.gateUpSwigluScratch(DType.F32, slots, bank));
            hiddenElements = Math.max(hiddenElements, slots * bank.intermediate());
        }
        ExpertWeights shared = weights.shared();
        if (shared != null) {
            scratchElements =
                    Math.max(
                            scratchElements,
                            kernels.gateUpSwigluScratch(DType.F32, maxTokens, shared));
            hiddenElements = Math.max(hiddenElements, maxTokens * shared.intermediate());
        }
        scratch = allocate(DType.F32, scratchElements);
        hidden = allocate(DType.F32, hiddenElements);
        expertRows = allocate(DType.F32, slots, config.expertHidden());
        sharedRows = allocate(DType.F32, shared == null ? 0 : maxTokens, config.hidden());
        sharedGateLogits = allocate(DType.F32, config.sharedGated() ? maxTokens : 0, 1);
        sum = allocate(DType.F32, maxTokens, config.hidden());
        long latentTokens = weights.latentIn() == null ? 0 : maxTokens;
        latent = allocate(DType.F32, latentTokens, config.expertHidden());
        latentSum = allocate(DType.F32, latentTokens, config.expertHidden());
        projected = allocate(DType.F32, latentTokens, config.hidden());
    }

    private Tensor allocate(DType dtype, long... shape) {
        Tensor tensor = Tensor.allocate(arena, dtype, shape);
        allocatedBytes += tensor.numBytes();
        return tensor;
    }

    /** Marks the start of a pass. */
    void begin(MoeConfig forConfig, long numTokens) {
        if (!arena.scope().isAlive()) {
            throw new IllegalStateException("workspace: closed; ask the layer for a new one");
        }
        if (!forConfig.equals(config)) {
            throw new IllegalArgumentException(
                    "workspace: expected one of this layer, got one made for another layer");
        }
        if (numTokens > maxTokens) {
            throw new IllegalArgumentException(
                    "workspace: expected room for tokens="
                            + numTokens
                            + ", got maxTokens="
                            + maxTokens
                            + "; ask the layer for a larger one");
        }
        if (!busy.compareAndSet(false, true)) {
            throw new IllegalStateException(
                    "workspace: in use by another forward pass; give each thread its own");
        }
        tokens = numTokens;
    }

    void end() {
        busy.set(false);
    }

    Routing dense() {
        return dense.first(tokens);
    }

    Routing routing(int type) {
        return routings[type].first(tokens);
    }

    Tensor logits(int type) {
        return logits[type].slice(0, tokens);
    }

    Tensor expertRows() {
        return expertRows.slice(0, tokens * config.topK());
    }

    Tensor scratch(long elements) {
        return scratch.slice(0, elements);
    }

    Tensor hidden(long numRows, long columns) {
        return hidden.slice(0, numRows * columns).reshape(numRows, columns);
    }

    Tensor sharedRows() {
        return sharedRows.slice(0, tokens);
    }

    Tensor sharedGateLogits() {
        return sharedGateLogits.slice(0, tokens);
    }

    Tensor sum() {
        return sum.slice(0, tokens);
    }

    Tensor latent() {
        return latent.slice(0, tokens);
    }

    Tensor latentSum() {
        return latentSum.slice(0, tokens);
    }

    Tensor projected() {
        return projected.slice(0, tokens);
    }

    /** Brings the decisions of several routers together: each token's own. */
    void merge(Tensor tokenTypes) {
        for (long token = 0; token < tokens; token++) {
            int type = tokenTypes.getInt(token);
            copyRow(routings[type].topkIds(), mergedIds, token);
            copyRow(routings[type].topkWeights(), mergedWeights, token);
            copyRow(logits[type], mergedLogits, token);
        }
        long countBytes = routings[0].tokensPerExpert().numBytes();
        for (int type = 0; type < routings.length; type++) {
            MemorySegment counts = routings[type].tokensPerExpert().data();
            MemorySegment.copy(counts, 0, tokensPerExpert.data(), type * countBytes, countBytes);
        }
    }

    private static void copyRow(Tensor from, Tensor to, long row) {
        long rowBytes = from.dtype().numBytes(from.dim(1));
        MemorySegment.copy(from.data(), row * rowBytes, to.data(), row * rowBytes, rowBytes);
    }

    /**
     * Logits of the last pass.
     *
     * @return F32 [tokens, numLogits]; [2, tokens, numKeys] with product keys; a view that the next
     *     pass overwrites
     */
    public Tensor routerLogits() {
        Tensor last = mergedLogits.slice(0, tokens);
        RouterConfig router = config.routers().getFirst();
        return router.selection() instanceof Selection.ProductKeys keys
                ? last.reshape(2, tokens, keys.numKeys())
                : last;
    }

    /**
     * Experts of the last pass.
     *
     * @return I32 [tokens, topK], numbered within the token's type; a view that the next pass
     *     overwrites
     */
    public Tensor topkIds() {
        return mergedIds.slice(0, tokens);
    }

    /**
     * Weights of the last pass.
     *
     * @return F32 [tokens, topK]; a view that the next pass overwrites
     */
    public Tensor topkWeights() {
        return mergedWeights.slice(0, tokens);
    }

    /**
     * Load of the last pass.
     *
     * @return I32 [numTokenTypes * (numExperts + numIdentityExperts)]; a view that the next pass
     *     overwrites
     */
    public Tensor tokensPerExpert() {
        return tokensPerExpert;
    }

    /**
     * Tokens of the last pass.
     *
     * @return 0 before the first
     */
    public long tokens() {
        return tokens;
    }

    /**
     * The largest batch.
     *
     * @return tokens
     */
    public long maxTokens() {
        return maxTokens;
    }

    /**
     * Memory held.
     *
     * @return bytes, without the index maps
     */
    public long numBytes() {
        return allocatedBytes;
    }

    /**
     * Frees the memory; safe to call twice.
     *
     * @throws IllegalStateException during a forward pass
     */
    @Override
    public void close() {
        if (busy.get()) {
            throw new IllegalStateException(
                    "workspace: in use by a forward pass; close it afterwards");
        }
        if (arena.scope().isAlive()) {
            arena.close();
        }
    }
}
