package jmoe.cuda;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.Capacity.RandomRouting;
import jmoe.ops.RouterConfig;

/** What a {@link Capacity} drops or moves of a batch that is routed. */
final class RouteCapacity {
    private final CudaContext context;
    private final CudaModule module;
    private final RouteRule rule;

    RouteCapacity(CudaContext context, RouteRule rule) {
        this.context = context;
        this.rule = rule;
        module = context.module("route_capacity");
    }

    /** Where a batch lies on the device; 0 for what there is not. */
    record Batch(
            RouterConfig config,
            Capacity capacity,
            int tokens,
            long logits,
            long protectedTokens,
            long ids,
            long weights,
            RouteScratch scratch) {
        int slots() {
            return Math.multiplyExact(tokens, config.topK());
        }
    }

    /** Queues the kernels that a capacity needs. */
    void queue(Batch on) {
        RouteScratch scratch = on.scratch;
        boolean byWeight = on.capacity.priority() == Priority.WEIGHT;
        boolean normalisesLater = on.capacity.normaliseAfter();
        boolean moves = on.capacity.overflow().rounds(on.config.numExperts()) > 0;
        if (byWeight && !normalisesLater) {
            order(on.weights, scratch.order(), on.slots());
        }
        if (scratch.asks() != 0) {
            ask(on, byWeight && normalisesLater);
        }
        if (byWeight && normalisesLater) {
            order(scratch.keys(), scratch.order(), on.slots());
        }
        if (on.capacity.priority() == Priority.PROBABILITY) {
            order(scratch.keys(), scratch.order(), on.tokens);
        }
        drop(on, byWeight, moves ? scratch.placed() : on.weights);
        if (moves) {
            move(on, byWeight);
        }
        if (normalisesLater) {
            CudaKernel kernel = module.kernel("route_capacity_normalise");
            context.launch()
                    .of(kernel)
                    .pointer(on.weights)
                    .int32(on.tokens)
                    .struct(rule.of(on.config), RouteRule.ALIGNMENT)
                    .run(kernel.blocks(on.tokens));
        }
    }

    private void order(long keys, long order, int count) {
        CudaKernel kernel = module.kernel("route_capacity_order");
        context.launch()
                .of(kernel)
                .pointer(keys)
                .pointer(order)
                .int32(count)
                .run(kernel.blocks(count));
    }

    private void ask(Batch on, boolean writesKeys) {
        RandomRouting random = on.capacity.randomRouting();
        CudaKernel kernel = module.kernel("route_capacity_ask");
        context.launch()
                .of(kernel)
                .pointer(on.ids)
                .pointer(on.weights)
                .pointer(on.protectedTokens)
                .pointer(on.scratch().asks())
                .pointer(writesKeys ? on.scratch().keys() : 0)
                .pointer(on.scratch().placed())
                .int32(on.tokens)
                .int32(on.capacity.expertsPerQueue(on.config))
                .int64(random == null ? 0 : random.seed())
                .float64(random == null ? 0 : random.threshold())
                .struct(rule.of(on.config), RouteRule.ALIGNMENT)
                .run(kernel.blocks(on.tokens));
    }

    private void drop(Batch on, boolean byWeight, long weights) {
        CudaKernel kernel = module.kernel("route_capacity_drop");
        int queues = on.config.numExperts() / on.capacity.expertsPerQueue(on.config);
        context.launch()
                .of(kernel)
                .pointer(on.scratch().asks() == 0 ? on.ids : on.scratch().asks())
                .pointer(on.scratch().order())
                .pointer(weights)
                .int32(byWeight ? on.slots() : on.tokens)
                .int32(byWeight ? 1 : on.config.topK())
                .int32(queues)
                .int32(on.protectedTokens == 0 ? 0 : 1)
                .int64(on.capacity.limit(on.config, on.tokens))
                .run(kernel.blocks(queues));
    }

    private void move(Batch on, boolean byWeight) {
        CudaKernel kernel = module.kernel("route_capacity_move");
        int rounds = on.capacity.overflow().rounds(on.config.numExperts());
        if (on.capacity.overflow() instanceof Overflow.NextChoice) {
            rounds = Math.clamp(on.scratch().numRanked() - (long) on.config.topK(), 0, rounds);
        }
        on.slots();
        context.launch()
                .of(kernel)
                .pointer(on.ids)
                .pointer(on.weights)
                .pointer(on.scratch().asks())
                .pointer(on.scratch().placed())
                .pointer(on.scratch().order())
                .pointer(on.scratch().ranked())
                .pointer(on.logits)
                .pointer(on.scratch().used())
                .int32(on.tokens)
                .int32(rounds)
                .int32(on.scratch().numRanked())
                .int32(on.capacity.expertsPerQueue(on.config))
                .int32(byWeight ? 1 : 0)
                .int64(on.capacity.limit(on.config, on.tokens))
                .struct(rule.of(on.config), RouteRule.ALIGNMENT)
                .run(1);
    }
}
