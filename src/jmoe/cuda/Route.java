package jmoe.cuda;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Capacity;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/** {@code topkIds, topkWeights = rule(logits)}, then what a capacity drops and experts scale. */
final class Route {
    private final CudaContext context;
    private final CudaModule module;
    private final CudaModule capacityModule;
    private final CudaModule scaleModule;
    private final RareRoute rareRoute;
    private final RouteRule rule = new RouteRule(Arena.ofAuto());

    Route(CudaContext context) {
        this.context = context;
        module = context.module("route");
        capacityModule = context.module("route_capacity");
        scaleModule = context.module("route_scale");
        rareRoute = new RareRoute(context);
    }

    /** Addresses of what is written; of the best scores 0 if nobody asks for them. */
    record Results(long ids, long weights, long bestScores, int tokens) {}

    void queue(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        int tokens = (int) routing.tokens();
        Capacity capacity = config.capacity();
        boolean ranked = capacity != null && capacity.byProbability();
        boolean rare = RareRoute.takes(config, inputs);
        // Best scores and the order that they give; candidates.
        long rankedBytes = ranked ? 2 * 4L * tokens : 0;
        long keyBytes = rare ? rareRoute.keyBytes(config, tokens) : 0;
        long bytes = keyBytes + rankedBytes;
        long keys = bytes == 0 ? 0 : context.scratch().address(bytes);
        Results to =
                new Results(
                        on.out(routing.topkIds()),
                        on.out(routing.topkWeights()),
                        ranked ? keys + keyBytes : 0,
                        tokens);
        if (rare) {
            rareRoute.queue(on, logits, config, inputs, to, keys);
        } else {
            choose(on, logits, config, inputs, to);
        }
        if (capacity != null) {
            long order = ranked ? order(to.bestScores, tokens) : 0;
            dropBeyond(capacity, config, to.ids, order, to.weights, tokens);
        }
        if (inputs.expertScale() != null) {
            scale(on.in(inputs.expertScale()), to, (long) tokens * config.topK());
        }
    }

    private void choose(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Results to) {
        CudaKernel kernel = module.kernel("route");
        context.launch()
                .of(kernel)
                .pointer(on.in(logits))
                .pointer(on.in(inputs.selectionBias()))
                .pointer(on.in(inputs.tokenTypes()))
                .pointer(to.ids)
                .pointer(to.weights)
                .pointer(to.bestScores)
                .int32(to.tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(kernel.blocks(to.tokens));
    }

    private void scale(long expertScale, Results to, long slots) {
        CudaKernel kernel = scaleModule.kernel("route_scale");
        context.launch()
                .of(kernel)
                .pointer(to.ids)
                .pointer(expertScale)
                .pointer(to.weights)
                .int64(slots)
                .run(kernel.blocks(slots));
    }

    private long order(long bestScores, int tokens) {
        long order = bestScores + 4L * tokens;
        CudaKernel kernel = capacityModule.kernel("route_capacity_order");
        context.launch()
                .of(kernel)
                .pointer(bestScores)
                .pointer(order)
                .int32(tokens)
                .run(kernel.blocks(tokens));
        return order;
    }

    private void dropBeyond(
            Capacity capacity,
            RouterConfig config,
            long ids,
            long order,
            long weights,
            int tokens) {
        CudaKernel dropping = capacityModule.kernel("route_capacity_drop");
        context.launch()
                .of(dropping)
                .pointer(ids)
                .pointer(order)
                .pointer(weights)
                .int32(tokens)
                .int32(config.topK())
                .int32(config.numExperts())
                .int64(capacity.limit(tokens))
                .run(dropping.blocks(config.numExperts()));
        if (capacity.normaliseAfter()) {
            CudaKernel normalising = capacityModule.kernel("route_capacity_normalise");
            context.launch()
                    .of(normalising)
                    .pointer(weights)
                    .int32(tokens)
                    .struct(rule.of(config), RouteRule.ALIGNMENT)
                    .run(normalising.blocks(tokens));
        }
    }
}
