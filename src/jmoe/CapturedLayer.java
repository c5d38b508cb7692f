package jmoe;

import jmoe.ops.Capacity;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.Replay;
import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;
import jmoe.ops.TokenInputs;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The forward pass of a layer, captured once for up to some number of tokens and replayed for any
 * number up to that: on a GPU as one graph, where a call by itself would take longer than its work.
 *
 * <pre>
 * try (CapturedLayer captured = layer.capture(8)) {
 *     kernels.copy(prompt, captured.x().slice(0, 5));
 *     captured.replay(5);
 *     kernels.copy(captured.y().slice(0, 5), result);
 * }
 * </pre>
 *
 * <p>What {@link #replay} computes equals {@link MoeLayer#forward} bit by bit, if the backend
 * computes both in the same way. A GPU has one way for few tokens and one for many, which differ in
 * the last places: a replay takes the way of {@link #maxTokens}, a forward pass that of its own
 * tokens. How many tokens a replay has changes the bits of a token only where it changes those of a
 * forward pass: where tokens queue for experts, or the router looks at all of them. One thread at a
 * time uses it.
 */
public final class CapturedLayer implements AutoCloseable {
    private static final long NOTHING = -1;

    private final MoeLayer layer;
    private final MoeConfig config;
    private final MoeWeights weights;
    private final Kernels kernels;
    private final long maxTokens;
    private final Arena arena = Arena.ofShared();
    private final Workspace workspace;
    private final Tensor x;
    private final Tensor y;
    private final Tensor tokenTypes;

    /** Null if no router reads them. */
    private final @Nullable Tensor tokenIds;

    /** Null as long as nobody asks for them. */
    private @Nullable Tensor protectedTokens;

    /** Whether what is captured reads which experts are active. */
    private boolean choosesExperts;

    /**
     * What the pass reads: the types of the tokens that there are, -1 for the others. With several
     * types that of the workspace, which says afterwards whose results are whose.
     */
    private final Tensor types;

    /** Of the dense layers: [0, tokens]. */
    private final Tensor offsets;

    /**
     * What {@link #types} and {@link #offsets} say, so that the next replay may find them right.
     */
    private long preparedTokens = NOTHING;

    /** Whether the caller may have written types. */
    private boolean hasTypes;

    /**
     * Whether a token's result depends on the number of tokens, so that tokens which are absent
     * cannot make up for those that are not there: then each number has its own.
     */
    private final boolean couplesTokens;

    private final Map<Long, Replay> replays = new HashMap<>();
    private final AtomicBoolean busy = new AtomicBoolean();
    private boolean closed;

    /** The layer stays open until {@link #close}, which releases it. */
    CapturedLayer(MoeLayer layer, Kernels kernels, long maxTokens, DType type, DType rowType) {
        this.layer = layer;
        this.config = layer.config();
        this.weights = layer.weights();
        this.kernels = kernels;
        this.maxTokens = maxTokens;
        couplesTokens = config.routers().stream().anyMatch(CapturedLayer::couplesTokens);
        boolean complete = false;
        Workspace own = null;
        try {
            own = layer.workspace(maxTokens, rowType);
            workspace = own;
            x = kernels.allocate(arena, type, maxTokens, config.hidden());
            y = kernels.allocate(arena, type, maxTokens, config.hidden());
            tokenTypes = kernels.allocate(arena, DType.I32, maxTokens);
            tokenIds =
                    LayerArguments.readsIds(config)
                            ? kernels.allocate(arena, DType.I32, maxTokens)
                            : null;
            offsets = kernels.allocate(arena, DType.I32, 2);
            hasTypes = config.numTokenTypes() > 1;
            types =
                    hasTypes
                            ? own.intermediates().tokenTypes()
                            : kernels.allocate(arena, DType.I32, maxTokens);
            kernels.fill(tokenTypes, 0);
            if (tokenIds != null) {
                kernels.fill(tokenIds, 0);
            }
            kernels.fill(offsets, 0);
            if (!couplesTokens) {
                replays.put(maxTokens, capture(maxTokens));
            }
            complete = true;
        } finally {
            if (!complete) {
                arena.close();
                if (own != null) {
                    own.close();
                }
            }
        }
    }

    private static boolean couplesTokens(RouterConfig router) {
        Capacity capacity = router.capacity();
        return router.selection() instanceof Selection.ProductKeys
                || (capacity != null && capacity.limit().dependsOnTokens());
    }

    private Replay capture(long tokens) {
        Intermediates on = workspace.intermediates();
        ForwardPass pass = new ForwardPass(config, weights, kernels, on, on.dense(tokens, offsets));
        TokenInputs ofTokens =
                new TokenInputs(
                        types.slice(0, tokens),
                        first(tokenIds, tokens),
                        first(protectedTokens, tokens));
        Tensor input = x.slice(0, tokens);
        Tensor output = y.slice(0, tokens);
        // Kernels and their scratch are there once they have run, and without tokens that is quick.
        prepare(0);
        pass.run(input, ofTokens, output);
        return kernels.capture(() -> pass.run(input, ofTokens, output));
    }

    private static @Nullable Tensor first(@Nullable Tensor all, long tokens) {
        return all == null ? null : all.slice(0, tokens);
    }

    /** What is captured reads other inputs than replays shall: they capture it again. */
    private void forget() {
        replays.values().forEach(Replay::close);
        replays.clear();
    }

    /**
     * The input, to be written before a replay.
     *
     * @return [maxTokens, hidden], where the backend computes; its content is undefined at first
     */
    public Tensor x() {
        return x;
    }

    /**
     * The output of the last replay.
     *
     * @return [maxTokens, hidden], where the backend computes; rows past the last token are
     *     undefined
     */
    public Tensor y() {
        return y;
    }

    /**
     * The types of the tokens, to be written before a replay; all 0 at first.
     *
     * @return I32 [maxTokens], where the backend computes; as in {@link MoeLayer#forward}, but not
     *     checked. Replays are quicker as long as this has never been asked for
     */
    public Tensor tokenTypes() {
        hasTypes = true;
        return tokenTypes;
    }

    /**
     * The ids of the tokens, to be written before a replay; all 0 at first.
     *
     * @return I32 [maxTokens], where the backend computes, for {@link jmoe.ops.Selection.Hash}
     * @throws IllegalStateException if the layer does not route by Hash
     */
    public Tensor tokenIds() {
        if (tokenIds == null) {
            throw new IllegalStateException(
                    "tokenIds: not read by this layer, which does not route by Hash");
        }
        return tokenIds;
    }

    /**
     * Which tokens the capacity must not drop, to be written before a replay; all 0, for nobody, at
     * first.
     *
     * @return I32 [maxTokens], where the backend computes, as in {@link jmoe.ops.TokenInputs}.
     *     Replays are quicker as long as this has never been asked for
     * @throws IllegalStateException if the layer has no capacity, and so drops nobody
     */
    public Tensor protectedTokens() {
        if (!LayerArguments.hasCapacity(config)) {
            throw new IllegalStateException(
                    "protectedTokens: not read by this layer, which has no capacity");
        }
        Tensor stay = protectedTokens;
        if (stay == null) {
            stay = kernels.allocate(arena, DType.I32, maxTokens);
            kernels.fill(stay, 0);
            protectedTokens = stay;
            forget();
        }
        return stay;
    }

    /**
     * What the router decided in the last replay.
     *
     * @return a workspace, closed together with this
     */
    public Workspace workspace() {
        return workspace;
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
     * Computes the layer for the first tokens of {@link #x}. On a device the pass is queued and the
     * call returns at once; what goes wrong there is thrown by a later call.
     *
     * <p>Where a token's result depends on the number of tokens (product keys, a capacity that is a
     * share of the tokens), each number is captured when it is first asked for.
     *
     * @param tokens 0 to maxTokens
     */
    public void replay(long tokens) {
        if (tokens < 0 || tokens > maxTokens) {
            throw new IllegalArgumentException(
                    "tokens: expected 0 to maxTokens="
                            + maxTokens
                            + ", got "
                            + tokens
                            + "; capture the layer for more");
        }
        if (!busy.compareAndSet(false, true)) {
            throw new IllegalStateException(
                    "captured layer: in use by another replay; capture one for each thread");
        }
        try {
            if (closed) {
                throw new IllegalStateException("captured layer: closed; capture the layer again");
            }
            workspace.begin(config, tokens);
            try {
                run(tokens, couplesTokens ? tokens : maxTokens);
            } finally {
                workspace.end();
            }
        } finally {
            busy.set(false);
        }
    }

    private void run(long tokens, long capturedTokens) {
        if (choosesExperts != workspace.intermediates().choosesExperts()) {
            choosesExperts = !choosesExperts;
            forget();
        }
        Replay replay = replays.get(capturedTokens);
        if (replay == null) {
            replay = capture(capturedTokens);
            replays.put(capturedTokens, replay);
        }
        prepare(tokens);
        if (hasTypes) {
            kernels.copy(tokenTypes.slice(0, tokens), types.slice(0, tokens));
        }
        replay.run();
    }

    /**
     * Says how many tokens there are: for a host that has only the graph to launch, every call
     * counts.
     */
    private void prepare(long tokens) {
        // Another pass in the workspace may have left its own types there.
        boolean shared = config.numTokenTypes() > 1;
        if (tokens == preparedTokens && !shared) {
            return;
        }
        preparedTokens = NOTHING;
        if (!hasTypes) {
            kernels.fill(types.slice(0, tokens), 0);
        }
        kernels.fill(types.slice(tokens, maxTokens - tokens), -1);
        kernels.fill(offsets.slice(1, 1), (int) tokens);
        preparedTokens = tokens;
    }

    /**
     * Frees the memory, after the replays queued until then; safe to call twice.
     *
     * @throws IllegalStateException during a replay
     */
    @Override
    public void close() {
        if (!busy.compareAndSet(false, true)) {
            throw new IllegalStateException(
                    "captured layer: in use by a replay; close it afterwards");
        }
        try {
            if (closed) {
                return;
            }
            closed = true;
            try {
                replays.values().forEach(Replay::close);
            } finally {
                workspace.close();
                arena.close();
                layer.release();
            }
        } finally {
            busy.set(false);
        }
    }
}
