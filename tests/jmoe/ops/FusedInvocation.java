package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.ops.Invocation.Memory;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The operations that stand for several others, with a name for each of their arguments. Tokens,
 * weights and rows have one type, the case's first, because few kernels mix them. What belongs to
 * the shared expert is in the case's memory, but is not named.
 */
final class FusedInvocation {
    private FusedInvocation() {}

    static Invocation routeSort(Case c, Memory memory) {
        RouterConfig rule = rule(c);
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("logits", normal(memory, DType.F32, c.seed() + 1, c.tokens(), c.numExperts()));
        in.put("selectionBias", normal(memory, DType.F32, c.seed() + 2, c.numExperts()));
        in.put("tokenTypes", types(c, memory));
        return new Invocation(
                "routeSort",
                in,
                routing(c, memory),
                (kernels, a) ->
                        kernels.routeSort(
                                a.get("logits"),
                                rule,
                                new RouteInputs(a.get("selectionBias"), a.get("tokenTypes")),
                                Invocation.routing(c, a)));
    }

    static Invocation router(Case c, Memory memory) {
        RouterConfig rule = rule(c);
        DType type = c.dtype(0);
        Routing dense = dense(c, memory);
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, type, c.seed() + 3, c.tokens(), c.hidden()));
        in.put("weight", normal(memory, type, c.seed() + 4, 1, c.numExperts(), c.hidden()));
        in.put("bias", normal(memory, DType.F32, c.seed() + 5, 1, c.numExperts()));
        in.put("selectionBias", normal(memory, DType.F32, c.seed() + 2, c.numExperts()));
        in.put("tokenTypes", types(c, memory));
        in.put("sharedGate", normal(memory, type, c.seed() + 6, 1, 1, c.hidden()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("logits", memory.allocate(DType.F32, c.tokens(), c.numExperts()));
        out.putAll(routing(c, memory));
        return new Invocation(
                "router", in, out, (kernels, a) -> router(c, rule, dense, kernels, a));
    }

    /** With scratch of the right size, whatever else is wrong. */
    private static void router(
            Case c, RouterConfig rule, Routing dense, Kernels kernels, Map<String, Tensor> a) {
        RouterWeights weights =
                new RouterWeights(a.get("weight"), a.get("bias"), a.get("selectionBias"));
        Router router = new Router(rule, weights, a.get("sharedGate"));
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

    static Invocation experts(Case c, Memory memory) {
        DType type = c.dtype(0);
        int e = c.numExperts();
        int columns = 2 * c.intermediate();
        int shared = c.intermediate() + 1;
        ExpertWeights ofShared =
                new ExpertWeights(
                        normal(memory, type, c.seed() + 20, 1, 2L * shared, c.hidden()),
                        normal(memory, type, c.seed() + 21, 1, c.hidden(), shared),
                        normal(memory, DType.F32, c.seed() + 22, 1, 2L * shared),
                        normal(memory, DType.F32, c.seed() + 23, 1, c.hidden()),
                        Activation.SWIGLU);
        Routing dense = dense(c, memory);
        Cases.weights(dense.topkWeights(), c.seed() + 24);
        Bank sharedBank = new Bank(ofShared, dense, null, dense.topkWeights());
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, type, c.seed() + 11, c.tokens(), c.hidden()));
        in.put("gateUp", normal(memory, type, c.seed() + 12, e, columns, c.hidden()));
        in.put("down", normal(memory, type, c.seed() + 13, e, c.hidden(), c.intermediate()));
        in.put("gateUpBias", normal(memory, DType.F32, c.seed() + 14, e, columns));
        in.put("downBias", normal(memory, DType.F32, c.seed() + 15, e, c.hidden()));
        in.putAll(Invocation.maps(c, memory, "expertOffsets", "rowToSlot", "slotToRow", "topkIds"));
        in.put("weights", Cases.weights(memory.allocate(DType.F32, c.tokens(), c.topK()), 16));
        in.put("addend", normal(memory, c.dtype(1), c.seed() + 17, c.tokens(), c.hidden()));
        in.put("identity", normal(memory, c.dtype(2), c.seed() + 18, c.tokens(), c.hidden()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(c.dtype(2), c.tokens(), c.hidden()));
        return new Invocation(
                "experts", in, out, (kernels, a) -> experts(c, sharedBank, kernels, a));
    }

    /** With scratch of the right size, whatever else is wrong. */
    private static void experts(Case c, Bank shared, Kernels kernels, Map<String, Tensor> a) {
        ExpertWeights experts =
                new ExpertWeights(
                        a.get("gateUp"),
                        a.get("down"),
                        a.get("gateUpBias"),
                        a.get("downBias"),
                        Activation.SWIGLU);
        Bank routed = new Bank(experts, Invocation.routing(c, a), null, a.get("weights"));
        Residual residual =
                new Residual(a.get("addend"), a.get("identity"), c.numExperts() - 1, 0.5);
        DType rowType = c.dtype(0);
        try (Arena arena = Arena.ofConfined()) {
            long elements = kernels.expertsScratch(rowType, routed, shared);
            Tensor scratch = Poisoned.allocate(arena, DType.F32, elements).tensor();
            kernels.experts(a.get("x"), routed, shared, residual, rowType, scratch, a.get("y"));
        }
    }

    private static RouterConfig rule(Case c) {
        return new RouterConfig(
                c.numExperts(),
                c.topK(),
                Score.SIGMOID,
                new Selection.TopK(),
                new Normalisation.Sum(1e-20),
                2.5,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    /** Every fourth token is absent. */
    private static Tensor types(Case c, Memory memory) {
        Tensor types = memory.allocate(DType.I32, c.tokens());
        for (int t = 0; t < c.tokens(); t++) {
            types.setInt(t, t % 4 == 3 ? -1 : 0);
        }
        return types;
    }

    /** Every token in its own row of one expert. */
    private static Routing dense(Case c, Memory memory) {
        Routing dense = Routing.allocate(memory::allocate, c.tokens(), 1, 1);
        for (int t = 0; t < c.tokens(); t++) {
            dense.topkIds().setInt(t, 0);
        }
        Cases.sort(dense);
        return dense;
    }

    private static Map<String, Tensor> routing(Case c, Memory memory) {
        return Invocation.named(
                Routing.allocate(memory::allocate, c.tokens(), c.topK(), c.numExperts()));
    }

    private static Tensor normal(Memory memory, DType dtype, long seed, long... shape) {
        return Cases.normal(memory.allocate(dtype, shape), seed);
    }
}
