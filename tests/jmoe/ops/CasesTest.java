package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;

import org.junit.jupiter.api.Test;

import java.util.List;
import java.util.function.ToIntFunction;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The selection of cases holds what its documentation says. */
final class CasesTest {
    private static final int[] WIDTHS =
            IntStream.concat(IntStream.rangeClosed(1, 17), IntStream.of(32, 33, 40, 100)).toArray();

    @Test
    void all_holdsEveryValue() {
        assertThat(values(Case::tokens)).contains(0, 1, 2, 7, 33, 127, 128, 129, 1000);
        assertThat(values(Case::numExperts)).contains(1, 2, 7, 8, 60, 64, 256);
        assertThat(values(Case::topK)).contains(1, 2, 8);
        assertThat(Cases.all()).anyMatch(c -> c.topK() == c.numExperts() && c.topK() > 8);
        for (int width : WIDTHS) {
            assertThat(values(Case::hidden)).contains(width);
            assertThat(values(Case::intermediate)).contains(width);
        }
    }

    @Test
    void all_holdsEveryPatternWithSeveralTokens() {
        for (Pattern pattern : Pattern.values()) {
            assertThat(Cases.all()).anyMatch(c -> c.pattern() == pattern && c.tokens() > 1);
        }
    }

    @Test
    void dtype_mixesTypesOfArguments() {
        Stream<List<?>> mixes =
                Cases.all().stream().map(c -> List.of(c.dtype(0), c.dtype(1), c.dtype(2)));
        assertThat(mixes.distinct().count()).isGreaterThan(10);
    }

    private static List<Integer> values(ToIntFunction<Case> value) {
        return Cases.all().stream().mapToInt(value).boxed().toList();
    }
}
