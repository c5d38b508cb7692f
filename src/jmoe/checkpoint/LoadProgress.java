package jmoe.checkpoint;

/** Told how far {@link Checkpoint#load} is. */
@FunctionalInterface
public interface LoadProgress {
    /** Tells nobody. */
    LoadProgress NONE = (bytes, totalBytes) -> {};

    /**
     * Called on the loading thread after each matrix.
     *
     * @param bytes bytes of the loaded weights that are in place, rising
     * @param totalBytes bytes of all weights of the layer as loaded
     */
    void loaded(long bytes, long totalBytes);
}
