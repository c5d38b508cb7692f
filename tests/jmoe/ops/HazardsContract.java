package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;

/**
 * Every argument of every operation against a page that ends the process when touched, once behind
 * its last byte and once before its first.
 */
interface HazardsContract extends Contract {
    /** Sizes that leave every tail of vectors up to 32 elements; some of them for slow backends. */
    static Stream<Case> tails() {
        Pattern[] patterns = Pattern.values();
        int step = Integer.getInteger(Cases.MAX_TOKENS_PROPERTY) == null ? 1 : 7;
        return Stream.iterate(1, n -> n <= 33, n -> n + step)
                .map(n -> new Case(1 + n % 5, 1 + n % 4, 1, n, 34 - n, patterns[n % 7]));
    }

    @ParameterizedTest
    @MethodSource("tails")
    default void everyOperation_staysWithinItsArguments(Case c) {
        Assumptions.assumeTrue(GuardedMemory.available());
        try (Arena arena = Arena.ofConfined();
                GuardedMemory guarded = new GuardedMemory()) {
            List<byte[]> want = run(Invocation.all(c, arena));
            List<Invocation> before =
                    Invocation.all(
                            c,
                            (dtype, shape) ->
                                    Tensor.of(guarded.before(bytes(dtype, shape)), dtype, shape));
            assertSameBytes("guard page behind the last byte", c, want, run(before));
            List<Invocation> behind =
                    Invocation.all(
                            c,
                            (dtype, shape) ->
                                    Tensor.of(guarded.behind(bytes(dtype, shape)), dtype, shape));
            assertSameBytes("guard page before the first byte", c, want, run(behind));
        }
    }

    private List<byte[]> run(List<Invocation> invocations) {
        List<byte[]> bytes = new ArrayList<>();
        for (Invocation invocation : invocations) {
            invocation.run(backend());
            bytes.addAll(invocation.outputBytes());
        }
        return bytes;
    }

    private static void assertSameBytes(String where, Case c, List<byte[]> want, List<byte[]> got) {
        assertThat(got)
                .as("%s, %s", where, c)
                .usingElementComparator(Arrays::compare)
                .isEqualTo(want);
    }

    private static long bytes(DType dtype, long... shape) {
        return dtype.numBytes(Arrays.stream(shape).reduce(1, (a, b) -> a * b));
    }
}
