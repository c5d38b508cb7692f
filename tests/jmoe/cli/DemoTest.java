package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

final class DemoTest {
    @Test
    void demo_checksAndMeasures() {
        String out = jmoe("demo").succeeded().out();
        assertThat(out)
                .contains("mixtral-0", "64 experts, top-8, 2048 x 1024", "All results are right.")
                .containsPattern("(?m)^ +1 +\\d")
                .containsPattern("(?m)^ +16 +\\S")
                .containsPattern("(?m)^ +128 +\\S")
                .doesNotContain("OUT OF TOLERANCE");
        assertThat(out.lines()).allMatch(line -> line.length() <= Screen.COLUMNS);
    }
}
