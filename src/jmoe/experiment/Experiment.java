package jmoe.experiment;

import jmoe.ops.Kernels;

/** Something to try, and the claim that it is about. */
public interface Experiment {
    /**
     * How users call it.
     *
     * @return words joined by hyphens
     */
    String name();

    /**
     * What is said to be true.
     *
     * @return one sentence, with its source
     */
    String claim();

    /**
     * Tries it.
     *
     * @param kernels what computes; stays open
     * @param effort how much of it
     * @return numbers, and what they say about the claim
     */
    Report run(Kernels kernels, Effort effort);
}
