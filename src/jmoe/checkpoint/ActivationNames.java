package jmoe.checkpoint;

import jmoe.ops.Activation;
import jmoe.ops.Activation.Kind;

import java.util.List;

/** The activations by their names in configurations, those of transformers' {@code ACT2FN}. */
final class ActivationNames {
    private static final List<String> GATED =
            List.of(
                    "silu",
                    "swish",
                    "gelu",
                    "gelu_new",
                    "gelu_pytorch_tanh",
                    "gelu_fast",
                    "relu",
                    "sigmoid",
                    "linear");

    private static final List<String> PLAIN =
            List.of(
                    "relu",
                    "relu2",
                    "gelu",
                    "gelu_new",
                    "gelu_pytorch_tanh",
                    "gelu_fast",
                    "silu",
                    "swish",
                    "linear");

    private ActivationNames() {}

    /**
     * What experts with a gate do, whose function applies to the gate alone; silu where no key is
     * there.
     *
     * @throws CheckpointException if the name is none of those that are known
     */
    static Activation gated(ModelConfig config, String... keys) {
        return Activation.of(
                switch (config.word(GATED, "silu", keys)) {
                    case "gelu" -> Kind.GEGLU;
                    case "gelu_new", "gelu_pytorch_tanh", "gelu_fast" -> Kind.GEGLU_TANH;
                    case "relu" -> Kind.REGLU;
                    case "sigmoid" -> Kind.GLU;
                    case "linear" -> Kind.BILINEAR;
                    default -> Kind.SWIGLU;
                });
    }

    /**
     * What experts without a gate do.
     *
     * @param missing where no key is there
     * @throws CheckpointException if the name is none of those that are known
     */
    static Activation plain(ModelConfig config, String missing, String... keys) {
        return Activation.of(
                switch (config.word(PLAIN, missing, keys)) {
                    case "relu2" -> Kind.SQUARED_RELU;
                    case "gelu" -> Kind.GELU;
                    case "gelu_new", "gelu_pytorch_tanh", "gelu_fast" -> Kind.GELU_TANH;
                    case "silu", "swish" -> Kind.SILU;
                    case "linear" -> Kind.LINEAR;
                    default -> Kind.RELU;
                });
    }
}
