package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.checkpoint.Checkpoint;
import jmoe.ops.InputTransform;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.util.List;

final class LayerTextTest {
    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    mixtral-0             | softmax(logits), renormalised
                    jamba-0               | softmax(logits), not renormalised
                    deepseek_v3-0         | of sigmoid(logits) + bias in the best
                    deepseek_v3-0         | groups (by sum of top 2)
                    phimoe-0              | sparse mixer: two argmaxes
                    doge-0                | over 4 x 4 product keys
                    llama4-0              | weights multiply the experts' input
                    switch_transformers-0 | at most 6 tokens per expert
                    nllb_moe-0            | % of the tokens per expert
                    ernie4_5_moe-0        | renormalised (sum of at least
                    lfm2_moe-0            | renormalised (sum + 1.0e-6)
                    dbrx-0                | softmax(logits)
                    """)
    void rule_isInWords(String checkpoint, String words) {
        try (Checkpoint files = Checkpoint.open(Commands.GOLDEN.resolve(checkpoint))) {
            assertThat(LayerText.rule(files.layers().getFirst())).contains(words);
        }
    }

    @Test
    void rule_saysWhatTheRouterReads() {
        try (Checkpoint files = Checkpoint.open(Commands.GOLDEN.resolve("mixtral-0"))) {
            MoeConfig config = files.layers().getFirst().config();
            RouterConfig router =
                    config.routers()
                            .getFirst()
                            .withInputTransforms(
                                    List.of(
                                            new InputTransform.Jitter(1, 0.01),
                                            new InputTransform.Cosine(0)));
            MoeConfig transformed =
                    new MoeConfig(
                            config.family(),
                            config.hidden(),
                            config.expertHidden(),
                            config.numExperts(),
                            0,
                            config.activation(),
                            List.of(router),
                            config.intermediates(),
                            0,
                            false,
                            1);
            assertThat(LayerText.rule(transformed, false))
                    .endsWith(
                            "renormalised, router input times 1 +- 0.01, logits are cosines of"
                                    + " tokens and experts");
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    longcat_flash-0   | identity
                    nemotron_h-1      | latent
                    qwen2_moe-0       | gated shared expert
                    deepseek_v3-0     | shared expert
                    ernie4_5_vl_moe-0 | 2 token types with 4 experts, top-3, intermediate 25/24
                    """)
    void sizes_nameWhatIsSpecial(String checkpoint, String words) {
        try (Checkpoint files = Checkpoint.open(Commands.GOLDEN.resolve(checkpoint))) {
            assertThat(LayerText.sizes(files.layers().getFirst().config())).contains(words);
        }
    }
}
