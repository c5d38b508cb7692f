package jmoe;

import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/**
 * What the last pass decided, for the host to read: views of memory that the host can read, copies
 * of what it cannot, and of several token types each token's own.
 */
final class HostResults {
    private final MoeConfig config;
    private final Kernels kernels;
    private final Intermediates on;
    private final Arena arena;
    private final Map<Tensor, Tensor> copies = new HashMap<>();
    private final Map<Part, Tensor> merged = new EnumMap<>(Part.class);

    /** Copied or merged since the last pass. */
    private final Set<Tensor> current = new HashSet<>();

    private long numBytes;

    HostResults(MoeConfig config, Kernels kernels, Intermediates on, Arena arena) {
        this.config = config;
        this.kernels = kernels;
        this.on = on;
        this.arena = arena;
    }

    /** Begins a pass, after which everything is another. */
    void forget() {
        current.clear();
    }

    /** Bytes of the copies so far. */
    long numBytes() {
        return numBytes;
    }

    Tensor logits(long tokens) {
        return config.numTokenTypes() == 1
                ? read(on.logits(0), tokens)
                : merged(tokens, Part.LOGITS);
    }

    Tensor topkIds(long tokens) {
        return config.numTokenTypes() == 1
                ? read(on.routing(0).topkIds(), tokens)
                : merged(tokens, Part.IDS);
    }

    Tensor topkWeights(long tokens) {
        return config.numTokenTypes() == 1
                ? read(on.routing(0).topkWeights(), tokens)
                : merged(tokens, Part.WEIGHTS);
    }

    /** One token type after the other. */
    Tensor tokensPerExpert() {
        int types = config.numTokenTypes();
        long experts = on.routing(0).numExperts();
        if (types == 1) {
            return read(on.routing(0).tokensPerExpert(), experts);
        }
        Tensor key = on.routing(0).tokensPerExpert();
        Tensor all = copies.computeIfAbsent(key, k -> allocate(DType.I32, types * experts));
        if (current.add(key)) {
            for (int type = 0; type < types; type++) {
                Tensor counts = on.routing(type).tokensPerExpert();
                kernels.copy(counts, all.slice(type * experts, experts));
            }
        }
        return all;
    }

    private Tensor allocate(DType dtype, long... shape) {
        Tensor tensor = Tensor.allocate(arena, dtype, shape);
        numBytes += tensor.numBytes();
        return tensor;
    }

    private Tensor read(Tensor whole, long rows) {
        if (!whole.isDevice()) {
            return whole.slice(0, rows);
        }
        Tensor copy = copies.computeIfAbsent(whole, w -> allocate(w.dtype(), w.shape()));
        if (current.add(whole)) {
            kernels.copy(whole.slice(0, rows), copy.slice(0, rows));
        }
        return copy.slice(0, rows);
    }

    /** What there is of each token type. */
    private enum Part {
        LOGITS,
        IDS,
        WEIGHTS
    }

    private Tensor part(Part part, int type) {
        Routing routing = on.routing(type);
        return switch (part) {
            case LOGITS -> on.logits(type);
            case IDS -> routing.topkIds();
            case WEIGHTS -> routing.topkWeights();
        };
    }

    /** Each token's own router's; of a token that is absent the first router's. */
    private Tensor merged(long tokens, Part part) {
        Tensor first = part(part, 0);
        Tensor all = merged.computeIfAbsent(part, p -> allocate(first.dtype(), first.shape()));
        if (current.add(all)) {
            int types = config.numTokenTypes();
            Tensor[] parts = new Tensor[types];
            for (int type = 0; type < types; type++) {
                parts[type] = read(part(part, type), tokens);
            }
            Tensor tokenTypes = read(on.tokenTypes(), tokens);
            long rowBytes = first.dtype().numBytes(first.dim(1));
            for (long token = 0; token < tokens; token++) {
                int type = tokenTypes.getInt(token);
                MemorySegment from = parts[type < 0 || type >= types ? 0 : type].data();
                long at = token * rowBytes;
                MemorySegment.copy(from, at, all.data(), at, rowBytes);
            }
        }
        return all.slice(0, tokens);
    }
}
