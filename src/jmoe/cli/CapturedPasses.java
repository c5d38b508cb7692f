package jmoe.cli;

import jmoe.CapturedLayer;
import jmoe.MoeLayer;
import jmoe.ops.Kernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Passes over different batches of one size, each captured with memory of its own. Replaying them
 * one after the other keeps a device busy, and finds neither rows nor the weights of rare experts
 * in its cache.
 */
final class CapturedPasses implements AutoCloseable {
    private static final int MAX_BATCHES = 8;
    private static final int MIN_BATCHES = 2;

    /** Batches of so many tokens and more ask for all experts anyway. */
    private static final int ROTATED_TOKENS = 256;

    private final Kernels kernels;
    private final int tokens;
    private final List<CapturedLayer> passes = new ArrayList<>();

    /**
     * Captures nothing yet.
     *
     * @param kernels of the layer
     * @param tokens of a batch
     */
    CapturedPasses(Kernels kernels, int tokens) {
        this.kernels = kernels;
        this.tokens = tokens;
    }

    /** How many different batches there should be. */
    static int batches(int tokens) {
        return Math.clamp(ROTATED_TOKENS / tokens, MIN_BATCHES, MAX_BATCHES);
    }

    /** Captures the pass over one more batch; its type is that of the input. */
    void add(MoeLayer layer, Tensor x, @Nullable Tensor tokenTypes) {
        DType type = x.dtype();
        CapturedLayer pass = layer.capture(tokens, type, type);
        passes.add(pass);
        kernels.copy(x, pass.x());
        if (tokenTypes != null) {
            kernels.copy(tokenTypes, pass.tokenTypes());
        }
    }

    int count() {
        return passes.size();
    }

    /**
     * Replays all of them, so often that the host, which the device waits for at first only, does
     * not show.
     *
     * @param turns of each
     * @return what one replay took
     */
    double nanos(int turns) {
        return kernels.nanos(() -> replay(turns)) / (turns * passes.size());
    }

    /**
     * Launches all of them while the device has little else to do, so that the host waits for
     * nothing.
     *
     * @param turns of each
     * @return what the host took for one, median
     */
    double hostNanos(int turns) {
        long[] samples = new long[turns * passes.size()];
        int count = 0;
        for (int turn = 0; turn < turns; turn++) {
            kernels.synchronise();
            for (CapturedLayer pass : passes) {
                long start = System.nanoTime();
                pass.replay(tokens);
                samples[count++] = System.nanoTime() - start;
            }
        }
        kernels.synchronise();
        Arrays.sort(samples);
        return samples[count / 2];
    }

    /** How many tokens each expert had in the last replays, one tensor for each pass. */
    List<Tensor> tokensPerExpert() {
        List<Tensor> loads = new ArrayList<>();
        for (CapturedLayer pass : passes) {
            loads.add(pass.workspace().tokensPerExpert());
        }
        return loads;
    }

    private void replay(int turns) {
        for (int turn = 0; turn < turns; turn++) {
            for (CapturedLayer pass : passes) {
                pass.replay(tokens);
            }
        }
    }

    @Override
    public void close() {
        passes.forEach(CapturedLayer::close);
    }
}
