package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.ops.Invocation.Memory;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.util.LinkedHashMap;
import java.util.Map;

/** {@link Kernels#singletonExperts} with a name for each of its arguments. */
final class SingletonInvocation {
    private SingletonInvocation() {}

    static Invocation singletonExperts(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 3, c.tokens(), c.hidden()));
        in.putAll(Invocation.maps(c, memory, "topkIds"));
        in.put("weights", Cases.weights(memory.allocate(DType.F32, c.tokens(), c.topK()), 4));
        in.put("up", normal(memory, c.dtype(1), c.seed() + 5, c.numExperts(), c.hidden()));
        in.put("down", normal(memory, c.dtype(1), c.seed() + 6, c.numExperts(), c.hidden()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(c.dtype(2), c.tokens(), c.hidden()));
        return new Invocation(
                "singletonExperts",
                in,
                out,
                (kernels, a) ->
                        kernels.singletonExperts(
                                a.get("x"),
                                a.get("topkIds"),
                                a.get("weights"),
                                new SingletonExperts(
                                        a.get("up"),
                                        a.get("down"),
                                        Activation.of(Activation.Kind.GELU)),
                                a.get("y")));
    }

    private static Tensor normal(Memory memory, DType dtype, long seed, long... shape) {
        return Cases.normal(memory.allocate(dtype, shape), seed);
    }
}
