package jmoe;

import jmoe.ops.Bank;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.Router;
import jmoe.ops.Routing;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * What a pass computes on the way from its input to its output, where the backend computes. Made
 * once for the largest batch; a pass views the first tokens.
 */
final class Intermediates {
    private static final DType[] TYPES_OF_X = {DType.F32, DType.F16, DType.BF16};

    private final long maxTokens;
    private final DType rowType;
    private final Allocator memory;
    private long numBytes;

    /** Every token is row {@code token} of one expert: how dense layers look to the operations. */
    private final Routing dense;

    /**
     * The offsets [0, tokens] of every batch, so that no pass has to write any: I32 [maxTokens + 1,
     * 2].
     */
    private final Tensor denseOffsets;

    /** One per token type; the first one's has the gate of the shared expert. */
    private final Router[] routers;

    /** One per token type. */
    private final Routing[] routings;

    private final Tensor[] logits;
    private final Tensor tokenTypes;

    /** I32 [maxTokens], or empty if no router reads ids. */
    private final Tensor tokenIds;

    /** I32 [maxTokens], or empty if there is no capacity. */
    private final Tensor protectedTokens;

    /** I32 [types * experts of a rule]. */
    private final Tensor activeExperts;

    /** The routers again, but reading which experts are active; null until that is asked for. */
    private Router @Nullable [] choosingRouters;

    private boolean choosesExperts;

    /** I32 [1]: the step of the noise of all routers. */
    private final Tensor noiseStep;

    private final Tensor narrow;
    private final Tensor scratch;
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
        this.maxTokens = maxTokens;
        this.rowType = rowType;
        this.memory = memory;
        int types = config.numTokenTypes();
        // Null and constant experts have no rows, so the routing does not count them.
        int experts = config.numExperts() + config.numIdentityExperts();
        dense = Routing.allocate(this::allocate, maxTokens, 1, 1);
        denseOffsets = allocate(DType.I32, maxTokens + 1, 2);
        tokenTypes = allocate(DType.I32, maxTokens);
        tokenIds = allocate(DType.I32, LayerArguments.readsIds(config) ? maxTokens : 0);
        protectedTokens = allocate(DType.I32, LayerArguments.hasCapacity(config) ? maxTokens : 0);
        long ofRule = config.routers().getFirst().numExperts();
        activeExperts = allocate(DType.I32, types * ofRule);
        noiseStep = allocate(DType.I32, 1);
        routers = new Router[types];
        routings = new Routing[types];
        logits = new Tensor[types];
        for (int type = 0; type < types; type++) {
            Tensor gate = type == 0 ? weights.sharedGate() : null;
            routers[type] =
                    new Router(
                            config.routers().get(type),
                            weights.routers().get(type),
                            gate,
                            noiseStep);
            routings[type] = Routing.allocate(this::allocate, maxTokens, config.topK(), experts);
            logits[type] = allocate(DType.F32, maxTokens, config.routers().get(type).numLogits());
        }
        narrow = allocate(rowType, rowType == DType.F32 ? 0 : maxTokens, config.hidden());
        scratch = allocate(DType.F32, scratchElements(config, weights, kernels));
        boolean latentShared = weights.latentIn() != null && weights.shared() != null;
        boolean sums = types > 1 || latentShared || config.numConstantExperts() > 0;
        sum = allocate(DType.F32, sums ? maxTokens : 0, config.hidden());
        long latentTokens = weights.latentIn() == null ? 0 : maxTokens;
        latent = allocate(rowType, latentTokens, config.expertHidden());
        latentSum = allocate(rowType, latentTokens, config.expertHidden());
        projected = allocate(rowType, latentTokens, config.hidden());
    }

    /** What the largest of the operations needs. */
    private long scratchElements(MoeConfig config, MoeWeights weights, Kernels kernels) {
        long elements = 0;
        ExpertWeights experts = weights.shared();
        @Nullable Bank shared = experts == null ? null : new Bank(experts, dense, null, null);
        if (shared != null && weights.latentIn() != null) {
            // It reads x, the routed experts something else.
            elements = kernels.expertsScratch(rowType, shared, null);
            shared = null;
        }
        for (int type = 0; type < routers.length; type++) {
            Bank bank = new Bank(weights.experts(config, type), routings[type], null, null);
            elements = Math.max(elements, kernels.expertsScratch(rowType, bank, shared));
            for (DType x : TYPES_OF_X) {
                long ofRouter = kernels.routerScratch(x, routers[type], maxTokens);
                elements = Math.max(elements, ofRouter);
            }
            shared = null;
        }
        return elements;
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

    /** Writes the routing of the dense layers, which no pass changes, and the first step. */
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
            kernels.fill(noiseStep, 0);
        }
    }

    long numBytes() {
        return numBytes;
    }

    /** Whether the backend computes in memory that the host cannot read. */
    boolean onDevice() {
        return scratch.isDevice();
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

    Router router(int type) {
        return choosesExperts && choosingRouters != null ? choosingRouters[type] : routers[type];
    }

    /** Says whether routers read {@link #activeExperts}; refuses if a rule cannot. */
    void chooseExperts(boolean chooses) {
        if (chooses && choosingRouters == null) {
            Router[] choosing = new Router[routers.length];
            long experts = activeExperts.numElements() / routers.length;
            for (int type = 0; type < routers.length; type++) {
                Router all = routers[type];
                Tensor active = activeExperts.slice(type * experts, experts);
                choosing[type] =
                        new Router(
                                all.rule(),
                                all.weights(),
                                all.sharedGate(),
                                all.noiseStep(),
                                active);
            }
            choosingRouters = choosing;
        }
        choosesExperts = chooses;
    }

    boolean choosesExperts() {
        return choosesExperts;
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

    /** For the largest batch, or empty. */
    Tensor tokenIds() {
        return tokenIds;
    }

    /** For the largest batch, or empty. */
    Tensor protectedTokens() {
        return protectedTokens;
    }

    Tensor activeExperts() {
        return activeExperts;
    }

    Tensor noiseStep() {
        return noiseStep;
    }

    /** In which type hidden and rows are stored between operations. */
    DType rowType() {
        return rowType;
    }

    /** Whether experts read x in a narrower type than it has. */
    boolean narrows(DType x) {
        return rowType != DType.F32 && rowType != x;
    }

    Tensor narrow(long tokens) {
        return narrow.slice(0, tokens);
    }

    /** For one operation at a time. */
    Tensor scratch() {
        return scratch;
    }

    Tensor sum(long tokens) {
        return sum.slice(0, tokens);
    }

    /** The same memory for rows that are shorter. */
    Tensor sum(long tokens, long columns) {
        return sum.reshape(sum.numElements()).slice(0, tokens * columns).reshape(tokens, columns);
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
