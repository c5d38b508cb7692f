package jmoe.cli;

import static jmoe.cli.Commands.jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.Writer;

final class MainTest {
    @ParameterizedTest
    @ValueSource(
            strings = {"run", "route", "bench", "presets", "demo", "info", "inspect", "verify"})
    void help_showsUsageAndExamplesInEightyColumns(String command) {
        String out = jmoe(command, "--help").succeeded().out();
        assertThat(out).startsWith("Usage: jmoe " + command).contains("Example", "  jmoe ");
        assertThat(out.lines()).allMatch(line -> line.length() <= 80);
        // A footer line that is too long would be broken in the middle.
        assertThat(out.lines()).allMatch(line -> !line.endsWith(" "));
    }

    @Test
    void help_listsCommandsAndExitStatuses() {
        assertThat(jmoe("--help").succeeded().out())
                .contains(
                        "run ",
                        "bench ",
                        "presets ",
                        "demo ",
                        "info ",
                        "inspect ",
                        "verify ",
                        "Exit status");
    }

    @Test
    void version_isOneLine() {
        assertThat(jmoe("--version").succeeded().out().lines()).hasSize(1);
        assertThat(jmoe("run", "--version").succeeded().out()).startsWith("jmoe ");
    }

    @Test
    void usage_isRefusedInOneLine() {
        jmoe().refused("missing command", "jmoe --help");
        jmoe("rum")
                .refused(
                        "unknown command 'rum'; commands: run, route, bench, presets, experiment,"
                                + " demo, info, inspect, verify, bundle; see jmoe --help");
        jmoe("run").refused("--input", "CHECKPOINT", "jmoe run --help");
        jmoe("info", "--fast").refused("--fast", "jmoe info --help");
        jmoe("run", "x", "--input", "y", "--layer", "first").refused("--layer", "first");
    }

    @Test
    void run_isTheEntryForPrograms() {
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        String[] args = {
            "run",
            Commands.GOLDEN.resolve("olmoe-0").toString(),
            "--input",
            Commands.golden("olmoe-0", "t7.x"),
            "--repeat",
            "2"
        };
        assertThat(Main.run(args, new PrintWriter(out), new PrintWriter(err))).isZero();
        assertThat(out.toString()).contains("medians of 2 passes after a second of warm-up");
        assertThat(err.toString()).isEmpty();
    }

    @Test
    void run_seesThatResultsAreLost() {
        Writer full =
                new Writer() {
                    @Override
                    public void write(char[] text, int offset, int length) throws IOException {
                        throw new IOException("No space left on device");
                    }

                    @Override
                    public void flush() {}

                    @Override
                    public void close() {}
                };
        StringWriter err = new StringWriter();
        int status = Main.run(new String[] {"info"}, new PrintWriter(full), new PrintWriter(err));
        assertThat(status).isEqualTo(2);
        assertThat(err)
                .hasToString(
                        "jmoe: cannot write the results to standard output (is the disk full?)"
                                + System.lineSeparator());
    }

    @Test
    void streams_stayApart() {
        assertThat(jmoe("rum").out()).isEmpty();
        assertThat(jmoe("info").succeeded().out()).doesNotContain("\u001b");
    }
}
