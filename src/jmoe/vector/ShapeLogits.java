package jmoe.vector;

import jmoe.ops.LogitShaping;
import jmoe.ops.RouterConfig;
import jmoe.ops.ShapeInputs;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

/** {@code logits[t] = f_n(.. f_1(logits[t]))}: the loops of all hosts, tokens in parallel. */
final class ShapeLogits {
    /** Logits that are worth handing to another thread. */
    private static final int GRAIN_LOGITS = 512;

    private final Workers workers;

    ShapeLogits(Workers workers) {
        this.workers = workers;
    }

    void shape(Tensor logits, RouterConfig config, ShapeInputs inputs) {
        LogitShaping[] shapings = new LogitShaping[workers.count()];
        workers.run(
                logits.dim(0),
                Math.max(1, GRAIN_LOGITS / Math.max(1, config.numLogits())),
                (worker, from, to) -> {
                    LogitShaping own = shapings[worker];
                    if (own == null) {
                        own = new LogitShaping(logits, config, inputs, workers::view);
                        shapings[worker] = own;
                    }
                    own.shape(from, to);
                });
    }
}
