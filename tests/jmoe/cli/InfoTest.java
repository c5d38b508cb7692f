package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.Backend;

import org.junit.jupiter.api.Test;

import tools.jackson.databind.JsonNode;

final class InfoTest {
    @Test
    void info_namesEveryBackendAndWhyNot() {
        String out = jmoe("info").succeeded().out();
        for (Backend backend : Backend.values()) {
            assertThat(out)
                    .containsPattern(
                            "  "
                                    + backend.id()
                                    + " +"
                                    + (backend.unavailable().isEmpty() ? "" : "not ")
                                    + "available: ");
            for (String note : backend.notes()) {
                assertThat(out).contains(note);
            }
        }
        assertThat(out).contains("java ", "cpu ", "cores ", "memory ", "used by default");
    }

    @Test
    void info_reportsJson() {
        JsonNode json = jmoe("info", "--json").json();
        assertThat(json.propertyNames())
                .contains("java", "os", "arch", "cpu", "cpu_features", "cores", "memory_bytes");
        assertThat(json.get("backends").size()).isEqualTo(Backend.values().length);
        for (JsonNode backend : json.get("backends")) {
            boolean available = backend.get("available").asBoolean();
            assertThat(backend.has("description")).isEqualTo(available);
            assertThat(backend.has("reason")).isNotEqualTo(available);
            assertThat(backend.has("remedy")).isNotEqualTo(available);
            assertThat(backend.path("notes").size())
                    .isEqualTo(Backend.of(backend.get("name").asString()).notes().size());
        }
        assertThat(json.get("best").asString()).isEqualTo(Backend.best().id());
    }
}
