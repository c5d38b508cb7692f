package jmoe.cuda;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * {@code topkIds, topkWeights = rule(logits)}, then what a capacity drops and what scales experts.
 */
final class Route {
    private final CudaContext context;
    private final CudaModule module;
    private final CudaModule scaleModule;
    private final RareRoute rareRoute;
    private final BatchRoute together;
    private final RouteRule rule = new RouteRule(Arena.ofAuto());
    private final RouteCapacity within;

    Route(CudaContext context) {
        this.context = context;
        module = context.module("route");
        scaleModule = context.module("route_scale");
        rareRoute = new RareRoute(context);
        within = new RouteCapacity(context, rule);
        together = new BatchRoute(context);
    }

    /** Addresses of what is written; of the best scores 0 if nobody asks for them. */
    record Results(long ids, long weights, long bestScores, int tokens) {}

    void queue(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        int tokens = (int) routing.tokens();
        long ids = on.out(routing.topkIds());
        long weights = on.out(routing.topkWeights());
        if (config.choosesByBatch()) {
            together.queue(on, logits, config, inputs, new Results(ids, weights, 0, tokens));
        } else {
            queueByToken(on, logits, config, inputs, new Results(ids, weights, 0, tokens));
        }
        if (inputs.expertScale() != null) {
            scale(on.in(inputs.expertScale()), ids, weights, (long) tokens * config.topK());
        }
    }

    private void queueByToken(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Results to) {
        int tokens = to.tokens;
        boolean rare = RareRoute.takes(config, inputs);
        long candidateBytes = rare ? rareRoute.keyBytes(config, tokens) : 0;
        boolean protects = inputs.protectedTokens() != null;
        RouteScratch scratch =
                RouteScratch.of(context.scratch(), config, tokens, protects, candidateBytes);
        Capacity capacity = config.capacity();
        boolean byScore = capacity != null && capacity.priority() == Priority.PROBABILITY;
        long bestScores = byScore ? scratch.keys() : 0;
        Results scored = new Results(to.ids, to.weights, bestScores, tokens);
        choose(on, logits, config, inputs, scored, scratch);
        if (capacity != null) {
            RouterConfig ranking = capacity.ranking(config);
            if (ranking != null) {
                Results ranked = new Results(scratch.ranked(), scratch.rankedWeights(), 0, tokens);
                choose(on, logits, ranking, inputs, ranked, scratch);
            }
            within.queue(
                    new RouteCapacity.Batch(
                            config,
                            capacity,
                            tokens,
                            on.in(logits),
                            on.in(inputs.protectedTokens()),
                            to.ids,
                            to.weights,
                            scratch));
        }
    }

    private void choose(
            Operands on,
            Tensor logits,
            RouterConfig config,
            RouteInputs inputs,
            Results to,
            RouteScratch scratch) {
        if (RareRoute.takes(config, inputs)) {
            rareRoute.queue(on, logits, config, inputs, to, scratch.candidates());
            return;
        }
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

    private void scale(long expertScale, long ids, long weights, long slots) {
        CudaKernel kernel = scaleModule.kernel("route_scale");
        context.launch()
                .of(kernel)
                .pointer(ids)
                .pointer(expertScale)
                .pointer(weights)
                .int64(slots)
                .run(kernel.blocks(slots));
    }
}
