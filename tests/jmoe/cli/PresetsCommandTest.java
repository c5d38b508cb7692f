package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.Preset;
import jmoe.Presets;

import org.junit.jupiter.api.Test;

import tools.jackson.databind.JsonNode;

final class PresetsCommandTest {
    @Test
    void presets_listSizesAndRulesInEightyColumns() {
        String out = jmoe("presets").succeeded().out();
        for (Preset preset : Presets.all()) {
            assertThat(out.lines().filter(line -> line.startsWith("  " + preset.name() + " ")))
                    .as(preset.name())
                    .hasSize(2);
            String also = String.join(", ", preset.aliases());
            assertThat(out.replaceAll("\\s+", " ")).contains(also);
        }
        assertThat(out.lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
        assertThat(out.replaceAll("\\s+", " "))
                .contains("mixtral-8x7b 4096 14336 8 2 0 1.41B 352M 2.82 GB")
                .contains("ernie-4.5-vl-28b 2560 1536/512 2x64 6 2 1.03B 94.5M 2.06 GB")
                .contains("peer-1m 512 1 1.05M 16 0 1.08B 1.44M 2.15 GB")
                .contains("moma-1.4b 2048 5464 2x4 4 0 269M 33.6M 537 MB")
                .contains("top 2 of softmax(standardised logits), renormalised")
                .contains("softmax(logits + noise of 0.03125), not renormalised")
                .contains("top 2 of softmax(logits / 0.1)", "experts of one matrix", "of 2 outputs")
                .contains("8 groups by softmax(logits), not renormalised, times a factor of each")
                .contains("for each of 8 heads with keys of 128 + 128; experts of a neuron")
                .contains("deepseek-v3 top 8 of sigmoid(logits) + bias in the best 4 of 8")
                .contains("SwiGLU clamped at 7, released in mxfp4");
    }

    @Test
    void presets_ofNamesTellEverything() {
        String out = jmoe("presets", "deepseek-r1", "SWITCH-C").succeeded().out();
        assertThat(out.replaceAll("\\s+", " "))
                .contains("deepseek-v3 also deepseek-r1 sizes hidden 7168, 256 experts, top-8")
                .contains("398M active of 11.3B (398,196,992 of 11,320,164,608)")
                .contains("22.6 GB in bf16, 11.3 GB as released (f8_e4m3)")
                .contains("58 MoE layers, 671B parameters, 37.0B active")
                .contains("loss of each sequence 1.0e-4, step of the selection bias 0.001")
                .contains("source DeepSeek-AI 2024, DeepSeek-V3")
                .contains("training capacity factor 1 balance load-balancing loss 0.01");
        assertThat(out.lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
    }

    @Test
    void presets_withoutAModelSayWhatIsKnown() {
        String out = jmoe("presets", "peer-1m", "v-moe-b16", "grok-1").succeeded().out();
        assertThat(out.replaceAll("\\s+", " "))
                .contains("biases router parameters 1.44M active of 1.08B")
                .contains("importance loss 0.005, load loss 0.005")
                .contains("4.83 GB as released (i8)")
                .doesNotContain("0 MoE layers");
        JsonNode peer = jmoe("presets", "peer-1m", "--json").json().get("presets").get(0);
        assertThat(peer.get("experts").asString()).isEqualTo("Neurons");
        assertThat(peer.get("heads").asInt()).isEqualTo(8);
        assertThat(peer.get("modelParameters").isNull()).isTrue();
    }

    @Test
    void presets_reportJson() {
        JsonNode all = jmoe("presets", "--json").json().get("presets");
        assertThat(all.size()).isEqualTo(Presets.all().size());
        for (JsonNode preset : all) {
            assertThat(preset.propertyNames())
                    .contains(
                            "name",
                            "hidden",
                            "intermediate",
                            "numExperts",
                            "topK",
                            "sharedExperts",
                            "sharedIntermediate",
                            "activation",
                            "score",
                            "selection",
                            "parameters",
                            "activeParameters",
                            "bytes",
                            "aliases");
            Preset same = Presets.of(preset.get("name").asString());
            assertThat(preset.get("parameters").asLong()).isEqualTo(same.parameters());
            assertThat(preset.get("topK").asInt()).isEqualTo(same.config().topK());
        }
        JsonNode v3 = jmoe("presets", "deepseek-v3", "deepseek-r1", "--json").json().get("presets");
        assertThat(v3.size()).isEqualTo(1);
        assertThat(v3.get(0).get("selection").asString()).isEqualTo("GroupLimited");
        assertThat(v3.get(0).get("score").asString()).isEqualTo("sigmoid");
        assertThat(v3.get(0).get("modelParameters").asLong()).isEqualTo(671_000_000_000L);
        assertThat(v3.get(0).get("aliases").get(0).asString()).isEqualTo("deepseek-r1");
        assertThat(v3.get(0).get("balance").get("selectionBias").asDouble()).isEqualTo(1e-3);
        assertThat(v3.get(0).get("trainingCapacity").isNull()).isTrue();
    }

    @Test
    void presets_suggestNames() {
        jmoe("presets", "dbrxx")
                .refused(
                        "jmoe: preset: expected the name of a published layer, got dbrxx;"
                                + " nearest: dbrx, ",
                        "; jmoe presets lists all");
    }
}
