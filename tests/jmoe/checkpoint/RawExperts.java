package jmoe.checkpoint;

import jmoe.tensor.Tensor;

/**
 * Expert matrices element by element as the equations of the golden data address them, independent
 * of the table under test.
 *
 * @param checkpoint a golden checkpoint
 * @param family its family in the manifest
 * @param intermediate width of the experts
 */
record RawExperts(Checkpoint checkpoint, String family, long intermediate) {
    private static final String LAYER = "model.layers.0.";

    double gate(long e, long i, long h) {
        return switch (family) {
            case "mixtral", "minimax", "minimax_m2", "phimoe" ->
                    at(LAYER + "block_sparse_moe.experts." + e + ".w1.weight", i, h);
            case "lfm2_moe" -> at(LAYER + "feed_forward.experts." + e + ".w1.weight", i, h);
            case "jamba" -> at(LAYER + "feed_forward.experts." + e + ".gate_proj.weight", i, h);
            case "granitemoe" -> at(LAYER + "block_sparse_moe.input_linear.weight", e, i, h);
            case "jetmoe" -> at(LAYER + "mlp.input_linear.weight", e, i, h);
            case "llama4" -> at(LAYER + "feed_forward.experts.gate_up_proj", e, h, i);
            case "aria" -> at(LAYER + "mlp.experts.fc1.weight", e, h, i);
            case "gpt_oss" -> at(LAYER + "mlp.experts.gate_up_proj", e, h, 2 * i);
            case "dbrx" -> at("transformer.blocks.0.ffn.experts.mlp.w1", e * intermediate + i, h);
            default -> at(LAYER + "mlp.experts." + e + ".gate_proj.weight", i, h);
        };
    }

    double up(long e, long i, long h) {
        return switch (family) {
            case "mixtral", "minimax", "minimax_m2", "phimoe" ->
                    at(LAYER + "block_sparse_moe.experts." + e + ".w3.weight", i, h);
            case "lfm2_moe" -> at(LAYER + "feed_forward.experts." + e + ".w3.weight", i, h);
            case "jamba" -> at(LAYER + "feed_forward.experts." + e + ".up_proj.weight", i, h);
            case "granitemoe" ->
                    at(LAYER + "block_sparse_moe.input_linear.weight", e, intermediate + i, h);
            case "jetmoe" -> at(LAYER + "mlp.input_linear.weight", e, intermediate + i, h);
            case "llama4" ->
                    at(LAYER + "feed_forward.experts.gate_up_proj", e, h, intermediate + i);
            case "aria" -> at(LAYER + "mlp.experts.fc1.weight", e, h, intermediate + i);
            case "gpt_oss" -> at(LAYER + "mlp.experts.gate_up_proj", e, h, 2 * i + 1);
            case "dbrx" -> at("transformer.blocks.0.ffn.experts.mlp.v1", e * intermediate + i, h);
            case "nemotron_h" ->
                    at("backbone.layers.0.mixer.experts." + e + ".up_proj.weight", i, h);
            case "switch_transformers" ->
                    at("encoder.block.0.layer.1.mlp.experts.expert_" + e + ".wi.weight", i, h);
            case "nllb_moe" ->
                    at("model.encoder.layers.0.ffn.experts.expert_" + e + ".fc1.weight", i, h);
            case "doge" -> at(LAYER + "mlp.down_embed.weight", e, h);
            default -> at(LAYER + "mlp.experts." + e + ".up_proj.weight", i, h);
        };
    }

    double down(long e, long h, long i) {
        return switch (family) {
            case "mixtral", "minimax", "minimax_m2", "phimoe" ->
                    at(LAYER + "block_sparse_moe.experts." + e + ".w2.weight", h, i);
            case "lfm2_moe" -> at(LAYER + "feed_forward.experts." + e + ".w2.weight", h, i);
            case "jamba" -> at(LAYER + "feed_forward.experts." + e + ".down_proj.weight", h, i);
            case "granitemoe" -> at(LAYER + "block_sparse_moe.output_linear.weight", e, h, i);
            case "jetmoe" -> at(LAYER + "mlp.output_linear.weight", e, h, i);
            case "llama4" -> at(LAYER + "feed_forward.experts.down_proj", e, i, h);
            case "aria" -> at(LAYER + "mlp.experts.fc2.weight", e, i, h);
            case "gpt_oss" -> at(LAYER + "mlp.experts.down_proj", e, i, h);
            case "dbrx" -> at("transformer.blocks.0.ffn.experts.mlp.w2", e * intermediate + i, h);
            case "nemotron_h" ->
                    at("backbone.layers.0.mixer.experts." + e + ".down_proj.weight", h, i);
            case "switch_transformers" ->
                    at("encoder.block.0.layer.1.mlp.experts.expert_" + e + ".wo.weight", h, i);
            case "nllb_moe" ->
                    at("model.encoder.layers.0.ffn.experts.expert_" + e + ".fc2.weight", h, i);
            case "doge" -> at(LAYER + "mlp.up_embed.weight", e, h);
            default -> at(LAYER + "mlp.experts." + e + ".down_proj.weight", h, i);
        };
    }

    private double at(String name, long... index) {
        Tensor tensor = checkpoint.tensor(name);
        long flat = 0;
        for (int axis = 0; axis < index.length; axis++) {
            flat = flat * tensor.dim(axis) + index[axis];
        }
        return tensor.getDouble(flat);
    }
}
