package jmoe.ops;

/** Operations that were captured once, to be run any number of times. */
@FunctionalInterface
public interface Replay extends AutoCloseable {
    /**
     * Runs the operations on what their tensors hold then, behind those called before. Tensors,
     * sizes and rules are those of the capture.
     */
    void run();

    /** Forgets the operations; safe to call twice. */
    @Override
    default void close() {}
}
