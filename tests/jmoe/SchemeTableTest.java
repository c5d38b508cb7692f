package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Capacity;
import jmoe.ops.CapacityLimit;
import jmoe.ops.InputTransform;
import jmoe.ops.LogitTransform;
import jmoe.ops.RouterConfig;

import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The README's table of routing schemes has every choice that there is. */
final class SchemeTableTest {
    private static final String HEADING = "## Routing schemes";

    @Test
    void table_hasEveryChoice() throws IOException {
        String table = table();
        List<String> choices = new ArrayList<>();
        for (Class<?> kind :
                List.of(
                        RouterConfig.Selection.class,
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
        List<String> rows = table().lines().filter(line -> line.startsWith("| ")).skip(1).toList();
        assertThat(rows)
                .hasSizeGreaterThan(20)
                .allMatch(row -> row.endsWith("| yes | yes | yes | yes |"));
    }

    private static String table() throws IOException {
        String readme = Files.readString(Path.of("README.md"));
        int from = readme.indexOf(HEADING);
        assertThat(from).as(HEADING).isNotNegative();
        return readme.substring(from, readme.indexOf("\n## ", from + 1));
    }
}
