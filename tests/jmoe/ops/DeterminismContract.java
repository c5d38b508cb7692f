package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Logits;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** The same bits every time, from every thread, in every batch. */
interface DeterminismContract extends Contract {
    /** Large enough that a backend shares the work out; for slow backends, just so. */
    Case BATCH =
            new Case(
                    Integer.getInteger(Cases.MAX_TOKENS_PROPERTY) == null ? 257 : 67,
                    8,
                    2,
                    67,
                    41,
                    Pattern.UNIFORM);

    @Test
    default void everyOperation_repeatsItsBits() {
        try (Arena arena = Arena.ofConfined()) {
            for (Invocation invocation : Invocation.all(BATCH, arena)) {
                invocation.run(backend());
                List<byte[]> first = invocation.outputBytes();
                invocation.run(backend());
                assertSameBytes(invocation.op(), first, invocation.outputBytes());
            }
        }
    }

    @Tag("broad")
    @Test
    default void everyOperation_mayBeCalledByManyThreads() throws Exception {
        List<byte[]> want = new ArrayList<>();
        try (Arena arena = Arena.ofConfined()) {
            for (Invocation invocation : Invocation.all(BATCH, arena)) {
                invocation.run(backend());
                want.addAll(invocation.outputBytes());
            }
        }
        Callable<List<byte[]>> caller =
                () -> {
                    List<byte[]> got = new ArrayList<>();
                    try (Arena arena = Arena.ofConfined()) {
                        for (Invocation invocation : Invocation.all(BATCH, arena)) {
                            invocation.run(backend());
                            got.addAll(invocation.outputBytes());
                        }
                    }
                    return got;
                };
        try (ExecutorService threads = Executors.newFixedThreadPool(4)) {
            for (var got : threads.invokeAll(List.of(caller, caller, caller, caller))) {
                assertSameBytes("concurrent calls", want, got.get());
            }
        }
    }

    private static void assertSameBytes(String op, List<byte[]> want, List<byte[]> got) {
        assertThat(got).as(op).usingElementComparator(Arrays::compare).isEqualTo(want);
    }

    @ParameterizedTest
    @EnumSource
    default void route_doesNotDependOnBatch(Score score) {
        List<Selection> selections =
                List.of(
                        new Selection.TopK(),
                        new Selection.GroupLimited(4, 2, GroupScore.TOP2_SUM),
                        new Selection.SparseMixer(0.1));
        for (Selection selection : selections) {
            try (Arena arena = Arena.ofConfined()) {
                int tokens = 67;
                int topK = 2;
                int experts = 20;
                RouterConfig config =
                        new RouterConfig(
                                experts,
                                topK,
                                score,
                                selection,
                                new Normalisation.Sum(0),
                                1,
                                false,
                                null,
                                RouterConfig.ALL_TOKENS);
                Tensor logits = Tensor.allocate(arena, DType.F32, tokens, experts);
                Cases.logits(logits, Logits.NORMAL, 1);
                Routing all = Routing.allocate(arena, tokens, topK, experts);
                backend().route(logits, config, RouteInputs.NONE, all);
                for (int first : new int[] {0, 1, 7, 31, 66}) {
                    for (int count : new int[] {1, 2, 33}) {
                        if (first + count <= tokens) {
                            Routing some = Routing.allocate(arena, count, topK, experts);
                            backend()
                                    .route(
                                            logits.slice(first, count),
                                            config,
                                            RouteInputs.NONE,
                                            some);
                            assertSame("route", some.topkIds(), all.topkIds().slice(first, count));
                            Tensor weights = all.topkWeights().slice(first, count);
                            assertSame("route", some.topkWeights(), weights);
                        }
                    }
                }
            }
        }
    }

    /** Rows of a group, alone and among 1, 2, ... others: kernels for few rows must not differ. */
    @Tag("broad")
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 64, 65})
    default void groupedGemm_doesNotDependOnBatch(int count) {
        for (DType dtype : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                int rows = 70;
                int in = 133;
                int out = 37;
                Tensor x = Cases.normal(arena, dtype, 1, rows, in);
                Tensor weight = Cases.normal(arena, dtype, 2, 1, out, in);
                Tensor bias = Cases.normal(arena, DType.F32, 3, 1, out);
                Tensor all = Tensor.allocate(arena, DType.F32, rows, out);
                backend().groupedGemm(x, weight, bias, Cases.offsets(arena, rows), all);
                for (int first : new int[] {0, 3, rows - count}) {
                    Tensor some = Tensor.allocate(arena, DType.F32, count, out);
                    Tensor part = x.slice(first, count);
                    backend().groupedGemm(part, weight, bias, Cases.offsets(arena, count), some);
                    String name = "groupedGemm %s rows %d+%d".formatted(dtype, first, count);
                    assertSame(name, some, all.slice(first, count));
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    default void swiglu_doesNotDependOnBatch(Activation.Kind kind) {
        Activation activation = new Activation(kind, 1);
        try (Arena arena = Arena.ofConfined()) {
            int width = 21;
            Tensor gateUp =
                    Cases.normal(arena, DType.F32, 1, 40, activation.gated() ? 2 * width : width);
            Tensor all = Tensor.allocate(arena, DType.BF16, 40, width);
            backend().swiglu(gateUp, activation, Cases.offsets(arena, 40), all);
            for (int first = 0; first < 40; first += 3) {
                Tensor one = Tensor.allocate(arena, DType.BF16, 1, width);
                Tensor row = gateUp.slice(first, 1);
                backend().swiglu(row, activation, Cases.offsets(arena, 1), one);
                assertSame("swiglu " + kind, one, all.slice(first, 1));
            }
        }
    }

    @Test
    default void permuteAndUnpermute_doNotDependOnBatch() {
        Case c = new Case(40, 6, 3, 21, 1, Pattern.SOME_NONE);
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            Tensor x = Cases.normal(arena, DType.F32, 1, c.tokens(), c.hidden());
            Tensor rows = Tensor.allocate(arena, DType.BF16, c.slots(), c.hidden());
            Tensor y = Tensor.allocate(arena, DType.BF16, c.tokens(), c.hidden());
            Tensor weights = routing.topkWeights();
            backend().permute(x, routing, weights, rows);
            backend().unpermute(rows, routing, weights, Residual.of(x), y);
            for (int t = 0; t < c.tokens(); t++) {
                Routing alone = Routing.allocate(arena, 1, c.topK(), c.numExperts());
                alone.topkIds().data().copyFrom(routing.topkIds().row(t).data());
                alone.topkWeights().data().copyFrom(weights.row(t).data());
                Cases.sort(alone);
                Tensor own = Tensor.allocate(arena, DType.BF16, c.topK(), c.hidden());
                Tensor sum = Tensor.allocate(arena, DType.BF16, 1, c.hidden());
                backend().permute(x.slice(t, 1), alone, alone.topkWeights(), own);
                for (int k = 0; k < c.topK(); k++) {
                    int row = alone.slotToRow().getInt(k);
                    if (row >= 0) {
                        int among = routing.slotToRow().getInt((long) t * c.topK() + k);
                        assertSame("permute", own.row(row), rows.row(among));
                    }
                }
                Residual residual = Residual.of(x.slice(t, 1));
                backend().unpermute(own, alone, alone.topkWeights(), residual, sum);
                assertSame("unpermute", sum, y.slice(t, 1));
            }
        }
    }

    private static void assertSame(String name, Tensor got, Tensor want) {
        assertThat(got.data().toArray(JAVA_BYTE))
                .as(name)
                .isEqualTo(want.data().toArray(JAVA_BYTE));
    }
}
