package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

import java.util.List;

class NearestNamesTest {
    @Test
    void of_ordersByDistance() {
        assertThat(NearestNames.of("kitten", List.of("sitting", "mitten", "kitchen", "kitten"), 3))
                .containsExactly("kitten", "mitten", "kitchen");
    }

    @Test
    void of_keepsTheOrderOfEquals() {
        assertThat(NearestNames.of("a", List.of("bb", "b", "c", "d", "e"), 3))
                .containsExactly("b", "c", "d");
        assertThat(NearestNames.of("", List.of("a"), 3)).containsExactly("a");
        assertThat(NearestNames.of("a", List.of(), 3)).isEmpty();
    }

    @Test
    void of_comparesTheBeginningOfLongNames() {
        String name = "x".repeat(10_000_000);
        assertThat(NearestNames.of("x".repeat(300), List.of(name, "x"), 1)).containsExactly(name);
    }
}
