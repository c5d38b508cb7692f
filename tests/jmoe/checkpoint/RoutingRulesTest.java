package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation.ClampedSum;
import jmoe.ops.RouterConfig.Normalisation.None;
import jmoe.ops.RouterConfig.Normalisation.PNorm;
import jmoe.ops.RouterConfig.Normalisation.Sum;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.ops.Selection.GroupLimited;
import jmoe.ops.Selection.ProductKeys;
import jmoe.ops.Selection.SparseMixer;
import jmoe.ops.Selection.TopK;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

class RoutingRulesTest {
    @TempDir Path folder;

    /** The README's table of routing rules, row by row. */
    static List<Arguments> rules() {
        return List.of(
                rule("mixtral-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("minimax-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("qwen2_moe-0", Score.SOFTMAX, new TopK(), new None(), 1),
                rule("qwen2_moe-1", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("qwen3_moe-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("qwen3_moe-1", Score.SOFTMAX, new TopK(), new None(), 1),
                rule("olmoe-0", Score.SOFTMAX, new TopK(), new None(), 1),
                rule("flex_olmo-0", Score.SOFTMAX, new TopK(), new None(), 1),
                rule("qwen3_next-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("qwen3_5_moe-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("hunyuan_v1_moe-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("jamba-0", Score.SOFTMAX, new TopK(), new None(), 1),
                rule("dbrx-0", Score.SOFTMAX, new TopK(), new PNorm(1), 1),
                rule("dbrx-1", Score.SOFTMAX, new TopK(), new None(), 1),
                rule("granitemoe-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("jetmoe-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("aria-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("gpt_oss-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("llama4-0", Score.SIGMOID, new TopK(), new None(), 1),
                rule(
                        "deepseek_v2-0",
                        Score.SOFTMAX,
                        new GroupLimited(3, 2, GroupScore.MAX),
                        new None(),
                        16),
                rule("deepseek_v2-1", Score.SOFTMAX, new TopK(), new None(), 1),
                rule(
                        "deepseek_v3-0",
                        Score.SIGMOID,
                        new GroupLimited(5, 3, GroupScore.TOP2_SUM),
                        new Sum(1e-20),
                        2.5),
                rule(
                        "deepseek_v3-1",
                        Score.SIGMOID,
                        new GroupLimited(4, 2, GroupScore.TOP2_SUM),
                        new None(),
                        1),
                rule(
                        "glm4_moe-0",
                        Score.SIGMOID,
                        new GroupLimited(3, 2, GroupScore.TOP2_SUM),
                        new Sum(1e-20),
                        1.5),
                rule(
                        "dots1-0",
                        Score.SIGMOID,
                        new GroupLimited(4, 2, GroupScore.TOP2_SUM),
                        new Sum(1e-20),
                        1.5),
                rule(
                        "nemotron_h-0",
                        Score.SIGMOID,
                        new GroupLimited(4, 2, GroupScore.TOP2_SUM),
                        new Sum(1e-20),
                        2.5),
                rule("minimax_m2-0", Score.SIGMOID, new TopK(), new Sum(0), 1),
                rule("afmoe-0", Score.SIGMOID, new TopK(), new Sum(1e-20), 1.75),
                rule("lfm2_moe-0", Score.SIGMOID, new TopK(), new Sum(1e-6), 1.25),
                rule("ernie4_5_moe-0", Score.SOFTMAX, new TopK(), new ClampedSum(1e-12), 1),
                rule("ernie4_5_vl_moe-0", Score.SOFTMAX, new TopK(), new ClampedSum(1e-12), 1),
                rule("longcat_flash-0", Score.SOFTMAX, new TopK(), new None(), 6),
                rule("phimoe-1", Score.SOFTMAX, new SparseMixer(0.3), new None(), 1),
                rule("switch_transformers-0", Score.SOFTMAX, new TopK(), new None(), 1),
                rule("nllb_moe-0", Score.SOFTMAX, new TopK(), new Sum(0), 1),
                rule("doge-0", Score.SOFTMAX, new ProductKeys(4), new Sum(0), 1));
    }

    private static Arguments rule(
            String variant,
            Score score,
            Selection selection,
            RouterConfig.Normalisation normalisation,
            double factor) {
        return Arguments.of(variant, score, selection, normalisation, factor);
    }

    @ParameterizedTest
    @MethodSource("rules")
    void of_followsTheFamilysRule(
            String variant,
            Score score,
            Selection selection,
            RouterConfig.Normalisation normalisation,
            double factor) {
        RouterConfig router = golden(variant).routers().getFirst();

        assertThat(router.score()).isEqualTo(score);
        assertThat(router.selection()).isEqualTo(selection);
        assertThat(router.normalisation()).isEqualTo(normalisation);
        assertThat(router.factor()).isEqualTo(factor);
        assertThat(router.weightOnInput()).isEqualTo(variant.startsWith("llama4"));
    }

    @Test
    void of_readsCapacities() {
        assertThat(golden("switch_transformers-0").routers().getFirst().capacity())
                .isEqualTo(new Capacity(new CapacityLimit.Tokens(6), Priority.POSITION, false));
        assertThat(golden("nllb_moe-0").routers().getFirst().capacity())
                .isEqualTo(new Capacity(new CapacityLimit.Fraction(1), Priority.POSITION, true));
        assertThat(golden("nllb_moe-1").routers().getFirst().capacity())
                .isEqualTo(
                        new Capacity(new CapacityLimit.Fraction(0.4), Priority.PROBABILITY, false));
        assertThat(golden("nllb_moe-1").outputFactor()).isEqualTo(0.8);
        assertThat(golden("mixtral-0").routers().getFirst().capacity()).isNull();
    }

    @Test
    void of_separatesTokenTypes() {
        MoeConfig config = golden("ernie4_5_vl_moe-0");

        assertThat(config.routers().stream().map(RouterConfig::tokenType)).containsExactly(0, 1);
        assertThat(config.intermediates()).containsExactly(25, 24);
        assertThat(golden("ernie4_5_moe-0").routers().getFirst().tokenType())
                .isEqualTo(RouterConfig.ALL_TOKENS);
    }

    @Test
    void of_sizesSharedExperts() {
        assertThat(golden("deepseek_v2-0").sharedIntermediate()).isEqualTo(2 * 22);
        assertThat(golden("aria-0").sharedIntermediate()).isEqualTo(2 * 25);
        assertThat(golden("llama4-0").sharedIntermediate()).isEqualTo(20);
        assertThat(golden("nemotron_h-0").sharedIntermediate()).isEqualTo(36);
        assertThat(golden("mixtral-0").sharedIntermediate()).isZero();
        assertThat(golden("qwen2_moe-0").sharedGated()).isTrue();
        assertThat(golden("deepseek_v2-0").sharedGated()).isFalse();
    }

    private static MoeConfig golden(String variant) {
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve(variant))) {
            return checkpoint.layer(0).config();
        }
    }

    @ParameterizedTest
    @CsvSource({
        "mixtral-0, num_local_experts, num_experts",
        "qwen3_moe-0, num_local_experts, num_experts",
        "qwen2_moe-0, num_experts, moe_num_experts",
        "deepseek_v3-0, n_routed_experts, num_experts",
        "mixtral-0, num_experts_per_tok, moe_topk",
        "hunyuan_v1_moe-0, moe_topk, num_experts_per_tok",
        "ernie4_5_moe-0, moe_k, moe_top_k",
        "mixtral-0, hidden_size, d_model",
        "longcat_flash-0, expert_ffn_hidden_size, moe_intermediate_size",
        "mixtral-0, dtype, torch_dtype"
    })
    void of_acceptsOtherSpellings(String variant, String key, String spelling) {
        try (EditedFolder edited = new EditedFolder(variant, folder)) {
            edited.config.set(spelling, edited.config.remove(key));

            assertThat(opened(edited)).isEqualTo(golden(variant));
        }
    }

    @ParameterizedTest
    @CsvSource({
        "nllb_moe-0, nllb_moe, nllb_moe",
        "nllb_moe-0, NLLB-MoE, nllb_moe",
        "llama4-0, llama4, llama4",
        "aria-0, aria, aria",
        "qwen3_moe-0, qwen3_moe_text, qwen3_moe",
        "deepseek_v3-0, kimi_k2, deepseek_v3",
        "glm4_moe-0, glm4v_moe_text, glm4_moe"
    })
    void of_acceptsOtherModelTypes(String variant, String modelType, String family) {
        try (EditedFolder edited = new EditedFolder(variant, folder)) {
            edited.set("model_type", "\"" + modelType + "\"");
            try (Checkpoint checkpoint = edited.open()) {
                assertThat(checkpoint.family()).isEqualTo(family);
                assertThat(checkpoint.layer(0).config()).isEqualTo(golden(variant));
            }
        }
    }

    @ParameterizedTest
    @CsvSource({
        "llama4-0, llama4, text_config",
        "deepseek_v3-0, kimi_vl, text_config",
        "deepseek_v2-0, deepseek_vl_v2, language_config"
    })
    void of_readsTheLanguageModelsPart(String variant, String wrapper, String section) {
        try (EditedFolder edited = new EditedFolder(variant, folder)) {
            String text = edited.config.toString();
            edited.config.removeAll();
            edited.set("model_type", "\"" + wrapper + "\"").set(section, text);

            assertThat(opened(edited)).isEqualTo(golden(variant));
        }
    }

    @Test
    void of_readsListsPerLayer() {
        try (EditedFolder edited = new EditedFolder("hunyuan_v1_moe-0", folder)) {
            edited.renameAll(name -> name.replace("layers.0.", "layers.2."))
                    .set("moe_topk", "[1, 1, 2]")
                    .set("num_experts", "[1, 1, 7]")
                    .set("moe_intermediate_size", "[1, 1, 22]")
                    .set("num_shared_expert", "[0, 0, 1]");
            try (Checkpoint checkpoint = edited.open()) {
                assertThat(checkpoint.layer(2).config()).isEqualTo(golden("hunyuan_v1_moe-0"));
            }
            edited.set("moe_topk", "[1, 1]");
            try (Checkpoint checkpoint = edited.open()) {
                assertThatThrownBy(checkpoint::layers)
                        .isInstanceOf(CheckpointException.class)
                        .hasMessageContaining(
                                "moe_topk: expected an entry [2] in the list, got [1,1]");
            }
        }
    }

    @Test
    void of_acceptsTheListsOfTokenTypes() {
        try (EditedFolder edited = new EditedFolder("ernie4_5_vl_moe-0", folder)) {
            String text = edited.config.get("text_config").toString();
            edited.set(
                    "text_config",
                    text.replace("\"moe_num_experts\":4", "\"moe_num_experts\":[4,4]"));

            assertThat(opened(edited)).isEqualTo(golden("ernie4_5_vl_moe-0"));
        }
    }

    @Test
    void of_acceptsNumbersThatOnlyPythonWrites() throws Exception {
        try (EditedFolder edited = new EditedFolder("nemotron_h-0", folder)) {
            Path file = edited.write().resolve("config.json");
            String text = Files.readString(file);
            Files.writeString(file, text.replaceFirst("\\{", "{\"limit\": [0.0, Infinity, NaN],"));
            try (Checkpoint checkpoint = Checkpoint.open(folder)) {
                assertThat(checkpoint.layer(0).config()).isEqualTo(golden("nemotron_h-0"));
            }
        }
    }

    @ParameterizedTest
    @CsvSource({
        "mixtral-0, hidden_act, swish, SWIGLU",
        "mixtral-0, hidden_act, gelu, GEGLU",
        "mixtral-1, hidden_act, gelu_new, GEGLU_TANH",
        "jetmoe-0, activation_function, gelu_pytorch_tanh, GEGLU_TANH",
        "qwen2_moe-0, hidden_act, gelu_fast, GEGLU_TANH",
        "longcat_flash-0, hidden_act, relu, REGLU",
        "deepseek_v3-0, hidden_act, sigmoid, GLU",
        "llama4-0, hidden_act, linear, BILINEAR",
        "nllb_moe-0, activation_function, gelu, GELU",
        "switch_transformers-0, dense_act_fn, gelu_new, GELU_TANH",
        "switch_transformers-0, dense_act_fn, silu, SILU",
        "nemotron_h-0, mlp_hidden_act, relu, RELU",
        "nemotron_h-0, mlp_hidden_act, linear, LINEAR"
    })
    void of_readsTheActivation(String variant, String key, String name, Activation.Kind kind) {
        try (EditedFolder edited = new EditedFolder(variant, folder)) {
            edited.set(key, '"' + name + '"');
            assertThat(opened(edited).activation()).isEqualTo(Activation.of(kind));
        }
    }

    @Test
    void of_readsTheActivationOfDbrx() {
        try (EditedFolder edited = new EditedFolder("dbrx-0", folder)) {
            String ffn = edited.config.get("ffn_config").toString();
            String act = "{\"ffn_act_fn\": {\"name\": \"gelu\"}, ";
            edited.set(
                    "ffn_config",
                    act + ffn.replaceFirst("\"ffn_act_fn\":\\{[^}]*\\},", "").substring(1));
            assertThat(opened(edited).activation()).isEqualTo(Activation.of(Activation.Kind.GEGLU));
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "qwen3_moe-0; norm_topk_prob; olmoe-0",
                "olmoe-0; norm_topk_prob; olmoe-0",
                "gpt_oss-0; swiglu_limit; gpt_oss-0",
                "nllb_moe-0; moe_token_dropout; nllb_moe-0",
                "longcat_flash-0; routed_scaling_factor; longcat_flash-0",
                "deepseek_v3-0; routed_scaling_factor; deepseek_v3-0",
                "phimoe-0; router_jitter_noise; phimoe-0",
                "dbrx-0; rope_parameters; dbrx-0"
            })
    void of_assumesWhatTransformersAssumes(String variant, String key, String same) {
        try (EditedFolder edited = new EditedFolder(variant, folder)) {
            edited.config.remove(key);
            RouterConfig router = opened(edited).routers().getFirst();

            assertThat(router.normalisation())
                    .isEqualTo(golden(same).routers().getFirst().normalisation());
            assertThat(router.factor()).isEqualTo(golden(same).routers().getFirst().factor());
            assertThat(opened(edited).activation()).isEqualTo(golden(variant).activation());
            assertThat(opened(edited).outputFactor()).isEqualTo(golden(variant).outputFactor());
        }
    }

    private static MoeConfig opened(EditedFolder edited) {
        try (Checkpoint checkpoint = edited.open()) {
            return checkpoint.layer(0).config();
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            nullValues = "-",
            value = {
                "mixtral-0; num_local_experts; -; num_experts or num_local_experts or"
                        + " n_routed_experts or moe_num_experts: expected a positive integer, got"
                        + " nothing",
                "mixtral-0; num_local_experts; null; expected a positive integer, got nothing",
                "mixtral-0; num_local_experts; \"7\"; num_local_experts: expected a positive"
                        + " integer, got \"7\"",
                "mixtral-0; num_local_experts; 7.5; got 7.5",
                "mixtral-0; num_local_experts; 0; got 0",
                "mixtral-0; num_local_experts; -7; got -7",
                "mixtral-0; num_local_experts; 99999999999; got 99999999999",
                "mixtral-0; num_local_experts; 2147483647; expected [2147483647, 44] after"
                        + " config.json",
                "deepseek_v3-0; n_shared_experts; 2147483647; the sizes of the experts exceed",
                "mixtral-0; num_experts_per_tok; -; num_experts_per_tok or moe_topk or moe_k or"
                        + " moe_top_k: expected a positive integer, got nothing",
                "mixtral-0; num_experts_per_tok; 8; expected at most the 7 experts, got 8",
                "mixtral-0; hidden_size; -; hidden_size or d_model: expected",
                "mixtral-0; intermediate_size; true; intermediate_size: expected a positive"
                        + " integer, got true",
                "mixtral-0; hidden_act; \"mish\"; hidden_act: expected silu or swish or gelu or",
                "mixtral-0; hidden_act; \"mish\"; or relu or sigmoid or linear, got \"mish\"",
                "aria-0; hidden_act; \"gelu\"; hidden_act: expected silu or swish, got \"gelu\"",
                "qwen2_moe-0; shared_expert_intermediate_size; -;"
                        + " shared_expert_intermediate_size: expected",
                "qwen2_moe-0; norm_topk_prob; 1; norm_topk_prob: expected true or false, got 1",
                "deepseek_v3-0; n_group; 3; n_group: expected a divisor of"
                        + " the 10 experts, got 3",
                "deepseek_v3-0; n_group; 0; n_group: expected a positive integer, got 0",
                "deepseek_v3-0; topk_group; 6; topk_group: expected at most n_group=5, got 6",
                "deepseek_v3-0; topk_group; 1; holding at least topK=4",
                "deepseek_v3-0; routed_scaling_factor; \"x\"; routed_scaling_factor: expected a"
                        + " number",
                "deepseek_v3-0; n_shared_experts; -1; n_shared_experts: expected an integer from 0",
                "deepseek_v2-0; topk_method; \"noaux_tc\"; topk_method: expected greedy or"
                        + " group_limited_greedy, got \"noaux_tc\"",
                "phimoe-0; num_experts_per_tok; 3; expected 2 with SparseMixer, got 3",
                "doge-0; num_experts; 15; expected a square number, got 15",
                "nemotron_h-0; mlp_hidden_act; \"tanh\"; mlp_hidden_act: expected relu or relu2",
                "switch_transformers-0; dense_act_fn; \"gated-gelu\"; or linear, got"
                        + " \"gated-gelu\"",
                "switch_transformers-0; num_layers; -; num_layers: expected a positive integer",
                "nllb_moe-0; second_expert_policy; \"random\"; expected all, got \"random\"",
                "nllb_moe-0; num_experts; 1; expected at least 2, got 1",
                "dbrx-0; ffn_config; -; ffn_config: expected an object, got nothing",
                "dbrx-0; ffn_config; {\"moe_num_experts\": 7}; ffn_config.num_experts_per_tok or"
                        + " ffn_config.moe_topk",
                "ernie4_5_vl_moe-0; text_config; {\"model_type\": \"ernie4_5_vl_moe_text\"};"
                        + " text_config.hidden_size or text_config.d_model: expected",
                "gpt_oss-0; swiglu_limit; -7; swiglu_limit: expected a number"
            })
    void of_refusesImpossibleValues(String variant, String key, String json, String message) {
        try (EditedFolder edited = new EditedFolder(variant, folder)) {
            if (json == null) {
                edited.config.remove(key);
            } else {
                edited.set(key, json);
            }
            assertThatThrownBy(() -> opened(edited))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("config.json")
                    .hasMessageContaining(message);
        }
    }

    @Test
    void of_listsTheFamiliesWhenItKnowsNone() {
        try (EditedFolder edited = new EditedFolder("mixtral-0", folder)) {
            edited.set("model_type", "\"llama\"");
            assertThatThrownBy(edited::open)
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("config.json: model_type 'llama' is unknown; supported:")
                    .hasMessageContaining("afmoe, aria, dbrx")
                    .hasMessageContaining("mixtral");
            edited.config.remove("model_type");
            assertThatThrownBy(edited::open)
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("config.json: model_type is missing; supported:");
            edited.set("text_config", "{\"model_type\": \"gemma\"}");
            assertThatThrownBy(edited::open)
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("model_type 'gemma' is unknown");
        }
    }
}
