package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.ops.Invocation.Memory;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.util.LinkedHashMap;
import java.util.Map;

/** The operations of Soft-MoE with a name for each of their arguments; experts are slots. */
final class SoftInvocation {
    private SoftInvocation() {}

    static Invocation normaliseRows(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 3, c.tokens(), c.hidden()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(c.dtype(1), c.tokens(), c.hidden()));
        return new Invocation(
                "normaliseRows",
                in,
                out,
                (kernels, a) -> kernels.normaliseRows(a.get("x"), 2, 1e-6, a.get("y")));
    }

    static Invocation softDispatch(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 3, c.tokens(), c.hidden()));
        in.put("logits", normal(memory, DType.F32, c.seed() + 4, c.tokens(), c.numExperts()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("rows", memory.allocate(c.dtype(1), c.numExperts(), c.hidden()));
        return new Invocation(
                "softDispatch",
                in,
                out,
                (kernels, a) -> kernels.softDispatch(a.get("x"), a.get("logits"), a.get("rows")));
    }

    static Invocation softCombine(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("rows", normal(memory, c.dtype(0), c.seed() + 3, c.numExperts(), c.hidden()));
        in.put("logits", normal(memory, DType.F32, c.seed() + 4, c.tokens(), c.numExperts()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(c.dtype(1), c.tokens(), c.hidden()));
        return new Invocation(
                "softCombine",
                in,
                out,
                (kernels, a) -> kernels.softCombine(a.get("rows"), a.get("logits"), a.get("y")));
    }

    private static Tensor normal(Memory memory, DType dtype, long seed, long... shape) {
        return Cases.normal(memory.allocate(dtype, shape), seed);
    }
}
