package jmoe.vector;

import jmoe.ops.InputTransform;
import jmoe.ops.Jittering;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

/** {@code y[t,h] = f x[t,h]}: the loops of all hosts, tokens in parallel. */
final class Jitter {
    /** Elements that are worth handing to another thread. */
    private static final long GRAIN_ELEMENTS = 2048;

    private final Workers workers;

    Jitter(Workers workers) {
        this.workers = workers;
    }

    void jitter(Tensor x, InputTransform.Jitter jitter, @Nullable Tensor step, Tensor y) {
        Jittering[] jitterings = new Jittering[workers.count()];
        workers.run(
                x.dim(0),
                Math.max(1, GRAIN_ELEMENTS / Math.max(1, x.dim(1))),
                (worker, from, to) -> {
                    Jittering own = jitterings[worker];
                    if (own == null) {
                        own = new Jittering(x, jitter, step, y, workers::view);
                        jitterings[worker] = own;
                    }
                    own.jitter(from, to);
                });
    }
}
