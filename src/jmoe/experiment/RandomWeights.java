package jmoe.experiment;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** SwiGLU layers without a shared expert, of normal numbers that keep the size of the input. */
final class RandomWeights {
    private RandomWeights() {}

    static MoeConfig config(int hidden, List<Integer> intermediates, List<RouterConfig> routers) {
        return new MoeConfig(
                "experiment",
                hidden,
                hidden,
                routers.getFirst().numExperts(),
                0,
                Activation.SWIGLU,
                routers,
                intermediates,
                0,
                false,
                1);
    }

    static MoeWeights of(MoeConfig config, Kernels kernels, Arena arena, long seed) {
        int hidden = config.hidden();
        int experts = config.numExperts();
        double deviation = 1 / Math.sqrt(hidden);
        List<RouterWeights> routers = new ArrayList<>();
        List<ExpertWeights> banks = new ArrayList<>();
        for (int type = 0; type < config.numTokenTypes(); type++) {
            int width = config.intermediates().get(type);
            long first = seed + 10L * type;
            Tensor router = Numbers.normal(kernels, arena, first, deviation, 1, experts, hidden);
            routers.add(new RouterWeights(router, null, null));
            Tensor gateUp =
                    Numbers.normal(
                            kernels, arena, first + 1, deviation, experts, 2L * width, hidden);
            Tensor down =
                    Numbers.normal(kernels, arena, first + 2, deviation, experts, hidden, width);
            banks.add(new ExpertWeights(gateUp, down, null, null, Activation.SWIGLU));
        }
        return new MoeWeights(routers, banks, null, null, null, null, null);
    }
}
