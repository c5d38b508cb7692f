package jmoe.ops;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.TestInstance;

/**
 * What every backend must do; one part per operation and one for rules they share. A backend is
 * tested by a subclass in its own package:
 *
 * <pre>
 * final class VectorKernelsTest extends KernelsContract {
 *     &#64;Override
 *     protected Kernels kernels() {
 *         return new VectorKernels();
 *     }
 * }
 * </pre>
 *
 * <p>All tensors are in host memory. A device backend is tested through kernels that copy arguments
 * to the device and outputs back. Tests with the tag {@code large} have more than 2^31 elements,
 * those with the tag {@code broad} go through hundreds of combinations in one test.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
public abstract class KernelsContract
        implements RouteContract,
                RouteRulesContract,
                SortByExpertContract,
                PermuteContract,
                GroupedGemmContract,
                GateUpSwigluContract,
                RouterContract,
                ExpertsContract,
                PrepareContract,
                MemoryContract,
                SwigluContract,
                UnpermuteContract,
                ArgumentsContract,
                DeterminismContract,
                HazardsContract,
                LargeContract {
    private Kernels backend;

    /**
     * Opens a backend.
     *
     * @return a new instance; the contract closes it
     */
    protected abstract Kernels kernels();

    @BeforeAll
    final void openBackend() {
        backend = kernels();
    }

    @AfterAll
    final void closeBackend() {
        backend.close();
    }

    @Override
    public final Kernels backend() {
        return backend;
    }

    @Override
    public final Kernels another() {
        return kernels();
    }

    @Override
    public boolean computesDouble() {
        return false;
    }

    @Override
    public boolean computesOnHost() {
        return true;
    }

    @Override
    public boolean refusesCallsAfterClose() {
        return true;
    }

    @Override
    public boolean isFast() {
        return true;
    }
}
