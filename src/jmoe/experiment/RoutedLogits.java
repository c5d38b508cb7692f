package jmoe.experiment;

import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.train.ExpertLoad;
import jmoe.train.RouterBatch;

import java.lang.foreign.Arena;
import java.util.Random;

/** Logits of a batch, and what rules make of them. */
final class RoutedLogits implements AutoCloseable {
    private final Arena arena = Arena.ofShared();
    private final Kernels kernels;
    private final Tensor logits;
    private final Tensor placed;

    /**
     * Normal logits.
     *
     * @param deviation of a token's logits
     * @param skew deviation of what all logits of an expert have in common: why routers are uneven
     */
    RoutedLogits(Kernels kernels, int tokens, int experts, double deviation, double skew) {
        this.kernels = kernels;
        Random random = new Random(11);
        double[] common = new double[experts];
        for (int expert = 0; expert < experts; expert++) {
            common[expert] = skew * random.nextGaussian();
        }
        logits = Tensor.allocate(arena, DType.F32, tokens, experts);
        for (long i = 0; i < logits.numElements(); i++) {
            double own = deviation * random.nextGaussian();
            logits.setDouble(i, common[(int) (i % experts)] + own);
        }
        placed = Numbers.placed(kernels, arena, logits);
    }

    /** What a rule decides, on the host. */
    RouterBatch route(RouterConfig rule) {
        long tokens = logits.dim(0);
        Routing routing =
                Routing.allocate(
                        (dtype, shape) -> kernels.allocate(arena, dtype, shape),
                        tokens,
                        rule.topK(),
                        rule.numExperts());
        kernels.route(placed, rule, RouteInputs.NONE, routing);
        Routing host = Routing.allocate(arena, tokens, rule.topK(), rule.numExperts());
        kernels.copy(routing.topkIds(), host.topkIds());
        kernels.copy(routing.topkWeights(), host.topkWeights());
        return new RouterBatch(logits, rule, host);
    }

    /** Share of the slots that a rule drops. */
    double dropRate(RouterConfig rule) {
        return ExpertLoad.of(route(rule)).dropRate();
    }

    @Override
    public void close() {
        arena.close();
    }
}
