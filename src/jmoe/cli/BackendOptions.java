package jmoe.cli;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Option;

/** The options of every command that computes. */
final class BackendOptions {
    @Option(
            names = "--backend",
            paramLabel = "NAME",
            defaultValue = OpenBackend.AUTO,
            description = "auto (default), reference, vector, native or cuda.")
    private String name;

    @Option(
            names = "--threads",
            paramLabel = "N",
            description = "Worker threads of a CPU backend; default: one per core.")
    private @Nullable Integer threads;

    /** Starts what was asked for. */
    OpenBackend open() {
        WholeNumber.THREADS.check(threads);
        return OpenBackend.start(name, threads);
    }
}
