package jmoe.cli;

import jmoe.ops.Activation;
import jmoe.ops.MoeConfig;
import jmoe.ops.SizeClass;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

/**
 * What a pass must do: the products' operations, and the weights it cannot do without.
 *
 * @param flops of all matrix products
 * @param bytes weights of the experts that had rows, of the shared expert and the router
 * @param experts that had rows
 */
record Work(long flops, long bytes, int experts) {
    static Work of(MoeConfig config, DType type, long tokens, Tensor tokensPerExpert) {
        int matrices = matrices(config.activation());
        long hidden = config.hidden();
        long flops = 0;
        long elements = 0;
        int used = 0;
        for (int tokenType = 0; tokenType < config.numTokenTypes(); tokenType++) {
            int expert = tokenType * config.numExperts();
            for (SizeClass size : config.sizeClasses(tokenType)) {
                long expertElements = matrices * hidden * size.intermediate();
                for (int i = 0; i < size.numExperts(); i++) {
                    int rows = tokensPerExpert.getInt(expert);
                    flops += 2L * rows * expertElements;
                    elements += rows > 0 ? expertElements : 0;
                    used += rows > 0 ? 1 : 0;
                    expert++;
                }
            }
        }
        long shared = matrices * hidden * config.sharedIntermediate();
        long router = hidden * config.numExperts() * config.numTokenTypes();
        return new Work(
                flops + 2 * tokens * (shared + router),
                type.numBytes(elements + shared + router),
                used);
    }

    /** The same before a pass: as many rows as tokens ask for. */
    static long flops(MoeConfig config, long tokens) {
        long matrices = matrices(config.activation());
        long width = 0;
        for (SizeClass size : config.sizeClasses(0)) {
            width += (long) size.numExperts() * size.intermediate();
        }
        // Of experts that differ in size, as many as have the mean one.
        width = config.topK() * width / Math.max(1, config.numExperts());
        return 2
                * tokens
                * config.hidden()
                * (matrices * (width + config.sharedIntermediate()) + config.numExperts());
    }

    private static int matrices(Activation activation) {
        return activation.gated() ? 3 : 2;
    }
}
