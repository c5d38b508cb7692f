package jmoe;

import jmoe.ops.Kernels;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/** What a layer of its own kind holds where its backend computes, from construction to close. */
final class LayerMemory implements AutoCloseable {
    private final Kernels kernels;
    private final long maxTokens;
    private final long hidden;
    private final Arena arena = Arena.ofShared();

    LayerMemory(Kernels kernels, long maxTokens, long hidden) {
        this.kernels = kernels;
        this.maxTokens = maxTokens;
        this.hidden = hidden;
    }

    Arena arena() {
        return arena;
    }

    Tensor allocate(DType dtype, long... shape) {
        return kernels.allocate(arena, dtype, shape);
    }

    /** The tensor itself, or a copy on the device if that is where the other one is. */
    Tensor beside(Tensor other, Tensor tensor) {
        if (tensor.isDevice() || !other.isDevice()) {
            return tensor;
        }
        Tensor copy = allocate(tensor.dtype(), tensor.shape());
        kernels.copy(tensor, copy);
        return copy;
    }

    /** Writes multiples of a number, 0 first. */
    void setOffsets(Tensor offsets, long step) {
        for (int i = 0; i < offsets.numElements(); i++) {
            kernels.fill(offsets.slice(i, 1), Math.toIntExact(i * step));
        }
    }

    void requireOpen() {
        if (!arena.scope().isAlive()) {
            throw new IllegalStateException("layer: closed; make a new one");
        }
    }

    /** Checks the arguments of a forward pass; returns its tokens. */
    long tokens(Tensor x, Tensor y) {
        requireOpen();
        Check.floating("x", x, "[tokens, hidden]", 2);
        long tokens = x.dim(0);
        Check.floatMatrix("x", x, "tokens", tokens, "hidden", hidden);
        if (tokens > maxTokens) {
            throw new IllegalArgumentException(
                    "x: expected at most maxTokens="
                            + maxTokens
                            + " tokens, got "
                            + tokens
                            + "; make the layer for more");
        }
        Check.floatMatrix("y", y, "tokens", tokens, "hidden", hidden);
        Check.writable("y", y);
        Check.disjoint("y", y, "x", x);
        return tokens;
    }

    /** Checks how many tokens a layer is made for. */
    static void checkMaxTokens(long maxTokens, long slotsPerToken) {
        long most = Integer.MAX_VALUE / slotsPerToken;
        if (maxTokens < 0 || maxTokens > most) {
            throw new IllegalArgumentException(
                    "maxTokens: expected 0 to " + most + ", got " + maxTokens);
        }
    }

    /** May be called again. */
    @Override
    public void close() {
        if (arena.scope().isAlive()) {
            arena.close();
        }
    }
}
