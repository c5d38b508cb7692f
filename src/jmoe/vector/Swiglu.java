package jmoe.vector;

import jdk.incubator.vector.FloatVector;

import jmoe.ops.Activation;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import java.util.Arrays;

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
        long firstRow = expertOffsets.getInt(0);
        long rows = expertOffsets.getInt(expertOffsets.numElements() - 1) - firstRow;
        boolean gated = activation.gated();
        chunks.run(
                rows,
                columns,
                (index, column, count, first, second) -> {
                    long row = firstRow + index;
                    long element = row * inColumns + column;
                    if (gated) {
                        in.read(element, count, first, 0);
                        element += columns;
                    }
                    in.read(element, count, second, 0);
                    activate(activation, first, 0, second, 0, Lanes.padded(count));
                    out.write(second, 0, count, row * columns + column);
                });
    }

    /** Replaces each up by the result; the gate's content is lost. */
    static void activate(
            Activation activation, float[] gate, int gateAt, float[] up, int upAt, int count) {
        switch (activation.kind()) {
            case SWIGLU -> Sigmoid.product(gate, gateAt, 1, up, upAt, count);
            case CLAMPED_SWIGLU -> {
                clamp(gate, gateAt, up, upAt, count, activation.limit());
                Sigmoid.product(gate, gateAt, ALPHA, up, upAt, count);
            }
            case SILU -> {
                moveToGate(gate, gateAt, up, upAt, count);
                Sigmoid.product(gate, gateAt, 1, up, upAt, count);
            }
            case GELU -> {
                moveToGate(gate, gateAt, up, upAt, count);
                Gelu.product(gate, gateAt, up, upAt, count);
            }
            case GELU_TANH -> {
                moveToGate(gate, gateAt, up, upAt, count);
                Gelu.tanhProduct(gate, gateAt, up, upAt, count);
            }
            case GEGLU -> Gelu.product(gate, gateAt, up, upAt, count);
            case GEGLU_TANH -> Gelu.tanhProduct(gate, gateAt, up, upAt, count);
            case GLU -> Sigmoid.gate(gate, gateAt, up, upAt, count);
            case REGLU -> {
                relu(gate, gateAt, count);
                multiply(gate, gateAt, up, upAt, count);
            }
            case BILINEAR -> multiply(gate, gateAt, up, upAt, count);
            case LINEAR -> {}
            case RELU -> relu(up, upAt, count);
            case SQUARED_RELU -> {
                relu(up, upAt, count);
                multiply(up, upAt, up, upAt, count);
            }
        }
    }

    /** min(gate, limit), and clamp(up, -limit, limit) + 1. */
    private static void clamp(
            float[] gate, int gateAt, float[] up, int upAt, int count, float limit) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector g = FloatVector.fromArray(Lanes.FLOATS, gate, gateAt + i);
            g.min(limit).intoArray(gate, gateAt + i);
            FloatVector u = FloatVector.fromArray(Lanes.FLOATS, up, upAt + i);
            u.min(limit).max(-limit).add(1).intoArray(up, upAt + i);
        }
    }

    private static void relu(float[] up, int at, int count) {
        for (int i = at; i < at + count; i += Lanes.COUNT) {
            FloatVector.fromArray(Lanes.FLOATS, up, i).max(0).intoArray(up, i);
        }
    }

    /** up = gate up. */
    private static void multiply(float[] gate, int gateAt, float[] up, int upAt, int count) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector g = FloatVector.fromArray(Lanes.FLOATS, gate, gateAt + i);
            FloatVector u = FloatVector.fromArray(Lanes.FLOATS, up, upAt + i);
            g.mul(u).intoArray(up, upAt + i);
        }
    }

    /** Of kinds without a gate: what is activated becomes it, and the other factor is 1. */
    private static void moveToGate(float[] gate, int gateAt, float[] up, int upAt, int count) {
        System.arraycopy(up, upAt, gate, gateAt, count);
        Arrays.fill(up, upAt, upAt + count, 1);
    }
}
