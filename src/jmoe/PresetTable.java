package jmoe;

import static jmoe.PresetConfigs.ERNIE_SUM;
import static jmoe.PresetConfigs.NONE;
import static jmoe.PresetConfigs.SUM;
import static jmoe.PresetConfigs.deepseekV2;
import static jmoe.PresetConfigs.deepseekV3;
import static jmoe.PresetConfigs.ernieVision;
import static jmoe.PresetConfigs.gatedShared;
import static jmoe.PresetConfigs.gptOss;
import static jmoe.PresetConfigs.llama4;
import static jmoe.PresetConfigs.panguPro;
import static jmoe.PresetConfigs.plain;
import static jmoe.PresetConfigs.sigmoid;
import static jmoe.PresetConfigs.softmax;
import static jmoe.PresetConfigs.sparseMixer;
import static jmoe.PresetConfigs.swiglu;

import jmoe.Preset.Balance;
import jmoe.Preset.Bias;
import jmoe.Preset.Published;
import jmoe.ops.Activation.Kind;
import jmoe.ops.LogitTransform;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.tensor.DType;

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;

/**
 * The rows behind {@link Presets}, by family. Sizes and rules are those of the released
 * configurations; PresetTest holds them to the numbers of parameters that the sources state.
 */
final class PresetTable {
    private static final String QWEN3 = "Yang et al. 2025, Qwen3 Technical Report";
    private static final String GPT_OSS = "OpenAI 2025, gpt-oss-120b & gpt-oss-20b Model Card";
    private static final String LLAMA4 = "Meta 2025, The Llama 4 herd";
    private static final String ERNIE = "Baidu 2025, ERNIE 4.5 Technical Report";
    private static final String GLM = "GLM-4.5 Team 2025, GLM-4.5";
    private static final String GRANITE = "IBM 2024, Granite 3.0 Language Models";

    private PresetTable() {}

    static List<Preset> rows() {
        return Stream.of(
                        GooglePresets.rows(),
                        mistral(),
                        deepseek(),
                        qwen(),
                        openResearch(),
                        openai(),
                        xai(),
                        meta(),
                        baidu(),
                        huawei(),
                        zhipu(),
                        moonshot(),
                        minimax(),
                        kunlun(),
                        small(),
                        SchemePresets.rows())
                .flatMap(List::stream)
                .toList();
    }

    private static List<Preset> mistral() {
        return List.of(
                row(
                        "mixtral-8x7b",
                        swiglu("mixtral", 4096, 14336, 0, softmax(8, 2, SUM)),
                        model(32, 46.7e9, 12.9e9, "Jiang et al. 2024, Mixtral of Experts")
                                .with(Balance.LOAD, 0.02)),
                row(
                        "mixtral-8x22b",
                        swiglu("mixtral", 6144, 16384, 0, softmax(8, 2, SUM)),
                        model(56, 141e9, 39e9, "Mistral AI 2024, Cheaper, Better, Faster, Stronger")
                                .with(Balance.LOAD, 0.02)));
    }

    private static List<Preset> deepseek() {
        return List.of(
                row(
                        "deepseek-moe-16b",
                        swiglu("deepseek", 2048, 1408, 2, softmax(64, 6, NONE)),
                        model(27, 16.4e9, 2.8e9, "Dai et al. 2024, DeepSeekMoE")
                                .with(Balance.LOAD, 0.001)),
                row(
                        "deepseek-v2",
                        swiglu("deepseek_v2", 5120, 1536, 2, deepseekV2()),
                        model(59, 236e9, 21e9, "DeepSeek-AI 2024, DeepSeek-V2")
                                .dropping(1)
                                .with(Balance.LOAD, 0.003)
                                .with(Balance.DEVICE, 0.05)
                                .with(Balance.COMMUNICATION, 0.02)),
                row(
                        "deepseek-v2-lite",
                        swiglu("deepseek_v2", 2048, 1408, 2, softmax(64, 6, NONE)),
                        model(26, 15.7e9, 2.4e9, "DeepSeek-AI 2024, DeepSeek-V2")
                                .with(Balance.LOAD, 0.001)),
                row(
                                "deepseek-v3",
                                swiglu("deepseek_v3", 7168, 2048, 1, deepseekV3()),
                                fp8(58, 671e9, 37e9, "DeepSeek-AI 2024, DeepSeek-V3")
                                        .with(Balance.SEQUENCE, 1e-4)
                                        .with(Balance.SELECTION_BIAS, 1e-3))
                        .biased(Bias.SELECTION)
                        .alias("deepseek-r1"));
    }

