package jmoe.cuda;

import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * {@code topkIds, topkWeights = rule(logits)} where the tokens of the batch get their experts
 * together. The host never waits for a result: what depends on the tokens that are served is
 * decided on the device.
 */
final class BatchRoute {
    private final CudaContext context;
    private final CudaModule expertChoice;
    private final CudaModule sinkhorn;
    private final CudaModule balanced;
    private final RouteRule rule = new RouteRule(Arena.ofAuto());

    BatchRoute(CudaContext context) {
        this.context = context;
        expertChoice = context.module("route_expert_choice");
        sinkhorn = context.module("route_sinkhorn");
        balanced = context.module("route_balanced");
    }

    /** The tensors on the device. */
    private record Addresses(long logits, long tokenTypes, long ids, long weights, int tokens) {}

    void queue(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Route.Results to) {
        Addresses at =
                new Addresses(
                        on.in(logits),
                        on.in(inputs.tokenTypes()),
                        to.ids(),
                        to.weights(),
                        to.tokens());
        if (at.tokens == 0) {
            return;
        }
        switch (config.selection()) {
            case Selection.ExpertChoice choice -> byExperts(at, config, choice);
            case Selection.Sinkhorn bounds -> bySinkhorn(at, config, bounds);
            case Selection.BalancedAssignment auction -> assign(at, config, auction);
            default -> throw new IllegalArgumentException(config + " looks at one token");
        }
    }

    private void byExperts(Addresses at, RouterConfig config, Selection.ExpertChoice choice) {
        long candidateBytes = 4L * config.numExperts() * at.tokens;
        long bitBytes = 4L * Math.ceilDiv(config.numExperts(), Integer.SIZE) * at.tokens;
        boolean overTokens = choice.scope() == Scope.TOKENS;
        long columnBytes = overTokens ? 12L * config.numExperts() : 0;
        long scratch = context.scratch().address(columnBytes + candidateBytes + bitBytes);
        long sums = overTokens ? scratch : 0;
        long maxima = overTokens ? scratch + 8L * config.numExperts() : 0;
        long candidates = scratch + columnBytes;
        long takes = candidates + candidateBytes;
        if (overTokens) {
            sumColumns(at, config, maxima, sums);
        }
        CudaKernel ordering = expertChoice.kernel("route_expert_choice_order");
        context.launch()
                .of(ordering)
                .pointer(at.logits)
                .pointer(at.tokenTypes)
                .pointer(candidates)
                .pointer(takes)
                .int32(at.tokens)
                .struct(rule.of(overTokens ? byLogit(config) : config), RouteRule.ALIGNMENT)
                .run(ordering.blocks(at.tokens));
        CudaKernel selecting = expertChoice.kernel("route_expert_choice_select");
        context.launch()
                .of(selecting)
                .pointer(candidates)
                .pointer(at.tokenTypes)
                .pointer(takes)
                .int32(at.tokens)
                .float64(choice.capacityFactor())
                .int32(choice.minTokens())
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(selecting.blocks(config.numExperts()));
        CudaKernel weighing = expertChoice.kernel("route_expert_choice_weigh");
        context.launch()
                .of(weighing)
                .pointer(at.logits)
                .pointer(takes)
                .pointer(maxima)
                .pointer(sums)
                .pointer(at.ids)
                .pointer(at.weights)
                .int32(at.tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(weighing.blocks(at.tokens));
    }

    /** A rule that orders tokens as a softmax over them does, without one. */
    private static RouterConfig byLogit(RouterConfig config) {
        return new RouterConfig(
                config.numExperts(),
                config.topK(),
                Score.SIGMOID,
                new Selection.ExpertChoice(1),
                config.normalisation(),
                config.factor(),
                config.weightOnInput(),
                null,
                config.tokenType());
    }

    private void sumColumns(Addresses at, RouterConfig config, long maxima, long sums) {
        CudaKernel summing = expertChoice.kernel("route_expert_choice_columns");
        context.launch()
                .of(summing)
                .pointer(at.logits)
                .pointer(at.tokenTypes)
                .pointer(maxima)
                .pointer(sums)
                .int32(at.tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(summing.blocks(config.numExperts()));
    }

    private void bySinkhorn(Addresses at, RouterConfig config, Selection.Sinkhorn bounds) {
        CudaKernel computing = sinkhorn.kernel("route_sinkhorn_powers");
        CudaKernel scaling = sinkhorn.kernel("route_sinkhorn_scale");
        long chunks = computing.blocks(at.tokens);
        long experts = config.numExperts();
        long sums =
                context.scratch()
                        .address(
                                8 * (chunks + 1) * experts
                                        + 4 * (at.tokens * experts + chunks + 1));
        long scales = sums + 8 * chunks * experts;
        long powers = scales + 8 * experts;
        long served = powers + 4L * at.tokens * experts;
        long done = served + 4 * chunks;
        context.launch()
                .of(computing)
                .pointer(at.logits)
                .pointer(at.tokenTypes)
                .pointer(powers)
                .pointer(served)
                .pointer(scales)
                .pointer(done)
                .int32(at.tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(chunks);
        for (int i = 0; i < bounds.maxIterations(); i++) {
            context.launch()
                    .of(scaling)
                    .pointer(powers)
                    .pointer(served)
                    .pointer(sums)
                    .pointer(scales)
                    .pointer(done)
                    .pointer(context.arrivals().address(1))
                    .int32(at.tokens)
                    .int32(config.numExperts())
                    .float64(bounds.tolerance())
                    .run(chunks);
        }
        CudaKernel choosing = sinkhorn.kernel("route_sinkhorn_choose");
        context.launch()
                .of(choosing)
                .pointer(at.logits)
                .pointer(at.tokenTypes)
                .pointer(powers)
                .pointer(scales)
                .pointer(at.ids)
                .pointer(at.weights)
                .int32(at.tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(choosing.blocks(at.tokens));
    }

    private void assign(Addresses at, RouterConfig config, Selection.BalancedAssignment auction) {
        long experts = config.numExperts();
        long keeping = at.tokens + experts;
        long bids =
                context.scratch()
                        .address(
                                8 * (at.tokens + keeping + experts)
                                        + 4 * (keeping + experts + 2L * at.tokens));
        long keptBids = bids + 8L * at.tokens;
        long prices = keptBids + 8 * keeping;
        long keptTokens = prices + 8 * experts;
        long counts = keptTokens + 4 * keeping;
        long waiting = counts + 4 * experts;
        long losing = waiting + 4L * at.tokens;
        CudaKernel auctioning = balanced.kernel("route_balanced_auction");
        context.launch()
                .of(auctioning)
                .pointer(at.logits)
                .pointer(at.tokenTypes)
                .pointer(at.ids)
                .pointer(bids)
                .pointer(keptBids)
                .pointer(keptTokens)
                .pointer(prices)
                .pointer(counts)
                .pointer(waiting)
                .pointer(losing)
                .int32(at.tokens)
                .float64(auction.epsilon())
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(1);
        CudaKernel weighing = balanced.kernel("route_balanced_weigh");
        context.launch()
                .of(weighing)
                .pointer(at.logits)
                .pointer(at.ids)
                .pointer(at.weights)
                .int32(at.tokens)
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(weighing.blocks(at.tokens));
    }
}
