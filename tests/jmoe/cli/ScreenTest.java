package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

import java.io.PrintWriter;
import java.io.StringWriter;

final class ScreenTest {
    private final StringWriter out = new StringWriter();
    private final PrintWriter writer = new PrintWriter(out);

    @Test
    void field_breaksLongValuesBetweenWords() {
        Screen.plain(writer, writer).field("label", "word ".repeat(30) + "x".repeat(90));
        assertThat(out.toString().lines().limit(3)).allMatch(line -> line.length() <= 80);
        assertThat(out.toString()).startsWith("  label       word word");
        assertThat(out.toString().lines().skip(1))
                .allMatch(line -> line.startsWith(" ".repeat(14)));
    }

    @Test
    void colour_isOnlyUsedWhereItIsUnderstood() {
        Screen plain = Screen.plain(writer, writer);
        Screen coloured = new Screen(writer, writer, true, true, true);
        assertThat(plain.good("ok")).isEqualTo("ok");
        assertThat(coloured.good("ok")).isEqualTo("\u001b[32mok\u001b[0m");
    }

    @Test
    void table_alignsColouredCells() {
        Screen coloured = new Screen(writer, writer, true, true, true);
        TextTable table = new TextTable("lrl", "name", "n", "end");
        table.row(coloured.good("a"), "10", "x");
        table.row("long name", "1", "");
        table.print(coloured);
        assertThat(out.toString().replaceAll("\u001b\\[\\d+m", "").lines())
                .containsExactly("  name        n  end", "  a          10  x", "  long name   1");
    }
}
