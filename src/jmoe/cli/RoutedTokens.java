package jmoe.cli;

import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.Router;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.ops.Routing;
import jmoe.ops.TokenInputs;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.train.ExpertLoad;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/**
 * What the routers of a layer decide about tokens, on the host; no expert computes anything.
 *
 * @param tokens of all types
 * @param types one per token type
 */
record RoutedTokens(long tokens, List<OfType> types) {
    /**
     * The decisions of one router.
     *
     * @param rule of the router
     * @param topkIds I32 [tokens, topK]; -1 for tokens of other types
     * @param topkWeights F32 [tokens, topK]
     * @param load of the experts, identity experts included
     * @param notFinite weights that are infinite or NaN
     */
    record OfType(
            RouterConfig rule,
            Tensor topkIds,
            Tensor topkWeights,
            ExpertLoad load,
            long notFinite) {
        private static OfType of(
                RouterConfig rule,
                @Nullable Tensor tokenTypes,
                Tensor topkIds,
                Tensor topkWeights) {
            long[] assigned = new long[rule.numExperts()];
            long[] kept = new long[rule.numExperts()];
            long served = 0;
            long notFinite = 0;
            for (long token = 0; token < topkIds.dim(0); token++) {
                for (long slot = token * rule.topK(); slot < (token + 1) * rule.topK(); slot++) {
                    int id = topkIds.getInt(slot);
                    float weight = topkWeights.getFloat(slot);
                    if (id >= 0) {
                        assigned[id]++;
                        kept[id] += rule.capacity() == null || weight != 0 ? 1 : 0;
                        notFinite += Float.isFinite(weight) ? 0 : 1;
                    }
                }
                boolean serves = tokenTypes == null || rule.serves(tokenTypes.getInt(token));
                served += serves ? 1 : 0;
            }
            ExpertLoad load =
                    new ExpertLoad(
                            new ExpertLoad.Counts(assigned), new ExpertLoad.Counts(kept), served);
            return new OfType(rule, topkIds, topkWeights, load, notFinite);
        }
    }

    /**
     * Routes.
     *
     * @param weights one router per token type, on the host
     * @param kernels the backend
     * @param arena owner of the decisions
     */
    static RoutedTokens route(
            MoeConfig config,
            List<RouterWeights> weights,
            LayerInput input,
            Kernels kernels,
            Arena arena) {
        long tokens = input.x().dim(0);
        List<OfType> types = new ArrayList<>();
        try (Arena backend = Arena.ofShared()) {
            Allocator memory = (type, shape) -> kernels.allocate(backend, type, shape);
            Tensor x = moved(input.x(), memory, kernels);
            Tensor tokenTypes =
                    input.tokenTypes() == null ? null : moved(input.tokenTypes(), memory, kernels);
            Routing dense = dense(tokens, memory, kernels);
            for (int type = 0; type < config.numTokenTypes(); type++) {
                RouterConfig rule = config.routers().get(type);
                RouterWeights own = weights.get(type).normalised(rule, kernels, backend);
                RouterWeights prepared = own.prepare(kernels, backend);
                Router router = new Router(rule, prepared, null);
                Routing routing = Routing.allocate(memory, tokens, rule.topK(), rule.numExperts());
                route(x, router, tokenTypes, dense, memory, kernels, routing);
                types.add(
                        OfType.of(
                                rule,
                                input.tokenTypes(),
                                host(routing.topkIds(), kernels, arena),
                                host(routing.topkWeights(), kernels, arena)));
            }
        }
        return new RoutedTokens(tokens, types);
    }

    private static void route(
            Tensor x,
            Router router,
            @Nullable Tensor tokenTypes,
            Routing dense,
            Allocator memory,
            Kernels kernels,
            Routing routing) {
        long tokens = routing.tokens();
        long scratchElements = kernels.routerScratch(x.dtype(), router, tokens);
        Tensor scratch = memory.allocate(DType.F32, scratchElements);
        Tensor logits = memory.allocate(DType.F32, tokens, router.rule().numLogits());
        kernels.router(x, router, TokenInputs.ofTypes(tokenTypes), dense, scratch, logits, routing);
    }

    /** All tokens are rows of one group. */
    private static Routing dense(long tokens, Allocator memory, Kernels kernels) {
        Routing dense = Routing.allocate(memory, tokens, 1, 1);
        try (Arena arena = Arena.ofConfined()) {
            Tensor offsets = Tensor.allocate(arena, DType.I32, 2);
            offsets.setInt(1, (int) tokens);
            kernels.copy(offsets, dense.expertOffsets());
        }
        return dense;
    }

    private static Tensor moved(Tensor host, Allocator memory, Kernels kernels) {
        Tensor there = memory.allocate(host.dtype(), host.shape());
        if (!there.isDevice()) {
            return host;
        }
        kernels.copy(host, there);
        return there;
    }

    private static Tensor host(Tensor tensor, Kernels kernels, Arena arena) {
        Tensor copy = Tensor.allocate(arena, tensor.dtype(), tensor.shape());
        kernels.copy(tensor, copy);
        return copy;
    }
}
