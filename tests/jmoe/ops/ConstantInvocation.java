package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.ops.Invocation.Memory;
import jmoe.ops.Kernels.Residual;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.util.LinkedHashMap;
import java.util.Map;

/** {@link Kernels#constantExperts} with a name for each of its arguments. */
final class ConstantInvocation {
    private ConstantInvocation() {}

    static Invocation constantExperts(Case c, Memory memory) {
        int constants = 2;
        int first = Math.max(0, c.numExperts() - constants);
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 3, c.tokens(), c.hidden()));
        in.putAll(Invocation.maps(c, memory, "topkIds"));
        Tensor weights = memory.allocate(DType.F32, c.tokens(), c.topK());
        in.put("topkWeights", Cases.weights(weights, 4));
        in.put("mixing", normal(memory, DType.F32, c.seed() + 5, constants, 2, c.hidden()));
        in.put("vectors", normal(memory, DType.F32, c.seed() + 6, constants, c.hidden()));
        in.put("addend", normal(memory, c.dtype(1), c.seed() + 7, c.tokens(), c.hidden()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(c.dtype(2), c.tokens(), c.hidden()));
        return new Invocation(
                "constantExperts",
                in,
                out,
                (kernels, a) ->
                        kernels.constantExperts(
                                a.get("x"),
                                Invocation.routing(c, a),
                                new ConstantExperts(a.get("mixing"), a.get("vectors")),
                                first,
                                new Residual(a.get("addend"), null, Integer.MAX_VALUE, 0.5),
                                a.get("y")));
    }

    private static Tensor normal(Memory memory, DType dtype, long seed, long... shape) {
        return Cases.normal(memory.allocate(dtype, shape), seed);
    }
}
