package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import jmoe.ops.Activation;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.foreign.Arena;
import java.util.Collections;
import java.util.List;
import java.util.Map;

final class LoadChartTest {
    private static LoadChart chart(Arena arena, int types, int identity, int... counts) {
        int experts = counts.length / types;
        RouterConfig router = RouterConfig.softmaxTopK(experts, 1, false);
        MoeConfig config =
                new MoeConfig(
                        "test",
                        8,
                        8,
                        experts - identity,
                        identity,
                        Activation.SWIGLU,
                        Collections.nCopies(types, router),
                        Collections.nCopies(types, 4),
                        0,
                        false,
                        1);
        Tensor load = Tensor.allocate(arena, DType.I32, counts.length);
        for (int i = 0; i < counts.length; i++) {
            load.setInt(i, counts[i]);
        }
        return new LoadChart(config, load);
    }

    private static String print(int types, int identity, boolean unicode, int... counts) {
        StringWriter out = new StringWriter();
        try (Arena arena = Arena.ofConfined()) {
            PrintWriter writer = new PrintWriter(out);
            chart(arena, types, identity, counts)
                    .print(new Screen(writer, writer, false, unicode, false));
        }
        assertThat(out.toString().lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
        return out.toString();
    }

    @Test
    void print_drawsABarPerExpert() {
        assertThat(print(1, 0, false, 2, 0, 4, 2).lines())
                .containsSequence(
                        "  0 2  " + "#".repeat(24),
                        "  1 0",
                        "  2 4  " + "#".repeat(48),
                        "  3 2  " + "#".repeat(24),
                        "  max/mean 2.00, coefficient of variation 0.71, 1 idle expert");
    }

    @Test
    void print_usesEighthsOfAColumnWhereItCan() {
        assertThat(print(1, 0, true, 1, 96)).contains("  0  1  ▌\n").contains("█".repeat(48));
    }

    @Test
    void print_marksIdentityExpertsAndSeparatesTokenTypes() {
        assertThat(print(1, 1, false, 1, 1, 1)).contains("# (identity)");
        assertThat(print(2, 0, false, 1, 1, 2, 0)).contains("token type 0", "token type 1");
    }

    @Test
    void print_shortensManyExperts() {
        int[] counts = new int[128];
        for (int i = 0; i < counts.length; i++) {
            counts[i] = i;
        }
        String text = print(1, 0, false, counts);
        assertThat(text).contains("the busiest 16 of 128", "  127 127  #", "    0   0\n");
        assertThat(text.lines().count()).isLessThan(30);
    }

    @Test
    void print_ofNoTokens() {
        assertThat(print(1, 0, false, 0, 0)).contains("no tokens");
    }

    @Test
    void json_hasTheFigures() {
        try (Arena arena = Arena.ofConfined()) {
            Map<String, Object> json = chart(arena, 1, 0, 1, 3).json().getFirst();
            assertThat(json.get("tokens_per_expert")).isEqualTo(List.of(1, 3));
            assertThat((double) json.get("max_over_mean")).isEqualTo(1.5);
            assertThat((double) json.get("coefficient_of_variation")).isCloseTo(0.5, within(1e-12));
            assertThat(json.get("idle_experts")).isEqualTo(0);
        }
    }
}
