package jmoe.vector;

import jdk.incubator.vector.FloatVector;

import jmoe.ops.Activation;
import jmoe.tensor.Tensor;

/** {@code hidden[r] = activation(gateUp[r])}. */
final class Swiglu {
    private static final float ALPHA = (float) Activation.CLAMPED_SWIGLU_ALPHA;

    private final Workers workers;
    private final Chunks chunks;

    Swiglu(Workers workers, Chunks chunks) {
        this.workers = workers;
        this.chunks = chunks;
    }

    void apply(Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden) {
        Elements in = Elements.of(gateUp, workers);
        Elements out = Elements.of(hidden, workers);
        long columns = hidden.dim(1);
        long inColumns = gateUp.dim(1);
        long rows = expertOffsets.getInt(expertOffsets.numElements() - 1);
        boolean gated = activation.gated();
        chunks.run(
                rows,
                columns,
                (row, column, count, first, second) -> {
                    long element = row * inColumns + column;
                    if (gated) {
                        in.read(element, count, first, 0);
                        element += columns;
                    }
                    in.read(element, count, second, 0);
                    activate(activation, first, second, Lanes.padded(count));
                    out.write(second, 0, count, row * columns + column);
                });
    }

    /** Replaces each up by the result. */
    private static void activate(Activation activation, float[] gate, float[] up, int count) {
        switch (activation.kind()) {
            case SWIGLU -> swiglu(gate, up, count);
            case CLAMPED_SWIGLU -> clampedSwiglu(gate, up, count, activation.limit());
            case SILU -> silu(up, count);
            case RELU -> relu(up, count, false);
            case SQUARED_RELU -> relu(up, count, true);
        }
    }

    private static void swiglu(float[] gate, float[] up, int count) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector g = FloatVector.fromArray(Lanes.FLOATS, gate, i);
            FloatVector u = FloatVector.fromArray(Lanes.FLOATS, up, i);
            Exp.sigmoidTimes(g, g, u).intoArray(up, i);
        }
    }

    private static void clampedSwiglu(float[] gate, float[] up, int count, float limit) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector g = FloatVector.fromArray(Lanes.FLOATS, gate, i).min(limit);
            FloatVector u = FloatVector.fromArray(Lanes.FLOATS, up, i).min(limit).max(-limit);
            Exp.sigmoidTimes(g, g.mul(ALPHA), u.add(1)).intoArray(up, i);
        }
    }

    private static void silu(float[] up, int count) {
        FloatVector one = FloatVector.broadcast(Lanes.FLOATS, 1);
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector u = FloatVector.fromArray(Lanes.FLOATS, up, i);
            Exp.sigmoidTimes(u, u, one).intoArray(up, i);
        }
    }

    private static void relu(float[] up, int count, boolean squared) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector u = FloatVector.fromArray(Lanes.FLOATS, up, i).max(0);
            (squared ? u.mul(u) : u).intoArray(up, i);
        }
    }
}
