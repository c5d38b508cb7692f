package jmoe.cuda;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/** The two operations of several kernels, at sizes where each of these kernels is needed. */
final class ScratchUsers {
    private static final int TOKENS = 3000;
    private static final int EXPERTS = 3;
    private static final int TOP_K = 3;

    private static final RouterConfig RANKED =
            new RouterConfig(
                    EXPERTS,
                    TOP_K,
                    RouterConfig.Score.SOFTMAX,
                    new Selection.TopK(),
                    new RouterConfig.Normalisation.Sum(0),
                    1,
                    false,
                    new Capacity(new CapacityLimit.Fraction(0.3), Priority.PROBABILITY, true),
                    RouterConfig.ALL_TOKENS);

    private final CudaKernels kernels;
    private final Tensor logits;
    private final Routing routing;

    ScratchUsers(CudaKernels kernels, Arena arena) {
        this.kernels = kernels;
        Tensor host = Tensor.allocate(arena, DType.F32, TOKENS, EXPERTS);
        for (long i = 0; i < host.numElements(); i++) {
            host.setDouble(i, Math.sin(i));
        }
        logits = kernels.upload(arena, host);
        routing =
                Routing.allocate(
                        (dtype, shape) -> kernels.allocate(arena, dtype, shape),
                        TOKENS,
                        TOP_K,
                        EXPERTS);
    }

    void run() {
        kernels.route(logits, RANKED, RouteInputs.NONE, routing);
        kernels.sortByExpert(routing);
    }
}