    private static List<Preset> qwen() {
        return List.of(
                row(
                        "qwen1.5-moe-a2.7b",
                        gatedShared("qwen2_moe", 2048, 1408, 5632, softmax(60, 4, NONE)),
                        model(24, 14.3e9, 2.7e9, "Qwen Team 2024, Qwen1.5-MoE")
                                .with(Balance.LOAD, 0.001)),
                row(
                        "qwen3-30b-a3b",
                        swiglu("qwen3_moe", 2048, 768, 0, softmax(128, 8, SUM)),
                        model(48, 30.5e9, 3.3e9, QWEN3).with(Balance.LOAD, 0.001)),
                row(
                        "qwen3-235b-a22b",
                        swiglu("qwen3_moe", 4096, 1536, 0, softmax(128, 8, SUM)),
                        model(94, 235e9, 22e9, QWEN3).with(Balance.LOAD, 0.001)));
    }

    private static List<Preset> openResearch() {
        RouterConfig dbrx = softmax(16, 4, new Normalisation.PNorm(1));
        return List.of(
                row(
                        "olmoe-1b-7b",
                        swiglu("olmoe", 2048, 1024, 0, softmax(64, 8, NONE)),
                        model(16, 6.9e9, 1.3e9, "Muennighoff et al. 2024, OLMoE")
                                .with(Balance.LOAD, 0.01)
                                .with(Balance.Z, 0.001)),
                row(
                        "dbrx",
                        swiglu("dbrx", 6144, 10752, 0, dbrx),
                        model(40, 132e9, 36e9, "Mosaic Research 2024, Introducing DBRX")
                                .with(Balance.LOAD, 0.05)));
    }

    private static List<Preset> openai() {
        return List.of(
                row("gpt-oss-20b", gptOss(32), mxfp4(24, 20.9e9, 3.6e9, GPT_OSS))
                        .biased(Bias.ROUTER, Bias.EXPERTS),
                row("gpt-oss-120b", gptOss(128), mxfp4(36, 116.8e9, 5.1e9, GPT_OSS))
                        .biased(Bias.ROUTER, Bias.EXPERTS));
    }

    private static List<Preset> meta() {
        return List.of(
                row(
                                "llama4-scout",
                                swiglu("llama4", 5120, 8192, 1, llama4(16)),
                                model(48, 109e9, 17e9, LLAMA4))
                        .alias("llama-4-scout", "llama4-scout-17b-16e"),
                row(
                                "llama4-maverick",
                                swiglu("llama4", 5120, 8192, 1, llama4(128)),
                                model(24, 400e9, 17e9, LLAMA4))
                        .alias("llama-4-maverick", "llama4-maverick-17b-128e"));
    }

    private static List<Preset> baidu() {
        return List.of(
                row(
                                "ernie-4.5-21b-a3b",
                                swiglu("ernie4_5_moe", 2560, 1536, 2, softmax(64, 6, ERNIE_SUM)),
                                model(27, 21e9, 3e9, ERNIE)
                                        .dropping(1)
                                        .with(Balance.LOAD, 1e-5)
                                        .with(Balance.ORTHOGONALITY, 1e-3))
                        .biased(Bias.SELECTION),
                row(
                                "ernie-4.5-300b-a47b",
                                swiglu("ernie4_5_moe", 8192, 3584, 0, softmax(64, 8, ERNIE_SUM)),
                                model(51, 300e9, 47e9, ERNIE).dropping(1).with(Balance.LOAD, 1e-5))
                        .biased(Bias.SELECTION),
                row(
                                "ernie-4.5-vl-28b",
                                ernieVision(2560, List.of(1536, 512), 2, 6),
                                model(27, 28e9, 3e9, ERNIE))
                        .biased(Bias.SELECTION)
                        .alias("ernie-4.5-vl-28b-a3b"),
                row(
                                "ernie-4.5-vl-424b",
                                ernieVision(8192, List.of(3584, 1536), 0, 8),
                                model(51, 424e9, 47e9, ERNIE))
                        .biased(Bias.SELECTION)
                        .alias("ernie-4.5-vl-424b-a47b"));
    }

    private static List<Preset> huawei() {
        return List.of(
                row(
                                "pangu-pro-moe-72b",
                                swiglu("pangu_pro_moe", 5120, 1344, 4, panguPro()),
                                model(48, 72e9, 16.5e9, "Tang et al. 2025, Pangu Pro MoE"))
                        .biased(Bias.EXPERT_SCALE)
                        .alias("pangu-pro-moe"),
                row(
                                "pangu-ultra-moe-718b",
                                swiglu("pangu_ultra_moe", 7680, 2048, 1, sigmoid(256, 8, 2.5)),
                                model(58, 718e9, 39e9, "Tang et al. 2025, Pangu Ultra MoE"))
                        .alias("pangu-ultra-moe"));
    }

