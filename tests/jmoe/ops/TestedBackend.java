package jmoe.ops;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.TestInstance;

/** A backend that is open as long as its test class runs, and what is usual of one. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class TestedBackend implements Contract {
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
        if (backend != null) {
            backend.close();
        }
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
    public boolean computesQuantised() {
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
    public boolean worksThroughGigabytes() {
        return true;
    }
}
