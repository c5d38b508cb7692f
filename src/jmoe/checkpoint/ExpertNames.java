package jmoe.checkpoint;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Where each model family keeps a MoE block: a table of tensor names. What the block computes is in
 * {@link RoutingRules}.
 *
 * <p>Columns:
 *
 * <ul>
 *   <li>family: model_type in config.json and, after commas, other spellings of it;
 *   <li>block: path of the block, with * for the layer number and ? for any digit; whatever wrapper
 *       a model has ({@code model.}, {@code language_model.model.}) precedes it;
 *   <li>router: stored [E, H], or [H, E] where ^T follows; one per token type;
 *   <li>experts: an {@link ExpertLayout} and the tensors, with * for the expert;
 *   <li>shared expert: gate, up, down, or - if there is none;
 *   <li>the rest: what few families have, see {@link Extra}.
 * </ul>
 *
 * <p>MLP and W132 stand for the two usual triples.
 */
final class ExpertNames {
    // Dots and spaces align; a line is a family.
    private static final String TABLE =
            """
            mixtral             | layers.*.block_sparse_moe | gate.weight              | each experts.*.W132 | -
            minimax, minimax_text_01, minimax_m1 \
                                | layers.*.block_sparse_moe | gate.weight              | each experts.*.W132 | -
            minimax_m2          | layers.*.block_sparse_moe | gate.weight              | each experts.*.W132 | -                  | select=e_score_correction_bias
            phimoe              | layers.*.block_sparse_moe | gate.weight              | each experts.*.W132 | -
            lfm2_moe            | layers.*.feed_forward     | gate.weight              | each experts.*.W132 | -                  | select=expert_bias
            jamba               | layers.*.feed_forward     | router.weight            | each experts.*.MLP  | -
            olmoe               | layers.*.mlp              | gate.weight              | each experts.*.MLP  | -
            flex_olmo           | layers.*.mlp              | gate.weight              | each experts.*.MLP  | -
            qwen3_moe           | layers.*.mlp              | gate.weight              | each experts.*.MLP  | -
            qwen2_moe           | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_expert.MLP  | sharedGate=shared_expert_gate.weight
            qwen3_next          | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_expert.MLP  | sharedGate=shared_expert_gate.weight
            qwen3_5_moe         | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_expert.MLP  | sharedGate=shared_expert_gate.weight
            hunyuan_v1_moe, hunyuan \
                                | layers.*.mlp              | gate.wg.weight           | each experts.*.MLP  | shared_mlp.MLP
            deepseek_v2         | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_experts.MLP
            deepseek_v3, kimi_k2 \
                                | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_experts.MLP | select=gate.e_score_correction_bias
            glm4_moe, glm4v_moe | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_experts.MLP | select=gate.e_score_correction_bias
            dots1               | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_experts.MLP | select=gate.e_score_correction_bias
            ernie4_5_moe        | layers.*.mlp              | gate.weight              | each experts.*.MLP  | shared_experts.MLP | select=moe_statics.e_score_correction_bias
            ernie4_5_vl_moe, ernie4_5_moe_vl \
                                | layers.*.mlp              | {gate.weight,gate.weight_1}^T \
                                                                                       | each experts.*.MLP  | shared_experts.MLP | select=moe_statics.e_score_correction_bias
            afmoe               | layers.*.mlp              | router.gate.weight       | each experts.*.MLP  | shared_experts.MLP | select=expert_bias
            longcat_flash       | layers.*.mlp              | router.classifier.weight | each experts.*.MLP  | -                  | select=router.e_score_correction_bias
            nemotron_h          | layers.*.mixer            | gate.weight              | each experts.*.{up_proj,down_proj}.weight | shared_experts.{up_proj,down_proj}.weight \
                                | select=gate.e_score_correction_bias latentIn=fc1_latent_proj.weight latentOut=fc2_latent_proj.weight
            switch_transformers | block.*.layer.?.mlp       | router.classifier.weight | each experts.expert_*.{wi,wo}.weight   | - | optionalBias=router.classifier.bias encoderLayers=num_layers
            nllb_moe            | layers.*.ffn              | router.classifier.weight | each experts.expert_*.{fc1,fc2}.weight | - \
                                | expertBias=experts.expert_*.{fc1,fc2}.bias optionalBias=router.classifier.bias encoderLayers=encoder_layers
            granitemoe          | layers.*.block_sparse_moe | router.layer.weight      | fused {input_linear,output_linear}.weight | -
            jetmoe              | layers.*.mlp              | router.layer.weight      | fused {input_linear,output_linear}.weight | - | outputBias=bias
            llama4              | layers.*.feed_forward     | router.weight            | transposed experts.{gate_up_proj,down_proj} | shared_expert.MLP
            aria                | layers.*.mlp              | router.weight            | transposed experts.{fc1,fc2}.weight | shared_experts.MLP
            gpt_oss             | layers.*.mlp              | router.weight            | interleaved experts.{gate_up_proj,down_proj} | - \
                                | expertBias=experts.{gate_up_proj_bias,down_proj_bias} bias=router.bias
            dbrx                | blocks.*.ffn              | router.layer.weight      | stacked experts.mlp.{w1,v1,w2} | -
            doge                | layers.*.mlp              | router_gate.weight       | units {down_embed,up_embed}.weight | MLP
            """;