    private static List<Preset> zhipu() {
        return List.of(
                row(
                                "glm-4.5-355b",
                                swiglu("glm4_moe", 5120, 1536, 1, sigmoid(160, 8, 2.5)),
                                model(89, 355e9, 32e9, GLM))
                        .biased(Bias.SELECTION)
                        .alias("glm-4.5"),
                row(
                                "glm-4.5-air",
                                swiglu("glm4_moe", 4096, 1408, 1, sigmoid(128, 8, 1)),
                                model(45, 106e9, 12e9, GLM))
                        .biased(Bias.SELECTION),
                row(
                                "glm-4.7",
                                swiglu("glm4_moe_lite", 2048, 1536, 1, sigmoid(64, 4, 1.8)),
                                model(46, 30e9, 3e9, "Z.ai 2026, model card of GLM-4.7-Flash"))
                        .biased(Bias.SELECTION)
                        .alias("glm-4.7-flash"));
    }

    private static List<Preset> moonshot() {
        return List.of(
                row(
                                "kimi-k2",
                                swiglu("kimi_k2", 7168, 2048, 1, sigmoid(384, 8, 2.827)),
                                fp8(60, 1e12, 32e9, "Kimi Team 2025, Kimi K2"))
                        .biased(Bias.SELECTION),
                row(
                                "moonlight-16b",
                                swiglu("deepseek_v3", 2048, 1408, 2, sigmoid(64, 6, 2.446)),
                                model(26, 16e9, 3e9, "Liu et al. 2025, Muon is Scalable"))
                        .biased(Bias.SELECTION)
                        .alias("moonlight-16b-a3b"));
    }

    private static List<Preset> xai() {
        return List.of(
                row(
                        "grok-1",
                        plain("grok-1", Kind.GEGLU_TANH, 6144, 32768, softmax(8, 2, NONE)),
                        released(DType.I8, 64, 314e9, 0, "xAI 2024, Open Release of Grok-1")));
    }

    /** Hidden and intermediate are recorded, not read; the number of parameters confirms them. */
    private static List<Preset> kunlun() {
        RouterConfig standardised =
                softmax(16, 2, SUM).withLogitTransforms(List.of(new LogitTransform.Standardise(1)));
        return List.of(
                row(
                                "skywork-moe-146b",
                                swiglu("skywork_moe", 4608, 12288, 0, standardised),
                                model(52, 146e9, 22e9, "Wei et al. 2024, Skywork-MoE")
                                        .with(Balance.LOAD, 0.01))
                        .alias("skywork-moe"));
    }

    private static List<Preset> minimax() {
        return List.of(
                row(
                                "minimax-m1",
                                swiglu("minimax", 6144, 9216, 0, softmax(32, 2, SUM)),
                                model(80, 456e9, 45.9e9, "MiniMax 2025, MiniMax-01")
                                        .with(Balance.LOAD, 0.001))
                        .alias("minimax-text-01"),
                row(
                                "minimax-m2",
                                swiglu("minimax_m2", 3072, 1536, 0, sigmoid(256, 8, 1)),
                                fp8(62, 230e9, 10e9, "MiniMax 2025, model card of MiniMax-M2"))
                        .biased(Bias.SELECTION));
    }

    private static List<Preset> small() {
        return List.of(
                row(
                                "phi-3.5-moe",
                                swiglu("phimoe", 4096, 6400, 0, sparseMixer()),
                                model(32, 42e9, 6.6e9, "Abdin et al. 2024, Phi-3 Technical Report")
                                        .with(Balance.LOAD, 0.001))
                        .alias("phi-3.5-moe-instruct"),
                row(
                                "jetmoe-8b",
                                swiglu("jetmoe", 2048, 5632, 0, softmax(8, 2, SUM)),
                                model(24, 8.5e9, 2.2e9, "Shen et al. 2024, JetMoE")
                                        .with(Balance.LOAD, 0.01)
                                        .with(Balance.Z, 0.001))
                        .biased(Bias.OUTPUT),
                row(
                        "granite-3.0-1b-a400m",
                        swiglu("granitemoe", 1024, 512, 0, softmax(32, 8, SUM)),
                        model(24, 1.3e9, 0.4e9, GRANITE).with(Balance.LOAD, 0.001)),
                row(
                        "granite-3.0-3b-a800m",
                        swiglu("granitemoe", 1536, 512, 0, softmax(40, 8, SUM)),
                        model(32, 3.3e9, 0.8e9, GRANITE).with(Balance.LOAD, 0.001)));
    }

    static Preset row(String name, MoeConfig config, Published published) {
        return new Preset(name, List.of(), config, Set.of(), published, new ExpertForm.TwoMaps());
    }

    static Published model(int moeLayers, double total, double active, String source) {
        return released(DType.BF16, moeLayers, total, active, source);
    }

    private static Published fp8(int moeLayers, double total, double active, String source) {
        return released(DType.F8_E4M3, moeLayers, total, active, source);
    }

    private static Published mxfp4(int moeLayers, double total, double active, String source) {
        return released(DType.MXFP4, moeLayers, total, active, source);
    }

    static Published released(
            DType weights, int moeLayers, double total, double active, String source) {
        return new Published(weights, moeLayers, total, active, 0, Map.of(), source);
    }
}
