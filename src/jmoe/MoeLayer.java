package jmoe;

import jmoe.checkpoint.Checkpoint;
import jmoe.checkpoint.LoadProgress;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.TokenInputs;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;

/**
 * A Mixture-of-Experts layer: router, experts and shared expert of one layer of a model, without
 * norm and residual.
 *
 * <p>Weights are loaded once, brought into the form that the backend likes, and never change; any
 * number of threads may call {@link #forward}, each with its own {@link Workspace}.
 */
public final class MoeLayer implements AutoCloseable {
    private final MoeConfig config;
    private final MoeWeights weights;
    private final Kernels kernels;
    private final Arena arena;
    private final boolean ownsKernels;

    /** Passes that run now or are captured; {@link #CLOSED} once the layer is closed. */
    private final AtomicInteger passes = new AtomicInteger();

    private final AtomicInteger captures = new AtomicInteger();

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
     * @param weights the numbers; those that {@link #weights} returns must stay alive as long as
     *     the layer
     * @param kernels the backend; must stay open as long as the layer
     * @throws IllegalArgumentException if the weights do not have the sizes of the configuration
     */
    public MoeLayer(MoeConfig config, MoeWeights weights, Kernels kernels) {
        this(config, weights, kernels, Arena.ofShared());
    }

    private MoeLayer(MoeConfig config, MoeWeights weights, Kernels kernels, Arena arena) {
        this(
                config,
                prepare(() -> matching(config, weights, kernels, arena), kernels, arena),
                kernels,
                arena,
                false);
    }

    /** The weights as their rules want them. */
    private static MoeWeights matching(
            MoeConfig config, MoeWeights weights, Kernels kernels, Arena arena) {
        weights.requireMatch(config);
        return weights.normalised(config, kernels, arena);
    }

    /** Frees what it had allocated if the weights do not fit. */
    private static MoeWeights prepare(Supplier<MoeWeights> weights, Kernels kernels, Arena arena) {
        try {
            return weights.get().prepare(kernels, arena);
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
     * @param expertType F32, F16 or BF16 for the experts, I8 to quantise them as {@link
     *     jmoe.tensor.Quantisation} does, or null for the stored type
     * @param progress told how much is loaded
     * @return the layer; close it to free its memory
     * @throws UnsupportedOperationException if the backend does not multiply by I8
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
            MoeWeights loaded = files.load(layer, expertType, kernels, stored, progress);
            MoeWeights weights = matching(config, loaded, kernels, stored);
            Arena arena = Arena.ofShared();
            MoeWeights prepared = prepare(() -> weights, kernels, arena);
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
     * Allocates the memory of a forward pass; rows between its operations are F32.
     *
     * @param maxTokens largest batch
     * @return a workspace for this layer only; close it when done
     */
    public Workspace workspace(long maxTokens) {
        return workspace(maxTokens, DType.F32);
    }

    /**
     * Allocates the memory of a forward pass.
     *
     * @param maxTokens largest batch
     * @param rowType F32, F16 or BF16: in which type experts read x and what they compute is kept
     *     between the operations, one rounding each; logits, weights and sums over experts stay
     *     F32. A GPU multiplies on tensor cores if this is the type of the weights, a CPU in tiles
     *     of AMX if both are BF16
     * @return a workspace for this layer only; close it when done
     */
    public Workspace workspace(long maxTokens, DType rowType) {
        return Workspace.allocate(config, weights, kernels, maxTokens, rowType);
    }

    /**
     * Memory that {@link #workspace(long)} would take.
     *
     * @param maxTokens largest batch
     * @return bytes, where the backend computes
     */
    public long workspaceBytes(long maxTokens) {
        return workspaceBytes(maxTokens, DType.F32);
    }

    /**
     * Memory that {@link #workspace(long, DType)} would take.
     *
     * @param maxTokens largest batch
     * @param rowType as there
     * @return bytes, where the backend computes
     */
    public long workspaceBytes(long maxTokens, DType rowType) {
        return Workspace.numBytes(config, weights, kernels, maxTokens, rowType);
    }

    /**
     * Captures the forward pass for input, output and rows of F32.
     *
     * @param maxTokens largest batch
     * @return the captured pass with memory of its own; close it before the layer
     */
    public CapturedLayer capture(long maxTokens) {
        return capture(maxTokens, DType.F32, DType.F32);
    }

    /**
     * Captures the forward pass, to replay it for changing inputs and numbers of tokens.
     *
     * @param maxTokens largest batch
     * @param type F32, F16 or BF16, of input and output
     * @param rowType as in {@link #workspace(long, DType)}
     * @return the captured pass with memory of its own; close it before the layer
     */
    public CapturedLayer capture(long maxTokens, DType type, DType rowType) {
        if (type != DType.F32 && type != DType.F16 && type != DType.BF16) {
            throw new IllegalArgumentException("type: expected F32, F16 or BF16, got " + type);
        }
        begin();
        captures.incrementAndGet();
        boolean complete = false;
        try {
            CapturedLayer captured = new CapturedLayer(this, kernels, maxTokens, type, rowType);
            complete = true;
            return captured;
        } finally {
            if (!complete) {
                release();
            }
        }
    }

    /** A captured pass is closed. */
    void release() {
        captures.decrementAndGet();
        passes.decrementAndGet();
    }

    private void begin() {
        if (passes.getAndUpdate(running -> running == CLOSED ? CLOSED : running + 1) == CLOSED) {
            throw new IllegalStateException("layer: closed; load it again");
        }
    }

    /**
     * Computes the layer: {@code y = shared(x) + sum_k weight_k expert_k(x)}.
     *
     * <p>Where the backend has a device, x and y may be on it or on the host, each independently.
     * With both on the device the pass is queued and the call returns at once; what goes wrong on
     * the device is thrown by a later call. Otherwise x is copied there, and y is complete on
     * return.
     *
     * <p>The same call gives the same bits every time, and a token the same bits in every batch
     * that the backend computes in the same way. A GPU has a way for few tokens and one for many,
     * which differ in the last places; it chooses by the number of tokens, sizes and types. The
     * other backends have one way. A router with noise gives a token another one at another place
     * of the batch, and all of them another one for {@linkplain Workspace#setNoiseStep another
     * step}.
     *
     * @param x in, F32, F16 or BF16 [tokens, hidden]
     * @param y out, F32, F16 or BF16 [tokens, hidden], rounded once
     * @param workspace of this layer, with room for the tokens
     */
    public void forward(Tensor x, Tensor y, Workspace workspace) {
        forward(x, TokenInputs.NONE, y, workspace);
    }

    /**
     * Computes the layer for a model that separates token types, or for a batch of which some
     * tokens are absent. A token that is absent is routed nowhere: its output is that of the shared
     * expert and the output bias, its input does not reach the others'.
     *
     * @param x in, F32, F16 or BF16 [tokens, hidden]
     * @param tokenTypes in, I32 [tokens], 0 to numTokenTypes - 1, negative for a token that is
     *     absent; on the host or the device, and checked on the host only; null if the layer has
     *     one type and all tokens are there
     * @param y out, F32, F16 or BF16 [tokens, hidden], rounded once
     * @param workspace of this layer, with room for the tokens
     */
    public void forward(Tensor x, @Nullable Tensor tokenTypes, Tensor y, Workspace workspace) {
        forward(x, TokenInputs.ofTypes(tokenTypes), y, workspace);
    }

    /**
     * Computes the layer for tokens of which more is known: their types, as above; their ids, if a
     * router is a {@linkplain jmoe.ops.Selection.Hash hash}; which of them its capacity must not
     * drop.
     *
     * @param x in, F32, F16 or BF16 [tokens, hidden]
     * @param inputs in: what the layer reads besides x, each tensor on the host or the device
     * @param y out, F32, F16 or BF16 [tokens, hidden], rounded once
     * @param workspace of this layer, with room for the tokens; it also says which experts {@link
     *     Workspace#setActiveExperts are active}
     * @throws IllegalArgumentException if something is missing that the layer reads, or there that
     *     it does not
     */
    public void forward(Tensor x, TokenInputs inputs, Tensor y, Workspace workspace) {
        LayerArguments.check(config, x, inputs, y);
        begin();
        try {
            workspace.begin(config, x.dim(0));
            try {
                run(x, inputs, y, workspace);
            } finally {
                workspace.end();
            }
        } finally {
            passes.decrementAndGet();
        }
    }

    private void run(Tensor x, TokenInputs inputs, Tensor y, Workspace workspace) {
        Tensor input = workspace.input(x);
        Tensor output = workspace.output(y);
        TokenInputs kept = workspace.keep(inputs);
        Intermediates on = workspace.intermediates();
        new ForwardPass(config, weights, kernels, on, on.dense(x.dim(0))).run(input, kept, output);
        if (!output.equals(y)) {
            kernels.copy(output, y);
        }
    }

    /**
     * Frees the layer's memory, and stops the backend if the layer started it; safe to call twice.
     *
     * @throws IllegalStateException during a forward pass, or before a captured layer is closed
     */
    @Override
    public void close() {
        if (!passes.compareAndSet(0, CLOSED)) {
            if (passes.get() > 0) {
                throw new IllegalStateException(
                        captures.get() > 0
                                ? "layer: in use by a captured layer; close that first"
                                : "layer: in use by a forward pass; close it afterwards");
            }
            return;
        }
        try {
            arena.close();
        } finally {
            if (ownsKernels) {
                kernels.close();
            }
        }
    }
}
