package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.foreign.Arena;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

final class TensorListTest {
    private static List<String> names(boolean all, String... names) {
        StringWriter out = new StringWriter();
        try (Arena arena = Arena.ofConfined()) {
            Map<String, Tensor> tensors = new LinkedHashMap<>();
            for (String name : names) {
                // One letter for another shape.
                long rows = name.endsWith("!") ? 3 : 2;
                tensors.put(name, Tensor.allocate(arena, DType.F32, rows, 2));
            }
            PrintWriter writer = new PrintWriter(out);
            new TensorList(tensors).print(Screen.plain(writer, writer), all);
        }
        return out.toString()
                .lines()
                .skip(1)
                .map(line -> line.substring(line.lastIndexOf("  ") + 2))
                .toList();
    }

    @Test
    void print_foldsNumbersThatFormAProduct() {
        assertThat(names(false, "l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w", "l.1.e.1.w", "head"))
                .containsExactly("l.{0,1}.e.{0,1}.w", "head");
    }

    @Test
    void print_keepsLayersApartWhereExpertsDiffer() {
        assertThat(names(false, "l.0.e.0.w", "l.0.e.1.w", "l.0.e.2.w", "l.1.e.0.w"))
                .containsExactly("l.0.e.{0..2}.w", "l.1.e.0.w");
    }

    @Test
    void print_foldsEqualTensorsOnly() {
        assertThat(names(false, "e.0.w!", "e.0.w", "e.1.w!", "e.1.w"))
                .containsExactly("e.{0,1}.w!", "e.{0,1}.w");
        assertThat(names(false, "w1", "w2", "e_0.w", "e_1.w"))
                .containsExactly("w1", "w2", "e_{0,1}.w");
    }

    @Test
    void print_namesGapsAndKeepsLeadingZeros() {
        assertThat(names(false, "e.0", "e.1", "e.2", "e.5", "e.7")).containsExactly("e.{0..2,5,7}");
        assertThat(names(false, "e.00", "e.01")).containsExactly("e.00", "e.01");
    }

    @Test
    void print_listsAllOnDemand() {
        assertThat(names(true, "e.0", "e.1")).containsExactly("e.0", "e.1");
    }

    @Test
    void print_keepsHostileNamesOnOneLine() {
        assertThat(names(false, "a\nb\u001b[31m")).containsExactly("a b [31m");
    }
}
