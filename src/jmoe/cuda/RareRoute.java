package jmoe.cuda;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.Selection;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * {@code topkIds, topkWeights = rule(logits)} for the rules that {@link Route} has no kernel for.
 */
final class RareRoute {
    /**
     * Most memory for candidates, if one block can do with it; with more tokens, blocks take turns.
     */
    private static final long MAX_KEY_BYTES = 1 << 24;

    private final CudaContext context;
    private final CudaModule module;
    private final CudaModule hashModule;
    private final RouteRule rule = new RouteRule(Arena.ofAuto());

    RareRoute(CudaContext context) {
        this.context = context;
        module = context.module("route_rare");
        hashModule = context.module("route_hash");
    }

    /** Whether neither {@link Route}'s own kernel nor {@link DecodeRoute} has the rule. */
    static boolean takes(RouterConfig config, RouteInputs inputs) {
        return inputs.activeExperts() != null || !isCommon(config);
    }

    static boolean isCommon(RouterConfig config) {
        return switch (config.selection()) {
            case Selection.TopK topK -> true;
            case Selection.SparseMixer mixer -> true;
            case Selection.ProductKeys keys -> true;
            case Selection.GroupLimited g -> g.groupScore() != GroupScore.TOP_SHARE_SUM;
            default -> false;
        };
    }

    /** Memory that {@link #queue} needs for candidates. */
    long keyBytes(RouterConfig config, int tokens) {
        if (config.selection() instanceof Selection.Hash) {
            return 0;
        }
        CudaKernel kernel = module.kernel("route_rare");
        return blocks(kernel, config, tokens) * blockBytes(kernel, config);
    }

    private static long blockBytes(CudaKernel kernel, RouterConfig config) {
        // Of each expert and each group, of which there are no more.
        return (long) kernel.itemsPerBlock() * 2 * config.numExperts() * Long.BYTES;
    }

    private static long blocks(CudaKernel kernel, RouterConfig config, int tokens) {
        long fitting = Math.max(1, MAX_KEY_BYTES / blockBytes(kernel, config));
        return Math.min(kernel.blocks(tokens), fitting);
    }

    /**
     * Queues the rule.
     *
     * @param keys address of {@link #keyBytes}
     */
    void queue(
            Operands on,
            Tensor logits,
            RouterConfig config,
            RouteInputs inputs,
            Route.Results to,
            long keys) {
        int tokens = to.tokens();
        if (config.selection() instanceof Selection.Hash) {
            hash(on, config, inputs, to);
            return;
        }
        CudaKernel kernel = module.kernel("route_rare");
        context.launch()
                .of(kernel)
                .pointer(on.in(logits))
                .pointer(on.in(inputs.selectionBias()))
                .pointer(on.in(inputs.tokenTypes()))
                .pointer(on.in(inputs.activeExperts()))
                .pointer(to.ids())
                .pointer(to.weights())
                .pointer(to.bestScores())
                .pointer(keys)
                .int32(tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(blocks(kernel, config, tokens));
    }

    private void hash(Operands on, RouterConfig config, RouteInputs inputs, Route.Results to) {
        Tensor table = inputs.hashTable();
        CudaKernel kernel = hashModule.kernel("route_hash");
        context.launch()
                .of(kernel)
                .pointer(on.in(inputs.tokenIds()))
                .pointer(on.in(inputs.tokenTypes()))
                .pointer(on.in(table))
                .pointer(to.ids())
                .pointer(to.weights())
                .int32(to.tokens())
                .int64(table == null ? 0 : table.dim(0))
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(kernel.blocks(to.tokens()));
    }
}
