package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

import tools.jackson.databind.JsonNode;

import java.io.PrintWriter;
import java.io.StringWriter;

final class SpeedCheckTest {
    @Test
    void run_comparesEveryKernelWithItsFloor() {
        Commands.Outcome outcome = check(0, false);
        assertThat(outcome.status()).isZero();
        assertThat(outcome.out())
                .contains("groupedGemm", "gateUpSwiglu", "route", "sortByExpert", "permute")
                .contains("swiglu", "unpermute", "f32, 1 row per expert", "f16, 64 rows per expert")
                .contains("every kernel is above its floor");
        assertThat(outcome.out().lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
    }

    @Test
    void run_failsBelowAFloor() {
        Commands.Outcome outcome = check(1e6, true);
        assertThat(outcome.status()).isEqualTo(1);
        JsonNode json = outcome.json();
        assertThat(json.get("failed").asInt()).isEqualTo(json.get("kernels").size());
        for (JsonNode kernel : json.get("kernels")) {
            assertThat(kernel.get("ok").asBoolean()).isFalse();
            assertThat(kernel.get("share").asDouble())
                    .isPositive()
                    .isLessThan(kernel.get("floor").asDouble());
        }
    }

    @Test
    void verify_refusesOtherBackendsAndCheckpoints() {
        jmoe("verify", "--speed", "--backend", "reference")
                .refused("--speed: expected the backend");
        jmoe("verify", "--speed", "--golden", "tests/golden").refused("--golden: ");
    }

    private static Commands.Outcome check(double strictness, boolean json) {
        StringWriter out = new StringWriter();
        Screen screen = Screen.plain(new PrintWriter(out), new PrintWriter(new StringWriter()));
        try (OpenBackend backend = OpenBackend.start("vector", null)) {
            int status = new SpeedCheck(screen, backend, 0, strictness).run(json);
            return new Commands.Outcome(status, out.toString(), "");
        }
    }
}
