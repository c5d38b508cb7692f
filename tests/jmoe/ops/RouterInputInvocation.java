package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.ops.Invocation.Memory;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What transforms a router's input, with a name for each of the arguments. */
final class RouterInputInvocation {
    private static final InputTransform.Jitter JITTER = new InputTransform.Jitter(8, 0.25);

    /** Inputs of the router's weight behind the projection. */
    private static final int DIRECTIONS = 9;

    private RouterInputInvocation() {}

    static Invocation jitter(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 3, c.tokens(), c.hidden()));
        in.put("step", memory.allocate(DType.I32, 1));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(DType.F32, c.tokens(), c.hidden()));
        return new Invocation(
                "jitter",
                in,
                out,
                (kernels, a) -> kernels.jitter(a.get("x"), JITTER, a.get("step"), a.get("y")));
    }

    static Invocation router(Case c, Memory memory) {
        DType type = c.dtype(0);
        Routing dense = Routing.allocate(memory::allocate, c.tokens(), 1, 1);
        for (int t = 0; t < c.tokens(); t++) {
            dense.topkIds().setInt(t, 0);
        }
        Cases.sort(dense);
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, type, c.seed() + 3, c.tokens(), c.hidden()));
        in.put("weight", normal(memory, type, c.seed() + 4, 1, c.numExperts(), DIRECTIONS));
        in.put("projection", normal(memory, type, c.seed() + 5, 1, DIRECTIONS, c.hidden()));
        in.put("noiseStep", memory.allocate(DType.I32, 1));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("logits", memory.allocate(DType.F32, c.tokens(), c.numExperts()));
        out.putAll(
                Invocation.named(
                        Routing.allocate(memory::allocate, c.tokens(), c.topK(), c.numExperts())));
        return new Invocation("router", in, out, (kernels, a) -> router(c, dense, kernels, a));
    }

    /** With scratch of the right size, whatever else is wrong. */
    private static void router(Case c, Routing dense, Kernels kernels, Map<String, Tensor> a) {
        RouterWeights weights =
                new RouterWeights(
                        a.get("weight"), null, null, null, null, a.get("projection"), null);
        RouterConfig rule =
                RouterConfig.softmaxTopK(c.numExperts(), c.topK(), true)
                        .withInputTransforms(List.of(JITTER, new InputTransform.Cosine(1e-6)));
        Router router = new Router(rule, weights, null, a.get("noiseStep"));
        try (Arena arena = Arena.ofConfined()) {
            long elements = kernels.routerScratch(a.get("x").dtype(), router, c.tokens());
            kernels.router(
                    a.get("x"),
                    router,
                    TokenInputs.NONE,
                    dense,
                    Poisoned.allocate(arena, DType.F32, elements).tensor(),
                    a.get("logits"),
                    Invocation.routing(c, a));
        }
    }

    private static Tensor normal(Memory memory, DType dtype, long seed, long... shape) {
        return Cases.normal(memory.allocate(dtype, shape), seed);
    }
}
