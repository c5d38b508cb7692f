package jmoe;

import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;
import jmoe.ops.TokenInputs;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * All memory that a forward pass needs besides its input and output, allocated once, where the
 * backend computes. After a pass it holds what the router decided. One pass at a time uses a
 * workspace; several threads need one each.
 *
 * <p>Two things come later, if they are asked for: on a device, places for inputs and outputs that
 * are on the host; and what {@link #routerLogits}, {@link #topkIds}, {@link #topkWeights} and
 * {@link #tokensPerExpert} copy to the host or bring together from several token types.
 */
public final class Workspace implements AutoCloseable {
    private final Arena arena;
    private final AtomicBoolean busy = new AtomicBoolean();
    private final MoeConfig config;
    private final Kernels kernels;
    private final long maxTokens;
    private final Intermediates intermediates;
    private final HostResults results;

    /** For inputs and outputs on the host, by their type. */
    private final Map<DType, Tensor> inputs = new EnumMap<>(DType.class);

    private final Map<DType, Tensor> outputs = new EnumMap<>(DType.class);
    private long placeBytes;
    private long tokens;

    /** Frees what it had allocated if the memory does not suffice. */
    static Workspace allocate(
            MoeConfig config, MoeWeights weights, Kernels kernels, long maxTokens, DType rowType) {
        check(config, maxTokens, rowType);
        Arena arena = Arena.ofShared();
        try {
            return new Workspace(arena, config, weights, kernels, maxTokens, rowType);
        } catch (RuntimeException | Error e) {
            arena.close();
            throw e;
        }
    }

    /** What {@link #numBytes} of a new workspace would say. */
    static long numBytes(
            MoeConfig config, MoeWeights weights, Kernels kernels, long maxTokens, DType rowType) {
        check(config, maxTokens, rowType);
        return Intermediates.numBytes(config, weights, kernels, maxTokens, rowType);
    }

    private static void check(MoeConfig config, long maxTokens, DType rowType) {
        if (maxTokens < 0 || maxTokens > Integer.MAX_VALUE / config.topK()) {
            throw new IllegalArgumentException(
                    "maxTokens: expected 0 to "
                            + Integer.MAX_VALUE / config.topK()
                            + ", got "
                            + maxTokens);
        }
        if (rowType != DType.F32 && rowType != DType.F16 && rowType != DType.BF16) {
            throw new IllegalArgumentException(
                    "rowType: expected F32, F16 or BF16, got " + rowType);
        }
    }

    private Workspace(
            Arena arena,
            MoeConfig config,
            MoeWeights weights,
            Kernels kernels,
            long maxTokens,
            DType rowType) {
        this.arena = arena;
        this.config = config;
        this.kernels = kernels;
        this.maxTokens = maxTokens;
        intermediates =
                new Intermediates(
                        config,
                        weights,
                        kernels,
                        maxTokens,
                        rowType,
                        (dtype, shape) -> kernels.allocate(arena, dtype, shape));
        intermediates.writeDense(kernels);
        results = new HostResults(config, kernels, intermediates, arena);
    }

    /** Marks the start of a pass. */
    void begin(MoeConfig forConfig, long numTokens) {
        requireOpen();
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
        results.forget();
    }

    private void requireOpen() {
        if (!arena.scope().isAlive()) {
            throw new IllegalStateException("workspace: closed; ask the layer for a new one");
        }
    }

    void end() {
        busy.set(false);
    }

    Intermediates intermediates() {
        return intermediates;
    }

    /** The input where the backend computes: itself, or a copy. */
    Tensor input(Tensor x) {
        if (x.isDevice() || !intermediates.onDevice()) {
            return x;
        }
        Tensor copy = place(inputs, x).slice(0, tokens);
        kernels.copy(x, copy);
        return copy;
    }

    /** Where the backend writes the output: itself, or what has to be copied to it. */
    Tensor output(Tensor y) {
        boolean there = y.isDevice() || !intermediates.onDevice();
        return there ? y : place(outputs, y).slice(0, tokens);
    }

    private Tensor place(Map<DType, Tensor> places, Tensor like) {
        Tensor place = places.get(like.dtype());
        if (place == null) {
            place = kernels.allocate(arena, like.dtype(), maxTokens, config.hidden());
            places.put(like.dtype(), place);
            placeBytes += place.numBytes();
        }
        return place;
    }

    /** The inputs in memory of this workspace, which outlives the pass. */
    TokenInputs keep(TokenInputs inputs) {
        return new TokenInputs(
                copy(inputs.tokenTypes(), intermediates.tokenTypes()),
                copy(inputs.tokenIds(), intermediates.tokenIds()),
                copy(inputs.protectedTokens(), intermediates.protectedTokens()));
    }

    private @Nullable Tensor copy(@Nullable Tensor given, Tensor place) {
        if (given == null) {
            return null;
        }
        Tensor copy = place.slice(0, tokens);
        kernels.copy(given, copy);
        return copy;
    }

    /**
     * Says which step the next passes belong to, in this workspace and in replays of a captured
     * layer whose workspace this is. Routers whose rule has noise or jitter draw another one for
     * each step, and the same one again for the same step; others do not care, nor does the random
     * routing of a capacity, whose seed belongs to its rule. A new workspace is at step 0.
     *
     * @param step number of the step, as 32 bits without sign
     * @throws IllegalStateException during a forward pass
     */
    public void setNoiseStep(int step) {
        requireIdle("set the step between passes");
        kernels.fill(intermediates.noiseStep(), step);
    }

    /**
     * Says which experts the next passes may choose, in this workspace and in replays of a captured
     * layer whose workspace this is: a curriculum that begins with few experts, or experts that are
     * tried without before they are pruned. The others get no token and no share of a softmax, as
     * in {@link jmoe.ops.RouteInputs#activeExperts}. In a new workspace all are active.
     *
     * @param active I32 [numTokenTypes * E] for rules over E experts, one token type after the
     *     other, on the host or the device, copied; an expert whose entry is 0 is not active. Null
     *     for all, with which passes are quicker
     * @throws IllegalArgumentException if a router's rule cannot leave experts out
     * @throws IllegalStateException during a forward pass
     */
    public void setActiveExperts(@Nullable Tensor active) {
        requireIdle("choose experts between passes");
        if (active == null) {
            intermediates.chooseExperts(false);
            return;
        }
        Tensor own = intermediates.activeExperts();
        String length = "numTokenTypes * numExperts";
        Check.vector("activeExperts", active, DType.I32, length, own.numElements());
        intermediates.chooseExperts(true);
        kernels.copy(active, own);
    }

    private void requireIdle(String remedy) {
        requireOpen();
        if (busy.get()) {
            throw new IllegalStateException("workspace: in use by a forward pass; " + remedy);
        }
    }

    /**
     * Logits of the last pass, as the rule read them, in host memory. If they are on a device, the
     * first call after a pass waits for it and copies them.
     *
     * @return F32 [tokens, numLogits]; [2, tokens, numKeys] with product keys; a view that is valid
     *     until the next pass
     */
    public Tensor routerLogits() {
        requireOpen();
        Tensor last = results.logits(tokens);
        RouterConfig router = config.routers().getFirst();
        return router.selection() instanceof Selection.ProductKeys keys
                ? last.reshape(2, tokens, keys.numKeys())
                : last;
    }

    /**
     * Experts of the last pass, in host memory. If they are on a device, the first call after a
     * pass waits for it and copies them.
     *
     * @return I32 [tokens, topK], numbered within the token's type, -1 for a slot without an
     *     expert; a dropped slot keeps its id, with weight 0; a view that is valid until the next
     *     pass
     */
    public Tensor topkIds() {
        requireOpen();
        return results.topkIds(tokens);
    }

    /**
     * Weights of the last pass, in host memory. If they are on a device, the first call after a
     * pass waits for it and copies them.
     *
     * @return F32 [tokens, topK]; a view that is valid until the next pass
     */
    public Tensor topkWeights() {
        requireOpen();
        return results.topkWeights(tokens);
    }

    /**
     * Load of the last pass, in host memory. If it is on a device, the first call after a pass
     * waits for it and copies it.
     *
     * @return I32 [numTokenTypes * (numExperts + numIdentityExperts)]; a view that is valid until
     *     the next pass
     */
    public Tensor tokensPerExpert() {
        requireOpen();
        return results.tokensPerExpert();
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
     * Memory held, on the device and on the host.
     *
     * @return bytes; of a new workspace what {@link MoeLayer#workspaceBytes} says
     */
    public long numBytes() {
        return intermediates.numBytes() + placeBytes + results.numBytes();
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