    /** Keys of the table's last column. */
    enum Extra {
        /** Router bias [E]. */
        BIAS("bias"),
        /** Router bias [E] where config.json says {@code router_bias}. */
        OPTIONAL_BIAS("optionalBias"),
        /**
         * Selection bias [E], or [token types, E], unless config.json denies {@code
         * use_expert_bias}.
         */
        SELECT("select"),
        /** Biases of the experts, by the layout of their weights. */
        EXPERT_BIAS("expertBias"),
        /** Gate of the shared expert [1, H]. */
        SHARED_GATE("sharedGate"),
        /** Projection before the routed experts [L, H] where {@code moe_latent_size} is L. */
        LATENT_IN("latentIn"),
        /** Projection after the routed experts [H, L]. */
        LATENT_OUT("latentOut"),
        /** Bias of the block's output [H]. */
        OUTPUT_BIAS("outputBias"),
        /** Key in config.json of the encoder's layers, which the decoder's follow. */
        ENCODER_LAYERS("encoderLayers");

        private final String key;

        Extra(String key) {
            this.key = key;
        }
    }

    /**
     * A line of the table.
     *
     * @param name the family
     * @param block path of the block
     * @param routers names of the routers, one per token type
     * @param routersTransposed whether they are stored [H, E]
     * @param layout how the routed experts are stored
     * @param experts their tensors
     * @param shared tensors of the shared expert, or none
     * @param extras the last column
     */
    record Family(
            String name,
            String block,
            List<String> routers,
            boolean routersTransposed,
            ExpertLayout layout,
            List<String> experts,
            List<String> shared,
            Map<String, String> extras) {
        /** A name of the last column, or null if the family has no such tensor. */
        @Nullable String extra(Extra extra) {
            return extras.get(extra.key);
        }

        /** Finds this family's routers; groups: wrapper, layer number. */
        Pattern routerPattern() {
            String regex = Pattern.quote(block + "." + routers.getFirst());
            return Pattern.compile(
                    "((?:.*\\.)?)"
                            + regex.replace("*", "\\E(\\d{1,9})\\Q").replace("?", "\\E\\d\\Q"));
        }
    }

    /**
     * A MoE layer.
     *
     * @param number in the model
     * @param prefix of its tensors, with a final dot
     * @param decoder whether it belongs to the decoder of an encoder-decoder model
     */
    record Layer(int number, String prefix, boolean decoder) {}

    private static final Map<String, Family> BY_SPELLING = parse(TABLE);

    private ExpertNames() {}

    /** The family of a model_type, or null. */
    static @Nullable Family find(String modelType) {
        String spelling = modelType.toLowerCase(Locale.ROOT).replace('-', '_');
        return BY_SPELLING.get(
                spelling.endsWith("_text")
                        ? spelling.substring(0, spelling.length() - "_text".length())
                        : spelling);
    }

