package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Logits;
import jmoe.ops.Invocation.Memory;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.LinkedHashMap;
import java.util.Map;

/** {@link Kernels#route} by rules that leave slots empty, with the tensors that only they read. */
final class RouteInvocation {
    private RouteInvocation() {}

    static Invocation rare(Case c, Memory memory) {
        RouterConfig config = config(c, new Selection.EntropyK(1.5, 1));
        Map<String, Tensor> in = new LinkedHashMap<>();
        Tensor logits = memory.allocate(DType.F32, c.tokens(), c.numExperts());
        in.put("logits", Cases.logits(logits, Logits.NORMAL, c.seed() + 1));
        in.put("selectionBias", ofExperts(c, memory, 2));
        in.put("expertScale", ofExperts(c, memory, 3));
        Tensor active = memory.allocate(DType.I32, c.numExperts());
        for (int e = 0; e < c.numExperts(); e++) {
            active.setInt(e, e % 4 == 3 ? 0 : 1);
        }
        in.put("activeExperts", active);
        return new Invocation(
                "route",
                in,
                outputs(c, memory),
                (kernels, a) ->
                        kernels.route(
                                a.get("logits"),
                                config,
                                RouteInputs.NONE
                                        .withSelectionBias(a.get("selectionBias"))
                                        .withExpertScale(a.get("expertScale"))
                                        .withActiveExperts(a.get("activeExperts")),
                                Invocation.routing(c, a)));
    }

    static Invocation hash(Case c, Memory memory) {
        RouterConfig config = config(c, new Selection.Hash());
        Map<String, Tensor> in = new LinkedHashMap<>();
        Tensor ids = memory.allocate(DType.I32, c.tokens());
        for (int t = 0; t < c.tokens(); t++) {
            ids.setInt(t, 31 * t - 40);
        }
        in.put("tokenIds", ids);
        in.put("expertScale", ofExperts(c, memory, 3));
        Tensor noLogits = Tensor.allocate(Arena.ofAuto(), DType.F32, c.tokens(), 0);
        return new Invocation(
                "route",
                in,
                outputs(c, memory),
                (kernels, a) ->
                        kernels.route(
                                noLogits,
                                config,
                                RouteInputs.NONE
                                        .withTokenIds(a.get("tokenIds"), null)
                                        .withExpertScale(a.get("expertScale")),
                                Invocation.routing(c, a)));
    }

    private static RouterConfig config(Case c, Selection selection) {
        return new RouterConfig(
                c.numExperts(),
                c.topK(),
                Score.SQRT_SOFTPLUS,
                selection,
                new Normalisation.Sum(0),
                1,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    private static Tensor ofExperts(Case c, Memory memory, int number) {
        return Cases.normal(memory.allocate(DType.F32, c.numExperts()), c.seed() + number);
    }

    private static Map<String, Tensor> outputs(Case c, Memory memory) {
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("topkIds", memory.allocate(DType.I32, c.tokens(), c.topK()));
        out.put("topkWeights", memory.allocate(DType.F32, c.tokens(), c.topK()));
        return out;
    }
}
