package jmoe.cli;

import jmoe.Backend;
import jmoe.ops.Kernels;

import org.jspecify.annotations.Nullable;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A backend that a command started, and why it is this one.
 *
 * @param backend which one
 * @param kernels running; closed together with this
 * @param threads its worker threads
 * @param why one sentence
 */
record OpenBackend(Backend backend, Kernels kernels, int threads, String why)
        implements AutoCloseable {
    /** Lets {@link Backend#choice} decide. */
    static final String AUTO = "auto";

    /**
     * Starts a backend.
     *
     * @param name {@link #AUTO} or as {@link Backend#of} takes it
     * @param threads worker threads, or null for one per core
     * @throws IllegalArgumentException for an unknown name or threads that the backend cannot have
     * @throws UnsupportedOperationException if it cannot run here, with reason and remedy
     */
    static OpenBackend start(String name, @Nullable Integer threads) {
        WholeNumber.THREADS.check(threads);
        boolean auto = name.equals(AUTO);
        Backend backend = auto ? Backend.best() : backend(name);
        String why = auto ? Backend.choice().why() : "asked for with --backend " + name;
        if (threads != null && backend == Backend.CUDA) {
            throw new IllegalArgumentException(
                    "--threads: the backend cuda has no threads to choose; leave it out");
        }
        if (threads != null && threads > 1 && backend == Backend.REFERENCE) {
            throw new IllegalArgumentException(
                    "--threads: the backend reference has 1 thread, got "
                            + threads
                            + "; leave it out or take --backend vector");
        }
        int cores = Runtime.getRuntime().availableProcessors();
        boolean single = backend == Backend.REFERENCE || backend == Backend.CUDA;
        int count = single ? 1 : threads == null ? cores : threads;
        return new OpenBackend(backend, backend.open(count), count, why);
    }

    private static Backend backend(String name) {
        try {
            return Backend.of(name);
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException(
                    "--backend: expected auto, reference, vector, native or cuda, got " + name, e);
        }
    }

    /** Name and what it runs on. */
    String description() {
        return backend.description(threads);
    }

    /** For programs. */
    Map<String, Object> json() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", backend.id());
        json.put("description", description());
        json.put("why", why);
        json.put("threads", threads);
        return json;
    }

    @Override
    public void close() {
        kernels.close();
    }
}
