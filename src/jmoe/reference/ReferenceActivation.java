package jmoe.reference;

import jmoe.ops.Activation;

/** What an expert does between its two products, of one element. */
final class ReferenceActivation {
    private ReferenceActivation() {}

    /** The result; a gate only where the kind has one. */
    static double of(Activation activation, double gate, double up) {
        return switch (activation.kind()) {
            case SWIGLU -> gate * sigmoid(gate) * up;
            case CLAMPED_SWIGLU -> {
                double limit = activation.limit();
                double g = Math.min(gate, limit);
                double u = Math.max(-limit, Math.min(up, limit));
                yield g * sigmoid(Activation.CLAMPED_SWIGLU_ALPHA * g) * (u + 1);
            }
            case SILU -> up * sigmoid(up);
            case RELU -> Math.max(up, 0);
            case SQUARED_RELU -> Math.max(up, 0) * Math.max(up, 0);
            case GELU -> up * Normal.cumulative(up);
            case GELU_TANH -> up * sigmoid(geluTanhExponent(up));
            case LINEAR -> up;
            case GEGLU -> gate * Normal.cumulative(gate) * up;
            case GEGLU_TANH -> gate * sigmoid(geluTanhExponent(gate)) * up;
            case REGLU -> Math.max(gate, 0) * up;
            case GLU -> sigmoid(gate) * up;
            case BILINEAR -> gate * up;
        };
    }

    /** (1 + tanh(z)) / 2 = sigmoid(2z) without the loss of digits where tanh(z) is nearly -1. */
    private static double geluTanhExponent(double x) {
        return 2 * Math.sqrt(2 / Math.PI) * (x + Activation.GELU_TANH_CUBE * x * x * x);
    }

    static double sigmoid(double z) {
        return 1 / (1 + Math.exp(-z));
    }
}
