package jmoe.cuda;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Capacity;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/** {@code topkIds, topkWeights = rule(logits)}, then what a capacity drops. */
final class Route {
    private final CudaContext context;
    private final CudaModule module;
    private final CudaModule capacityModule;
    private final BatchRoute together;
    private final RouteRule rule = new RouteRule(Arena.ofAuto());

    Route(CudaContext context) {
        this.context = context;
        module = context.module("route");
        capacityModule = context.module("route_capacity");
        together = new BatchRoute(context);
    }

    void queue(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        if (config.choosesByBatch()) {
            together.queue(on, logits, config, inputs, routing);
            return;
        }
        int tokens = (int) routing.tokens();
        Capacity capacity = config.capacity();
        boolean ranked = capacity != null && capacity.byProbability();
        long ids = on.out(routing.topkIds());
        long weights = on.out(routing.topkWeights());
        // Best scores, then the order that they give.
        long bestScores = ranked ? context.scratch().address(2 * 4L * tokens) : 0;
        CudaKernel kernel = module.kernel("route");
        context.launch()
                .of(kernel)
                .pointer(on.in(logits))
                .pointer(on.in(inputs.selectionBias()))
                .pointer(on.in(inputs.tokenTypes()))
                .pointer(ids)
                .pointer(weights)
                .pointer(bestScores)
                .int32(tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(kernel.blocks(tokens));
        if (capacity != null) {
            long order = ranked ? order(bestScores, tokens) : 0;
            dropBeyond(capacity, config, ids, order, weights, tokens);
        }
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
