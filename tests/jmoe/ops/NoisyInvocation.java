package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.ops.Invocation.Memory;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What shapes logits, with a name for each of the arguments. */
final class NoisyInvocation {
    /** Any number, poison too, becomes an ordinary one and then part of a sum. */
    private static final List<LogitTransform> TRANSFORMS =
            List.of(
                    new LogitTransform.Cap(3),
                    new LogitTransform.LearnedNoise(8),
                    new LogitTransform.Standardise(1),
                    new LogitTransform.GumbelNoise(9, 0.5));

    private NoisyInvocation() {}

    static Invocation shapeLogits(Case c, Memory memory) {
        RouterConfig rule = rule(c);
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("tokenTypes", types(c, memory));
        in.put("noiseLogits", normal(memory, DType.F32, c.seed(), c.tokens(), c.numExperts()));
        in.put("step", step(memory));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("logits", memory.allocate(DType.F32, c.tokens(), c.numExperts()));
        return new Invocation(
                "shapeLogits",
                in,
                out,
                (kernels, a) ->
                        kernels.shapeLogits(
                                a.get("logits"),
                                rule,
                                new ShapeInputs(
                                        a.get("tokenTypes"), a.get("noiseLogits"), a.get("step"))));
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
        in.put("weight", normal(memory, type, c.seed() + 4, 1, c.numExperts(), c.hidden()));
        in.put("noiseWeight", normal(memory, type, c.seed() + 5, 1, c.numExperts(), c.hidden()));
        in.put("noiseStep", step(memory));
        in.put("tokenTypes", types(c, memory));
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
                new RouterWeights(a.get("weight"), null, null, null, a.get("noiseWeight"));
        Router router = new Router(rule(c), weights, null, a.get("noiseStep"));
        try (Arena arena = Arena.ofConfined()) {
            long elements = kernels.routerScratch(a.get("x").dtype(), router, c.tokens());
            kernels.router(
                    a.get("x"),
                    router,
                    TokenInputs.ofTypes(a.get("tokenTypes")),
                    dense,
                    Poisoned.allocate(arena, DType.F32, elements).tensor(),
                    a.get("logits"),
                    Invocation.routing(c, a));
        }
    }

    private static RouterConfig rule(Case c) {
        return RouterConfig.softmaxTopK(c.numExperts(), c.topK(), true)
                .withLogitTransforms(TRANSFORMS);
    }

    /** Every fourth token is absent. */
    private static Tensor types(Case c, Memory memory) {
        Tensor types = memory.allocate(DType.I32, c.tokens());
        for (int t = 0; t < c.tokens(); t++) {
            types.setInt(t, t % 4 == 3 ? -1 : 0);
        }
        return types;
    }

    private static Tensor step(Memory memory) {
        Tensor step = memory.allocate(DType.I32, 1);
        step.setInt(0, 3);
        return step;
    }

    private static Tensor normal(Memory memory, DType dtype, long seed, long... shape) {
        return Cases.normal(memory.allocate(dtype, shape), seed);
    }
}
