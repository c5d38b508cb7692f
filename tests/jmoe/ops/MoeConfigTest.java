package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;

import java.util.List;

final class MoeConfigTest {
    /** Experts without weights: how many return the input, nothing, and a mix with a constant. */
    private static MoeConfig config(int identities, int nulls, int constants) {
        return new MoeConfig(
                "own",
                16,
                16,
                4,
                identities,
                Activation.SWIGLU,
                List.of(RouterConfig.softmaxTopK(5, 2, true)),
                List.of(8),
                0,
                false,
                1,
                nulls,
                List.of(),
                constants);
    }

    @Test
    void config_refusesNegativeNumbersOfExperts() {
        assertRefused(() -> config(-1, 2, 0), "numIdentityExperts: expected at least 0, got -1");
        assertRefused(() -> config(2, -1, 0), "numNullExperts: expected at least 0, got -1");
        assertRefused(() -> config(2, 0, -1), "numConstantExperts: expected at least 0, got -1");
    }

    @Test
    void config_refusesRoutersOfOtherNumbersOfExperts() {
        assertThatThrownBy(() -> config(1, 1, 0))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith("routers: expected numExperts=6 and one topK, got ");
    }

    private static void assertRefused(Runnable make, String message) {
        assertThatThrownBy(make::run)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(message);
    }
}
