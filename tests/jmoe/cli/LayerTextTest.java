package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.checkpoint.Checkpoint;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

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
