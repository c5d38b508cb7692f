package jmoe.cuda;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/** {@code topkIds, topkWeights = rule(logits)}, then what a capacity drops. */
final class Route {
    private final CudaContext context;
    private final CudaModule module;
    private final RouteRule rule = new RouteRule(Arena.ofAuto());
    private final RouteCapacity within;

    Route(CudaContext context) {
        this.context = context;
        module = context.module("route");
        within = new RouteCapacity(context, rule);
    }

    void queue(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        Capacity capacity = config.capacity();
        Batch batch =
                new Batch(
                        on.in(logits),
                        on.in(inputs.selectionBias()),
                        on.in(inputs.tokenTypes()),
                        (int) routing.tokens());
        long ids = on.out(routing.topkIds());
        long weights = on.out(routing.topkWeights());
        if (capacity == null) {
            route(batch, config, ids, weights, 0);
            return;
        }
        CapacityScratch scratch =
                CapacityScratch.of(context.scratch(), config, capacity, batch.tokens);
        boolean byScore = capacity.priority() == Priority.PROBABILITY;
        route(batch, config, ids, weights, byScore ? scratch.keys() : 0);
        RouterConfig ranking = capacity.ranking(config);
        if (ranking != null) {
            route(batch, ranking, scratch.ranked(), scratch.rankedWeights(), 0);
        }
        within.queue(
                new RouteCapacity.Batch(
                        config, capacity, batch.tokens, batch.logits, ids, weights, scratch));
    }

    /** What tokens are routed by, on the device; 0 for what there is not. */
    private record Batch(long logits, long bias, long tokenTypes, int tokens) {}

    private void route(Batch batch, RouterConfig config, long ids, long weights, long bestScores) {
        CudaKernel kernel = module.kernel("route");
        context.launch()
                .of(kernel)
                .pointer(batch.logits)
                .pointer(batch.bias)
                .pointer(batch.tokenTypes)
                .pointer(ids)
                .pointer(weights)
                .pointer(bestScores)
                .int32(batch.tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(kernel.blocks(batch.tokens));
    }
}
