package jmoe;

import jmoe.checkpoint.Checkpoint;
import jmoe.checkpoint.LoadProgress;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.ops.Routing;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A Mixture-of-Experts layer: router, experts and shared expert of one layer of a model, without
 * norm and residual.
 *
 * <p>Weights are loaded once, brought into the form that the backend likes, and never change; any
 * number of threads may call {@link #forward}, each with its own {@link Workspace}.
 */
public final class MoeLayer implements AutoCloseable {
    /** A gated shared expert is a router with one expert: its weight is sigmoid(x g). */
    private static final RouterConfig SHARED_GATE =
            new RouterConfig(
                    1,
                    1,
                    RouterConfig.Score.SIGMOID,
                    new RouterConfig.Selection.TopK(),
                    new RouterConfig.Normalisation.None(),
                    1,
                    false,
                    null,
                    RouterConfig.ALL_TOKENS);

    private final MoeConfig config;
    private final MoeWeights weights;
    private final Kernels kernels;
    private final Arena arena;
    private final boolean ownsKernels;

    /** Passes that run now; {@link #CLOSED} once the layer is closed. */
    private final AtomicInteger passes = new AtomicInteger();

    private static final int CLOSED = -1;

    /** A layer of prepared weights. */
    private MoeLayer(
            MoeConfig config,
            MoeWeights weights,
            Kernels kernels,
            Arena arena,
            boolean ownsKernels) {
        this.config = config;
        this.weights = weights;
        this.kernels = kernels;
        this.arena = arena;
        this.ownsKernels = ownsKernels;
    }

    /**
     * A layer over weights and kernels that the caller owns.
     *
     * @param config what to compute
     * @param weights the numbers; must stay alive as long as the layer, unless {@link #weights}
     *     returns others
     * @param kernels the backend; must stay open as long as the layer
     * @throws IllegalArgumentException if the weights do not have the sizes of the configuration
     */
    public MoeLayer(MoeConfig config, MoeWeights weights, Kernels kernels) {
        this(config, weights, kernels, Arena.ofShared());
    }

    private MoeLayer(MoeConfig config, MoeWeights weights, Kernels kernels, Arena arena) {
        this(config, prepare(config, weights, kernels, arena), kernels, arena, false);
    }

    /** Frees what it had allocated if the weights do not fit. */
    private static MoeWeights prepare(
            MoeConfig config, MoeWeights weights, Kernels kernels, Arena arena) {
        try {
            weights.requireMatch(config);
            return weights.prepare(kernels, arena);
        } catch (RuntimeException | Error e) {
            arena.close();
            throw e;
        }
    }

    /**
     * Loads a layer of a Hugging Face checkpoint, experts in the type they are stored in.
     *
     * @param checkpoint folder with config.json and safetensors files
     * @param layer number of the layer in the model
     * @param backend where it runs
     * @return the layer; close it to free its memory
     * @throws jmoe.checkpoint.CheckpointException if the checkpoint is broken or holds no such
     *     layer
     */
    public static MoeLayer load(Path checkpoint, int layer, Backend backend) {
        Kernels kernels = backend.open();
        try {
            return load(checkpoint, layer, kernels, true, null, LoadProgress.NONE);
        } catch (RuntimeException | Error e) {
            kernels.close();
            throw e;
        }
    }

    /**
     * Loads a layer for kernels that the caller owns.
     *
     * @param checkpoint folder with config.json and safetensors files
     * @param layer number of the layer in the model
     * @param kernels the backend; must stay open as long as the layer
     * @param expertType F32, F16 or BF16 for the experts, or null for the stored type
     * @param progress told how much is loaded
     * @return the layer; close it to free its memory
     * @throws jmoe.checkpoint.CheckpointException if the checkpoint is broken or holds no such
     *     layer
     */
    public static MoeLayer load(
            Path checkpoint,
            int layer,
            Kernels kernels,
            @Nullable DType expertType,
            LoadProgress progress) {
        return load(checkpoint, layer, kernels, false, expertType, progress);
    }

    private static MoeLayer load(
            Path checkpoint,
            int layer,
            Kernels kernels,
            boolean ownsKernels,
            @Nullable DType expertType,
            LoadProgress progress) {
        Arena stored = Arena.ofShared();
        boolean keepsStored = false;
        try (Checkpoint files = Checkpoint.open(checkpoint)) {
            MoeConfig config = files.layer(layer).config();
            MoeWeights weights = files.load(layer, expertType, stored, progress);
            Arena arena = Arena.ofShared();
            MoeWeights prepared = prepare(config, weights, kernels, arena);
            keepsStored = prepared.equals(weights);
            if (keepsStored) {
                arena.close();
            }
            Arena owned = keepsStored ? stored : arena;
            return new MoeLayer(config, prepared, kernels, owned, ownsKernels);
        } finally {
            if (!keepsStored) {
                stored.close();
            }
        }
    }

    /**
     * What the layer computes.
     *
     * @return sizes and rules
     */
    public MoeConfig config() {
        return config;
    }

    /**
     * The layer's numbers, in the form that its backend computes with.
     *
     * @return views that live as long as the layer; what a backend prepared can be read by nobody
     *     else
     */
    public MoeWeights weights() {
        return weights;
    }

    /**
     * Allocates the memory of a forward pass.
     *
     * @param maxTokens largest batch
     * @return a workspace for this layer only; close it when done
     */
    public Workspace workspace(long maxTokens) {
        return Workspace.allocate(config, weights, kernels, maxTokens);
    }

    /**
     * Computes the layer: {@code y = shared(x) + sum_k weight_k expert_k(x)}.
     *
     * @param x in, F32, F16 or BF16 [tokens, hidden]
     * @param y out, F32, F16 or BF16 [tokens, hidden], rounded once
     * @param workspace of this layer, with room for the tokens
     */
    public void forward(Tensor x, Tensor y, Workspace workspace) {
        forward(x, null, y, workspace);
    }

    /**
     * Computes the layer for a model that separates token types.
     *
     * @param x in, F32, F16 or BF16 [tokens, hidden]
     * @param tokenTypes in, I32 [tokens], 0 to numTokenTypes - 1; null if the layer has one type
     * @param y out, F32, F16 or BF16 [tokens, hidden], rounded once
     * @param workspace of this layer, with room for the tokens
     */
    public void forward(Tensor x, @Nullable Tensor tokenTypes, Tensor y, Workspace workspace) {
        checkArguments(x, tokenTypes, y);
        if (passes.getAndUpdate(running -> running == CLOSED ? CLOSED : running + 1) == CLOSED) {
            throw new IllegalStateException("layer: closed; load it again");
        }
        try {
            workspace.begin(config, x.dim(0));
            try {
                run(x, tokenTypes, y, workspace);
            } finally {
                workspace.end();
            }
        } finally {
            passes.decrementAndGet();
        }
    }

    private void checkArguments(Tensor x, @Nullable Tensor tokenTypes, Tensor y) {
        Check.floating("x", x, "[tokens, hidden]", 2);
        long tokens = x.dim(0);
        Check.floatMatrix("x", x, "tokens", tokens, "hidden", config.hidden());
        Check.floatMatrix("y", y, "tokens", tokens, "hidden", config.hidden());
        Check.writable("y", y);
        Check.disjoint("y", y, "x", x);
        if (x.dtype() == DType.F64 || y.dtype() == DType.F64) {
            boolean input = x.dtype() == DType.F64;
            throw Check.mismatch(
                    input ? "x" : "y", "F32, F16 or BF16: a layer computes in F32", input ? x : y);
        }
        checkTokenTypes(tokenTypes, tokens);
        if (tokenTypes != null) {
            Check.disjoint("y", y, "tokenTypes", tokenTypes);
        }
    }

    private void checkTokenTypes(@Nullable Tensor tokenTypes, long tokens) {
        int types = config.numTokenTypes();
        if ((types > 1) != (tokenTypes != null)) {
            throw new IllegalArgumentException(
                    "tokenTypes: expected "
                            + (types > 1 ? "I32 [tokens=" + tokens + "]" : "none")
                            + " for a layer with "
                            + types
                            + (types > 1 ? " token types, got none" : " token type, got some"));
        }
        if (tokenTypes == null) {
            return;
        }
        Check.vector("tokenTypes", tokenTypes, DType.I32, "tokens", tokens);
        Check.host("tokenTypes", tokenTypes);
        for (long token = 0; token < tokens; token++) {
            int type = tokenTypes.getInt(token);
            if (type < 0 || type >= types) {
                throw new IllegalArgumentException(
                        "tokenTypes: expected 0 to "
                                + (types - 1)
                                + ", got "
                                + type
                                + " at token "
                                + token);
            }
        }
    }

    private void run(Tensor x, @Nullable Tensor tokenTypes, Tensor y, Workspace ws) {
        makeDense(ws);
        Tensor addend = sharedExpert(x, ws);
        Tensor latentIn = weights.latentIn();
        if (latentIn == null) {
            routedExperts(x, x, tokenTypes, addend, y, ws.sum(), ws);
        } else {
            Tensor offsets = ws.dense().expertOffsets();
            kernels.groupedGemm(x, latentIn, null, offsets, ws.latent());
            routedExperts(x, ws.latent(), tokenTypes, null, ws.latentSum(), ws.latentSum(), ws);
            Tensor back = weights.latentOut();
            kernels.groupedGemm(ws.latentSum(), back, null, offsets, ws.projected());
            kernels.unpermute(ws.projected(), ws.dense(), null, Residual.of(addend), y);
        }
        if (tokenTypes != null) {
            ws.merge(tokenTypes);
        }
    }

    /** Every token in its own row of expert 0, for the products that are not routed. */
    private void makeDense(Workspace ws) {
        Routing dense = ws.dense();
        dense.topkIds().data().fill((byte) 0);
        kernels.sortByExpert(dense);
    }

    /** Output bias plus shared expert: what the routed experts are added to; null for nothing. */
    private @Nullable Tensor sharedExpert(Tensor x, Workspace ws) {
        Tensor outputBias = weights.outputBias();
        ExpertWeights shared = weights.shared();
        if (shared == null) {
            return outputBias;
        }
        Routing dense = ws.dense();
        feedForward(x, shared, dense, null, ws.sharedRows(), ws);
        Tensor gate = weights.sharedGate();
        if (gate != null) {
            Tensor gateLogits = ws.sharedGateLogits();
            kernels.groupedGemm(x, gate, null, dense.expertOffsets(), gateLogits);
            kernels.route(gateLogits, SHARED_GATE, null, null, dense);
        }
        if (gate == null && outputBias == null) {
            return ws.sharedRows();
        }
        Tensor gateWeights = gate == null ? null : dense.topkWeights();
        kernels.unpermute(ws.sharedRows(), dense, gateWeights, Residual.of(outputBias), ws.sum());
        return ws.sum();
    }

    /**
     * Routes by {@code x}, computes on {@code input}; each token type adds its tokens to the sum.
     */
    private void routedExperts(
            Tensor x,
            Tensor input,
            @Nullable Tensor tokenTypes,
            @Nullable Tensor addend,
            Tensor y,
            Tensor sum,
            Workspace ws) {
        List<RouterConfig> routers = config.routers();
        Tensor base = addend;
        for (int type = 0; type < routers.size(); type++) {
            RouterConfig router = routers.get(type);
            RouterWeights routerWeights = weights.routers().get(type);
            ExpertWeights experts = weights.experts().get(type);
            Routing routing = ws.routing(type);
            Tensor logits = ws.logits(type);
            kernels.groupedGemm(
                    x,
                    routerWeights.weight(),
                    routerWeights.bias(),
                    ws.dense().expertOffsets(),
                    logits);
            kernels.route(logits, router, routerWeights.selectionBias(), tokenTypes, routing);
            kernels.sortByExpert(routing);
            Tensor inputWeights = router.weightOnInput() ? routing.topkWeights() : null;
            Tensor outputWeights = router.weightOnInput() ? null : routing.topkWeights();
            feedForward(input, experts, routing, inputWeights, ws.expertRows(), ws);
            boolean last = type == routers.size() - 1;
            Tensor identity = config.numIdentityExperts() > 0 ? input : null;
            Residual residual =
                    new Residual(base, identity, config.numExperts(), config.outputFactor());
            kernels.unpermute(ws.expertRows(), routing, outputWeights, residual, last ? y : sum);
            base = sum;
        }
    }

    private void feedForward(
            Tensor x,
            ExpertWeights experts,
            Routing routing,
            @Nullable Tensor inputWeights,
            Tensor y,
            Workspace ws) {
        Tensor hidden = ws.hidden(y.dim(0), experts.intermediate());
        Tensor scratch = ws.scratch(kernels.gateUpSwigluScratch(x.dtype(), y.dim(0), experts));
        kernels.gateUpSwiglu(x, routing, inputWeights, experts, scratch, hidden);
        // Rows of identity experts come last and have no weights: the offsets end before them.
        Tensor offsets = routing.expertOffsets().slice(0, experts.numExperts() + 1L);
        kernels.groupedGemm(hidden, experts.down(), experts.downBias(), offsets, y);
    }

    /**
     * Frees the layer's memory, and stops the backend if the layer started it; safe to call twice.
     *
     * @throws IllegalStateException during a forward pass
     */
    @Override
    public void close() {
        if (!passes.compareAndSet(0, CLOSED)) {
            if (passes.get() > 0) {
                throw new IllegalStateException(
                        "layer: in use by a forward pass; close it afterwards");
            }
            return;
        }
        try {
            if (ownsKernels) {
                kernels.close();
            }
        } finally {
            arena.close();
        }
    }
}