    /** Names of all families, sorted. */
    static List<String> families() {
        return BY_SPELLING.values().stream().map(Family::name).distinct().sorted().toList();
    }

    /**
     * Finds the MoE layers by their routers: dense layers have none.
     *
     * @param names all tensors of the checkpoint
     * @param noModel thrown instead of naming two blocks with one number; null to name them
     * @return the layers by rising number
     */
    static List<Layer> layers(
            Family family,
            Set<String> names,
            ModelConfig config,
            @Nullable CheckpointException noModel) {
        Pattern pattern = family.routerPattern();
        String encoderKey = family.extra(Extra.ENCODER_LAYERS);
        int encoderLayers = encoderKey == null ? 0 : config.positive(encoderKey);
        Map<Integer, Layer> layers = new LinkedHashMap<>();
        for (String name : names) {
            Matcher matcher = pattern.matcher(name);
            // Extra heads that guess several tokens ahead number their own layers from 0.
            if (!matcher.matches() || matcher.group(1).contains("mtp.")) {
                continue;
            }
            boolean decoder = encoderKey != null && matcher.group(1).endsWith("decoder.");
            int number = Integer.parseInt(matcher.group(2)) + (decoder ? encoderLayers : 0);
            String prefix = name.substring(0, name.length() - family.routers().getFirst().length());
            Layer other = layers.put(number, new Layer(number, prefix, decoder));
            if (other != null) {
                if (noModel != null) {
                    throw noModel;
                }
                throw new CheckpointException(
                        config.folder()
                                + ": expected one MoE layer "
                                + number
                                + ", got "
                                + CheckpointException.quoted(other.prefix())
                                + " and "
                                + CheckpointException.quoted(prefix));
            }
        }
        List<Layer> sorted = new ArrayList<>(layers.values());
        sorted.sort((a, b) -> Integer.compare(a.number(), b.number()));
        return sorted;
    }

    private static Map<String, Family> parse(String table) {
        Map<String, Family> families = new LinkedHashMap<>();
        Set<String> keys = new HashSet<>();
        for (Extra extra : Extra.values()) {
            keys.add(extra.key);
        }
        for (String line : table.strip().split("\n", -1)) {
            String[] cells = line.split("\\|", -1);
            String[] spellings = cells[0].strip().split(" *, *", -1);
            String[] experts = cells[3].strip().split(" +", -1);
            String shared = cells[4].strip();
            String routers = cells[2].strip();
            boolean transposed = routers.endsWith("^T");
            Map<String, String> extras = new LinkedHashMap<>();
            String rest = cells.length > 5 ? cells[5].strip() : "";
            for (String entry : rest.isEmpty() ? new String[0] : rest.split(" +", -1)) {
                String[] pair = entry.split("=", 2);
                if (!keys.contains(pair[0])) {
                    throw new IllegalArgumentException("unknown key in the table: " + line);
                }
                extras.put(pair[0], pair[1]);
            }
            Family family =
                    new Family(
                            spellings[0],
                            cells[1].strip(),
                            expand(routers.replace("^T", "")),
                            transposed,
                            ExpertLayout.valueOf(experts[0].toUpperCase(Locale.ROOT)),
                            expand(experts[1]),
                            shared.equals("-") ? List.of() : expand(shared),
                            Map.copyOf(extras));
            for (String spelling : spellings) {
                families.put(spelling, family);
            }
        }
        return families;
    }

    /** Expands {@code a.{b,c}.d} to a.b.d and a.c.d. */
    static List<String> expand(String pattern) {
        String names =
                pattern.replace("MLP", "{gate_proj,up_proj,down_proj}.weight")
                        .replace("W132", "{w1,w3,w2}.weight");
        int open = names.indexOf('{');
        if (open < 0) {
            return List.of(names);
        }
        int close = names.indexOf('}');
        List<String> expanded = new ArrayList<>();
        for (String alternative : names.substring(open + 1, close).split(",", -1)) {
            expanded.add(names.substring(0, open) + alternative + names.substring(close + 1));
        }
        return expanded;
    }
}
