package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Capacity;
import jmoe.ops.CapacityLimit;
import jmoe.ops.InputTransform;
import jmoe.ops.LogitTransform;
import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;

import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/**
 * The README's table of routing schemes has every choice that there is, and stands in the javadoc
 * too: {@code mvn test -Dtest=SchemeTableTest -Djmoe.format=write} copies it there.
 */
final class SchemeTableTest {
    private static final String HEADING = "## Routing schemes";
    private static final Path JAVADOC = Path.of("src/jmoe/ops/package-info.java");
    private static final String TABLE = " * <table>\n";
    private static final String END = " * </table>\n";

    @Test
    void table_hasEveryChoice() throws IOException {
        String table = table();
        List<String> choices = new ArrayList<>();
        for (Class<?> kind :
                List.of(
                        Selection.class,
                        RouterConfig.Normalisation.class,
                        LogitTransform.class,
                        InputTransform.class,
                        Capacity.Overflow.class)) {
            for (Class<?> choice : kind.getPermittedSubclasses()) {
                choices.add(choice.getSimpleName());
            }
        }
        for (Class<? extends Enum<?>> kind :
                List.of(
                        RouterConfig.Score.class,
                        RouterConfig.GroupScore.class,
                        RouterConfig.Scope.class,
                        Capacity.Priority.class,
                        CapacityLimit.Rounding.class)) {
            for (Enum<?> choice : kind.getEnumConstants()) {
                choices.add(choice.name());
            }
        }
        assertThat(table).contains(choices);
    }

    @Test
    void table_hasEveryBackendOnEveryRow() throws IOException {
        assertThat(rows().skip(1))
                .hasSizeGreaterThan(20)
                .allMatch(row -> row.endsWith("| yes | yes | yes | yes |"));
    }

    @Test
    void table_standsInTheJavadoc() throws IOException {
        String javadoc = Files.readString(JAVADOC);
        int from = javadoc.indexOf(TABLE);
        int to = javadoc.indexOf(END);
        String want = javadoc.substring(0, from) + html() + javadoc.substring(to);
        if ("write".equals(System.getProperty("jmoe.format"))) {
            Files.writeString(JAVADOC, want);
        } else {
            assertThat(javadoc).isEqualTo(want);
        }
    }

    private static String html() throws IOException {
        StringBuilder html = new StringBuilder(TABLE);
        html.append(" * <caption>Routing schemes, their sources and backends</caption>\n");
        String cell = "th";
        for (String row : rows().toList()) {
            String cells = row.substring(1, row.length() - 1).strip();
            html.append(" * <tr>");
            for (String content : cells.split(" \\| ")) {
                String text = content.replaceAll("`([^`]*)`", "{@code $1}");
                html.append("<%s>%s</%s>".formatted(cell, text, cell));
            }
            html.append("</tr>\n");
            cell = "td";
        }
        return html.toString();
    }

    /** The first is the heading. */
    private static Stream<String> rows() throws IOException {
        return table().lines()
                .filter(line -> line.startsWith("| "))
                .filter(line -> !line.startsWith("|-"));
    }

    private static String table() throws IOException {
        String readme = Files.readString(Path.of("README.md"));
        int from = readme.indexOf(HEADING);
        assertThat(from).as(HEADING).isNotNegative();
        return readme.substring(from, readme.indexOf("\n## ", from + 1));
    }
}
