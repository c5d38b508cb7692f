package jmoe.ops;

/** What a piece of {@link KernelsContract} knows about the backend under test. */
interface Contract {
    /** The backend, open as long as the test class runs. */
    Kernels backend();

    /** One more instance, to be closed by the test. */
    Kernels another();

    /** Whether F64 arguments are computed with; otherwise they are unsupported. */
    boolean computesDouble();

    /** Whether weights may be I8 with a scale; otherwise they are unsupported. */
    boolean computesQuantised();

    /** Whether tensors on a device are a caller's mistake. */
    boolean computesOnHost();

    /** Whether a closed instance refuses calls; one without threads or memory need not. */
    boolean refusesCallsAfterClose();

    /** Whether to work through 2^31 elements: not where that takes minutes, or was done already. */
    boolean worksThroughGigabytes();
}
