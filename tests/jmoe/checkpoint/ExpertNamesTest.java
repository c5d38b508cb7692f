package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

import tools.jackson.databind.JsonNode;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

class ExpertNamesTest {
    private static final String MIXTRAL = "model.layers.0.block_sparse_moe.";
    private static final String QWEN3 = "model.layers.0.mlp.";
    private static final JsonNode MANIFEST =
            Json.parse(EditedFolder.GOLDEN.resolve("manifest.json"));

    @TempDir Path folder;

    static List<String> variants() {
        return new ArrayList<>(MANIFEST.propertyNames());
    }

    @Test
    void families_areThoseOfTheGoldenData() {
        Set<String> families = new TreeSet<>();
        MANIFEST.properties().forEach(e -> families.add(e.getValue().get("family").stringValue()));

        assertThat(ExpertNames.families()).containsExactlyElementsOf(families).hasSize(31);
    }

    @ParameterizedTest
    @MethodSource("variants")
    void layers_haveTheManifestsSizes(String variant) {
        JsonNode golden = MANIFEST.get(variant);
        JsonNode dims = golden.get("dims");
        String family = golden.get("family").stringValue();
        long elements = 0;
        for (Map.Entry<String, JsonNode> tensor : golden.get("moe_tensors").properties()) {
            long product = 1;
            for (JsonNode dim : tensor.getValue()) {
                product *= dim.intValue();
            }
            // transformers writes halves of LongCat's identity experts, and never reads them.
            boolean identity =
                    family.equals("longcat_flash")
                            && tensor.getKey().matches(".*\\.experts\\.[789]\\..*");
            elements += identity ? 0 : product;
        }
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve(variant))) {
            assertThat(checkpoint.family()).isEqualTo(family);
            boolean decoder = golden.get("model_type").stringValue().matches("nllb.*|switch.*");
            assertThat(checkpoint.layers()).hasSize(decoder ? 2 : 1);
            MoeLayerInfo info = checkpoint.layers().getFirst();
            MoeConfig config = info.config();
            int topK =
                    switch (family) {
                        case "switch_transformers" -> 1;
                        case "nllb_moe" -> 2;
                        default -> dims.get("k").intValue();
                    };
            int width = dims.get("F").intValue();
            assertThat(info.layer()).isZero();
            assertThat(config.family()).isEqualTo(family);
            assertThat(config.hidden()).isEqualTo(dims.get("H").intValue());
            assertThat(config.numExperts()).isEqualTo(dims.get("E").intValue());
            assertThat(config.numIdentityExperts()).isEqualTo(dims.path("Z").asInt(0));
            assertThat(config.topK()).isEqualTo(topK);
            assertThat(config.intermediates())
                    .isEqualTo(
                            switch (family) {
                                case "ernie4_5_vl_moe" -> List.of(width, dims.get("S").intValue());
                                case "doge" -> List.of(1);
                                default -> List.of(width);
                            });
            assertThat(info.totalParameters()).isEqualTo(elements);
            assertThat(info.storedType()).isEqualTo(checkpoint.tensor(firstExpert(golden)).dtype());
        }
    }

    private static String firstExpert(JsonNode golden) {
        for (String name : golden.get("moe_tensors").propertyNames()) {
            if (name.contains("expert") && !name.contains("shared") && !name.contains("bias")) {
                return name;
            }
        }
        return golden.get("moe_tensors").propertyNames().iterator().next();
    }

    @ParameterizedTest
    @MethodSource("variants")
    void load_bringsEveryExpertElementIntoPlace(String variant) {
        String family = MANIFEST.get(variant).get("family").stringValue();
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve(variant));
                Arena arena = Arena.ofConfined()) {
            MoeConfig config = checkpoint.layer(0).config();
            MoeWeights weights = checkpoint.load(0, DType.F32, arena, LoadProgress.NONE);
            for (int type = 0; type < config.numTokenTypes(); type++) {
                ExpertWeights bank = weights.experts().get(type);
                long intermediate = config.intermediates().get(type);
                RawExperts raw = new RawExperts(checkpoint, family, intermediate);
                assertThat(bank.numExperts()).isEqualTo(config.numExperts());
                assertThat(bank.hidden()).isEqualTo(config.expertHidden());
                assertThat(bank.intermediate()).isEqualTo(intermediate);
                assertBank(bank, raw, (long) type * config.numExperts());
            }
        }
    }

    private static void assertBank(ExpertWeights bank, RawExperts raw, long firstExpert) {
        boolean gated = bank.activation().gated();
        long intermediate = bank.intermediate();
        long hidden = bank.hidden();
        for (long e = 0; e < bank.numExperts(); e++) {
            for (long i = 0; i < intermediate; i++) {
                for (long h = 0; h < hidden; h++) {
                    long row = e * bank.gateUp().dim(1) + i;
                    long upRow = gated ? row + intermediate : row;
                    if (gated) {
                        assertThat(bank.gateUp().getDouble(row * hidden + h))
                                .isEqualTo(raw.gate(firstExpert + e, i, h));
                    }
                    assertThat(bank.gateUp().getDouble(upRow * hidden + h))
                            .isEqualTo(raw.up(firstExpert + e, i, h));
                    assertThat(bank.down().getDouble((e * hidden + h) * intermediate + i))
                            .isEqualTo(raw.down(firstExpert + e, h, i));
                }
            }
        }
    }

    @Test
    void load_separatesInterleavedBiases() {
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve("gpt_oss-0"));
                Arena arena = Arena.ofConfined()) {
            MoeWeights weights = checkpoint.load(0, null, arena, LoadProgress.NONE);
            Tensor raw = checkpoint.tensor(QWEN3 + "experts.gate_up_proj_bias");
            Tensor gateUpBias = weights.experts().getFirst().gateUpBias();
            Tensor downBias = weights.experts().getFirst().downBias();
            Tensor rawDown = checkpoint.tensor(QWEN3 + "experts.down_proj_bias");
            Tensor bias = weights.routers().getFirst().bias();
            for (int e = 0; e < 6; e++) {
                for (int i = 0; i < 28; i++) {
                    assertThat(gateUpBias.getDouble(e * 56 + i))
                            .isEqualTo(raw.getDouble(e * 56 + 2 * i));
                    assertThat(gateUpBias.getDouble(e * 56 + 28 + i))
                            .isEqualTo(raw.getDouble(e * 56 + 2 * i + 1));
                }
            }
            assertSame(downBias, rawDown);
            assertSame(bias, checkpoint.tensor(QWEN3 + "router.bias"));
            assertThat(weights.experts().getFirst().activation())
                    .isEqualTo(Activation.clampedSwiglu(7));
        }
    }

    @ParameterizedTest
    @CsvSource({
        "deepseek_v3-0, model.layers.0.mlp.gate.e_score_correction_bias",
        "minimax_m2-0, model.layers.0.block_sparse_moe.e_score_correction_bias",
        "lfm2_moe-0, model.layers.0.feed_forward.expert_bias",
        "afmoe-0, model.layers.0.mlp.expert_bias",
        "longcat_flash-0, model.layers.0.mlp.router.e_score_correction_bias",
        "ernie4_5_moe-0, model.layers.0.mlp.moe_statics.e_score_correction_bias",
        "nemotron_h-0, backbone.layers.0.mixer.gate.e_score_correction_bias"
    })
    void load_readsTheSelectionBias(String variant, String name) {
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve(variant));
                Arena arena = Arena.ofConfined()) {
            RouterWeights router =
                    checkpoint.load(0, null, arena, LoadProgress.NONE).routers().getFirst();

            assertSame(router.selectionBias(), checkpoint.tensor(name));
            assertThat(router.selectionBias().rank()).isEqualTo(1);
        }
    }

    @Test
    void load_separatesTokenTypes() {
        try (Checkpoint checkpoint =
                        Checkpoint.open(EditedFolder.GOLDEN.resolve("ernie4_5_vl_moe-0"));
                Arena arena = Arena.ofConfined()) {
            MoeWeights weights = checkpoint.load(0, null, arena, LoadProgress.NONE);
            Tensor biases = checkpoint.tensor(QWEN3 + "moe_statics.e_score_correction_bias");
            for (int type = 0; type < 2; type++) {
                Tensor raw = checkpoint.tensor(QWEN3 + "gate.weight" + (type == 0 ? "" : "_1"));
                RouterWeights router = weights.routers().get(type);
                for (int e = 0; e < 4; e++) {
                    for (int h = 0; h < 40; h++) {
                        assertThat(router.weight().getDouble(e * 40 + h))
                                .isEqualTo(raw.getDouble(h * 4 + e));
                    }
                    assertThat(router.selectionBias().getDouble(e))
                            .isEqualTo(biases.getDouble(type * 4 + e));
                }
            }
            assertThat(weights.shared().intermediate()).isEqualTo(25);
        }
    }

    @Test
    void load_readsSharedExpertsLatentAndOutputBias() {
        try (Arena arena = Arena.ofConfined()) {
            try (Checkpoint c = Checkpoint.open(EditedFolder.GOLDEN.resolve("qwen2_moe-0"))) {
                MoeWeights weights = c.load(0, null, arena, LoadProgress.NONE);
                Tensor gateUp = weights.shared().gateUp();
                assertSame(
                        gateUp.reshape(48, 44).slice(0, 24),
                        c.tensor(QWEN3 + "shared_expert.gate_proj.weight"));
                assertSame(
                        gateUp.reshape(48, 44).slice(24, 24),
                        c.tensor(QWEN3 + "shared_expert.up_proj.weight"));
                assertSame(
                        weights.shared().down(),
                        c.tensor(QWEN3 + "shared_expert.down_proj.weight"));
                assertSame(weights.sharedGate(), c.tensor(QWEN3 + "shared_expert_gate.weight"));
            }
            try (Checkpoint c = Checkpoint.open(EditedFolder.GOLDEN.resolve("nemotron_h-1"))) {
                MoeWeights weights = c.load(0, null, arena, LoadProgress.NONE);
                String mixer = "backbone.layers.0.mixer.";
                assertSame(weights.latentIn(), c.tensor(mixer + "fc1_latent_proj.weight"));
                assertSame(weights.latentOut(), c.tensor(mixer + "fc2_latent_proj.weight"));
                assertThat(weights.latentOut().shape()).containsExactly(1, 40, 20);
            }
            try (Checkpoint c = Checkpoint.open(EditedFolder.GOLDEN.resolve("jetmoe-0"))) {
                MoeWeights weights = c.load(0, null, arena, LoadProgress.NONE);
                assertSame(weights.outputBias(), c.tensor(QWEN3 + "bias"));
                assertThat(weights.outputBias().shape()).containsExactly(1, 32);
            }
            try (Checkpoint c = Checkpoint.open(EditedFolder.GOLDEN.resolve("doge-0"))) {
                MoeWeights weights = c.load(0, null, arena, LoadProgress.NONE);
                assertSame(weights.shared().down(), c.tensor(QWEN3 + "down_proj.weight"));
                assertThat(weights.shared().activation()).isEqualTo(Activation.SWIGLU);
                assertThat(weights.experts().getFirst().activation().kind())
                        .isEqualTo(Activation.Kind.SILU);
            }
            try (Checkpoint c = Checkpoint.open(EditedFolder.GOLDEN.resolve("nllb_moe-0"))) {
                ExpertWeights bank = c.load(0, null, arena, LoadProgress.NONE).experts().getFirst();
                String expert = "model.encoder.layers.0.ffn.experts.expert_4.";
                assertSame(bank.gateUpBias().row(4), c.tensor(expert + "fc1.bias"));
                assertSame(bank.downBias().row(4), c.tensor(expert + "fc2.bias"));
            }
            String classifier = "encoder.block.0.layer.1.mlp.router.classifier.bias";
            Path switch1 = EditedFolder.GOLDEN.resolve("switch_transformers-1");
            try (Checkpoint c = Checkpoint.open(switch1)) {
                MoeWeights weights = c.load(0, null, arena, LoadProgress.NONE);
                assertSame(weights.routers().getFirst().bias(), c.tensor(classifier));
            }
        }
    }

    private static void assertSame(Tensor loaded, Tensor stored) {
        assertThat(loaded.numElements()).isEqualTo(stored.numElements());
        for (long i = 0; i < loaded.numElements(); i++) {
            assertThat(loaded.getDouble(i)).isEqualTo(stored.getDouble(i));
        }
    }

    @Test
    void layers_countActiveParameters() {
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve("qwen2_moe-0"))) {
            MoeLayerInfo info = checkpoint.layer(0);

            // Router, gate of the shared expert, shared expert, three of six experts.
            assertThat(info.activeParameters())
                    .isEqualTo(6 * 44 + 44 + 3 * 24 * 44 + 3 * (3 * 36 * 44));
            assertThat(info.totalParameters())
                    .isEqualTo(6 * 44 + 44 + 3 * 24 * 44 + 6 * (3 * 36 * 44));
            assertThat(info.prefix()).isEqualTo(QWEN3);
        }
        Path longcat = EditedFolder.GOLDEN.resolve("longcat_flash-0");
        try (Checkpoint checkpoint = Checkpoint.open(longcat)) {
            assertThat(checkpoint.layer(0).activeParameters())
                    .isEqualTo(10 * 32 + 10 + 4 * (3 * 25 * 32));
        }
    }

    @ParameterizedTest
    @CsvSource({
        "qwen3_moe-0, '', language_model.",
        "llama4-0, '', language_model.",
        "qwen3_5_moe-0, model., model.language_model.",
        "mixtral-0, model., ''",
        "nllb_moe-0, model., a.b.c."
    })
    void layers_areFoundBehindAnyWrapper(String variant, String prefix, String wrapper) {
        try (EditedFolder edited = new EditedFolder(variant, folder)) {
            edited.renameAll(name -> wrapper + name.substring(prefix.length()));
            try (Checkpoint checkpoint = edited.open();
                    Arena arena = Arena.ofConfined()) {
                assertThat(checkpoint.layer(0).prefix()).startsWith(wrapper);
                checkpoint.load(0, null, arena, LoadProgress.NONE);
            }
        }
    }

    @Test
    void layers_areNotDenseOnesNorPredictionHeads() {
        try (EditedFolder edited = new EditedFolder("qwen3_next-0", folder)) {
            Map<String, Tensor> original = Map.copyOf(edited.tensors);
            edited.renameAll(name -> name.replace("layers.0.", "layers.7."));
            original.forEach((name, tensor) -> {
                edited.tensors.put("mtp." + name.replace("model.", ""), tensor);
                edited.tensors.put(name.replace("layers.0.", "layers.12."), tensor);
            });
            edited.tensors.put(
                    "model.layers.0.mlp.gate_proj.weight", edited.allocate(DType.F32, 4));
            try (Checkpoint checkpoint = edited.open()) {
                assertThat(checkpoint.layers().stream().map(MoeLayerInfo::layer))
                        .containsExactly(7, 12);
            }
        }
    }

    @Test
    void layers_ofADecoderFollowTheEncoders() {
        try (EditedFolder edited = new EditedFolder("switch_transformers-0", folder)) {
            Map<String, Tensor> original = Map.copyOf(edited.tensors);
            original.forEach((name, tensor) ->
                    edited.tensors.put(
                            name.replace("encoder.block.0.layer.1", "decoder.block.3.layer.2"),
                            tensor));
            edited.set("num_layers", "12");
            try (Checkpoint checkpoint = edited.open()) {
                assertThat(checkpoint.layers().stream().map(MoeLayerInfo::layer))
                        .containsExactly(0, 12, 15);
                assertThat(checkpoint.layer(15).prefix()).isEqualTo("decoder.block.3.layer.2.mlp.");
            }
        }
    }

    @Test
    void layers_withOneNumberAreRefused() {
        try (EditedFolder edited = new EditedFolder("mixtral-0", folder)) {
            Map.copyOf(edited.tensors)
                    .forEach((name, tensor) -> edited.tensors.put("draft." + name, tensor));
            assertThatThrownBy(edited::open)
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("expected one MoE layer 0")
                    .hasMessageContaining("'draft." + MIXTRAL + "'");
        }
    }

    @ParameterizedTest
    @CsvSource({"qwen3_moe-0, 16, 26, 44, true", "nemotron_h-0, 12, 20, 36, false"})
    void load_acceptsFusedExperts(
            String variant, int numExperts, int intermediate, int hidden, boolean gated) {
        try (EditedFolder edited = new EditedFolder(variant, folder);
                Arena arena = Arena.ofConfined()) {
            ExpertWeights each;
            try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve(variant))) {
                each = checkpoint.load(0, null, arena, LoadProgress.NONE).experts().getFirst();
            }
            String prefix =
                    edited.tensors.keySet().stream()
                                    .filter(name -> name.contains(".experts."))
                                    .findFirst()
                                    .orElseThrow()
                                    .split("\\.experts\\.", -1)[0]
                            + ".experts.";
            edited.tensors.keySet().removeIf(name -> name.contains(".experts."));
            edited.tensors.put(prefix + (gated ? "gate_up_proj" : "up_proj"), each.gateUp());
            edited.tensors.put(prefix + "down_proj", each.down());
            try (Checkpoint checkpoint = edited.open()) {
                ExpertWeights fused =
                        checkpoint.load(0, null, arena, LoadProgress.NONE).experts().getFirst();
                assertThat(fused.gateUp().data().mismatch(each.gateUp().data())).isEqualTo(-1);
                assertThat(fused.down().data().mismatch(each.down().data())).isEqualTo(-1);
            }
        }
    }

    @Test
    void open_namesTheMissingRouter() {
        try (EditedFolder edited = new EditedFolder("mixtral-0", folder)) {
            edited.rename(MIXTRAL + "gate.weight", MIXTRAL + "gates.weight");
            assertThatThrownBy(edited::open)
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("'layers.*.block_sparse_moe.gate.weight'")
                    .hasMessageContaining(MIXTRAL + "gates.weight");
        }
    }

    @Test
    void layers_nameTheMissingTensor() {
        try (EditedFolder edited = new EditedFolder("mixtral-0", folder)) {
            edited.rename(MIXTRAL + "experts.3.w2.weight", MIXTRAL + "experts.3.w4.weight");
            try (Checkpoint checkpoint = edited.open()) {
                assertThatThrownBy(checkpoint::layers)
                        .isInstanceOf(CheckpointException.class)
                        .hasMessageContaining("has no tensor '" + MIXTRAL + "experts.3.w2.weight'")
                        .hasMessageContaining("nearest: '" + MIXTRAL + "experts.");
            }
        }
    }

    @Test
    void layers_refuseATensorOfAnotherShape() {
        try (EditedFolder edited = new EditedFolder("mixtral-0", folder)) {
            edited.set("num_local_experts", "6");
            try (Checkpoint checkpoint = edited.open()) {
                assertThatThrownBy(checkpoint::layers)
                        .isInstanceOf(CheckpointException.class)
                        .hasMessageContaining("'" + MIXTRAL + "gate.weight'")
                        .hasMessageContaining(
                                "expected [6, 44] after config.json (num_local_experts = 6,")
                        .hasMessageContaining("got F32 [7, 44]");
            }
        }
    }

    @Test
    void layers_refuseABiasThatTheRuleLacks() {
        try (EditedFolder edited = new EditedFolder("mixtral-0", folder)) {
            edited.tensors.put(MIXTRAL + "gate.bias", edited.allocate(DType.F32, 7));
            try (Checkpoint checkpoint = edited.open()) {
                assertThatThrownBy(checkpoint::layers)
                        .isInstanceOf(CheckpointException.class)
                        .hasMessageContaining("'" + MIXTRAL + "gate.bias'");
            }
        }
    }

    @Test
    void layers_refuseASharedExpertThatTheConfigDenies() {
        try (EditedFolder edited = new EditedFolder("deepseek_v3-0", folder)) {
            edited.set("n_shared_experts", "null");
            try (Checkpoint checkpoint = edited.open()) {
                assertThatThrownBy(checkpoint::layers)
                        .isInstanceOf(CheckpointException.class)
                        .hasMessageContaining("expected no shared expert")
                        .hasMessageContaining(QWEN3 + "shared_experts.gate_proj.weight");
            }
        }
    }

    @Test
    void load_refusesQuantisedTensorsButLayersListThem() {
        Path fixtures = EditedFolder.GOLDEN.resolve("fixtures");
        try (Arena arena = Arena.ofConfined();
                Checkpoint fp8 = Checkpoint.open(fixtures.resolve("deepseek_v3-fp8"));
                Checkpoint mxfp4 = Checkpoint.open(fixtures.resolve("gpt_oss-mxfp4"))) {
            assertThat(fp8.layer(0).storedType()).isEqualTo(DType.F8_E4M3);
            assertThat(mxfp4.layer(0).storedType()).isEqualTo(DType.MXFP4);
            assertThat(mxfp4.layer(0).config().numExperts()).isEqualTo(4);
            assertThatThrownBy(() -> fp8.load(0, DType.F32, arena, LoadProgress.NONE))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining(
                            "'"
                                    + QWEN3
                                    + "experts.0.gate_proj.weight' is quantised"
                                    + " (F8_E4M3 [128, 256])");
            assertThatThrownBy(() -> mxfp4.load(0, null, arena, LoadProgress.NONE))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining(
                            "'"
                                    + QWEN3
                                    + "experts.gate_up_proj_blocks' is quantised"
                                    + " (U8 [4, 64, 2, 16])");
        }
    }
}
