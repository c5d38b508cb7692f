package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.experiment.Experiment;
import jmoe.experiment.Experiments;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import tools.jackson.databind.JsonNode;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

import javax.imageio.ImageIO;

/** {@code jmoe experiment}. */
final class TryExperimentTest {
    @Test
    void withoutName_listsAll() {
        String out = jmoe("experiment").succeeded().out();
        JsonNode json = jmoe("experiment", "--json").json().get("experiments");
        assertThat(json).hasSize(Experiments.all().size());
        for (Experiment experiment : Experiments.all()) {
            assertThat(out).contains(experiment.name());
        }
    }

    @Test
    void report_isATableWithClaimAndFindings() {
        String out = jmoe("experiment", "modality", "--quick").succeeded().out();
        assertThat(out).contains("claim", "backend", "quick", "slots that cross", "finding");
    }

    @Test
    void json_hasEveryNumber() {
        JsonNode json =
                jmoe("experiment", "modality", "--quick", "--backend", "vector", "--json").json();
        assertThat(json.get("name").asString()).isEqualTo("modality");
        assertThat(json.get("rows")).hasSize(5);
        assertThat(json.get("rows").get(0).get("rows that differ").asDouble()).isZero();
        assertThat(json.get("findings")).isNotEmpty();
        assertThat(json.get("backend").get("name").asString()).isEqualTo("vector");
    }

    @Test
    void chart_isAPicture(@TempDir Path folder) throws IOException {
        Path png = folder.resolve("modality.png");
        jmoe("experiment", "modality", "--quick", "--chart", png).succeeded();
        assertThat(ImageIO.read(png.toFile()).getWidth()).isPositive();
        Path svg = folder.resolve("modality.svg");
        jmoe("experiment", "modality", "--quick", "--chart", svg).succeeded();
        assertThat(Files.readString(svg)).contains("<svg", "<path");
    }

    @Test
    void mistakes_areOneSentence(@TempDir Path folder) {
        jmoe("experiment", "modalities").refused("NAME: expected one of", "got modalities");
        jmoe("experiment", "modality", "--chart", folder.resolve("a.gif")).refused(".svg or .png");
        jmoe("experiment", "modality", "--chart", folder.resolve("none/a.svg"))
                .refused("cannot be written");
        jmoe("experiment", "modality", "--backend", "tpu").refused("--backend", "got tpu");
    }
}
