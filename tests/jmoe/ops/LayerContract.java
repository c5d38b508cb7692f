package jmoe.ops;

/**
 * The part of {@link KernelsContract} that a layer calls, for backends that have more than one way
 * of computing it.
 */
public abstract class LayerContract extends TestedBackend
        implements RouterContract, ExpertsContract {}
