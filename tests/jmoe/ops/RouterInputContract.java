package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Logits;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.InputTransform.Cosine;
import jmoe.ops.InputTransform.Jitter;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.util.List;

/**
 * {@link Kernels#jitter} against {@link RouterInputOracle}, and against the reference to the last
 * bit; {@link Kernels#router} with transforms of its input.
 */
interface RouterInputContract extends Contract {
    /** The epsilon of Switch Transformers, and a seed of more than 32 bits. */
    Jitter JITTER = new Jitter(1L << 40 | 7, 0.01);

    Cosine COSINE = new Cosine(1e-12);

    private static Tensor step(Arena arena, int number) {
        Tensor step = Tensor.allocate(arena, DType.I32, 1);
        step.setInt(0, number);
        return step;
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 37, 1344, 2080})
    default void jitter_isItsFormula(int hidden) {
        for (DType type : Cases.FLOATING) {
            for (int tokens : new int[] {0, 2}) {
                try (Arena arena = Arena.ofConfined()) {
                    Tensor x = Cases.normal(arena, type, hidden, tokens, hidden);
                    Tensor want = RouterInputOracle.jitter(arena, x, JITTER, -hidden);
                    Poisoned y = Poisoned.allocate(arena, DType.F32, tokens, hidden);
                    backend().jitter(x, JITTER, step(arena, -hidden), y.tensor());
                    String name = "%s T=%d H=%d".formatted(type, tokens, hidden);
                    Tolerance.assertClose("jitter", name, y.tensor(), want, 1);
                    y.assertUntouchedFrom("jitter", name, tokens);
                }
            }
        }
    }

    /** NaN, infinities, numbers that overflow, and those that are hardly any. */
    @ParameterizedTest
    @EnumSource
    default void jitter_givesTheBitsOfTheReference(Logits kind) {
        for (DType type : Cases.FLOATING) {
            for (int hidden : new int[] {37, 64}) {
                try (Arena arena = Arena.ofConfined();
                        Kernels reference = new ReferenceKernels()) {
                    Tensor x = Tensor.allocate(arena, type, 9, hidden);
                    Cases.logits(x, kind, hidden);
                    x.setDouble(1, -0.0);
                    x.setDouble(2, 0x1p-149);
                    x.setDouble(3, -Float.MAX_VALUE);
                    Jitter wide = new Jitter(-3, 1);
                    Tensor want = Tensor.allocate(arena, DType.F32, 9, hidden);
                    Tensor got = Tensor.allocate(arena, DType.F32, 9, hidden);
                    for (Jitter jitter : List.of(JITTER, wide, new Jitter(4, 0))) {
                        reference.jitter(x, jitter, null, want);
                        backend().jitter(x, jitter, null, got);
                        assertBytes("%s %s %s".formatted(kind, type, jitter), got, want);
                    }
                    for (long i = 0; i < got.numElements(); i++) {
                        assertThat(got.getFloat(i))
                                .as("epsilon 0")
                                .isEqualTo((Float) x.getFloat(i));
                    }
                }
            }
        }
    }

    /** Uniform: range, mean and variance; and another factor for each element, seed and step. */
    @Tag("broad")
    @Test
    default void jitter_isUniform() {
        int tokens = 24;
        int hidden = 2080;
        Jitter jitter = new Jitter(11, 0.125);
        try (Arena arena = Arena.ofConfined()) {
            Tensor ones = Tensor.allocate(arena, DType.BF16, tokens, hidden);
            for (long i = 0; i < ones.numElements(); i++) {
                ones.setDouble(i, 1);
            }
            Tensor y = Tensor.allocate(arena, DType.F32, tokens, hidden);
            backend().jitter(ones, jitter, null, y);
            int count = tokens * hidden;
            double sum = 0;
            double squares = 0;
            double neighbours = 0;
            for (int i = 0; i < count; i++) {
                double change = y.getFloat(i) - 1;
                assertThat(change).isBetween(-0.125, 0.125);
                sum += change;
                squares += change * change;
                neighbours += change * (y.getFloat((i + 1) % count) - 1);
            }
            double variance = 0.125 * 0.125 / 3;
            double deviation = Math.sqrt(variance / count);
            assertThat(sum / count).isCloseTo(0, within(5 * deviation));
            assertThat(squares / count).isCloseTo(variance, within(0.02 * variance));
            assertThat(neighbours / count).isCloseTo(0, within(5 * variance / Math.sqrt(count)));
            Tensor other = Tensor.allocate(arena, DType.F32, tokens, hidden);
            backend().jitter(ones, jitter, step(arena, 1), other);
            assertThat(other.data().mismatch(y.data())).isNotNegative();
            backend().jitter(ones, new Jitter(12, 0.125), null, other);
            assertThat(other.data().mismatch(y.data())).isNotNegative();
            backend().jitter(ones, jitter, step(arena, 0), other);
            assertBytes("step 0", other, y);
        }
    }

    /** The router's product alone sees it, whatever way a backend has for few tokens. */
    @Test
    default void router_jittersNothingButItsOwnInput() {
        for (DType type : Cases.FLOATING) {
            for (int tokens : new int[] {0, 1, 7}) {
                router(List.of(JITTER), type, tokens, null);
            }
        }
    }

    @Test
    default void router_appliesAllTransformsInTheirOrder() {
        for (DType type : Cases.FLOATING) {
            DType ofProjection = type == DType.F32 ? DType.BF16 : DType.F32;
            router(List.of(JITTER, COSINE), type, 7, ofProjection);
            router(List.of(COSINE), type, 1, null);
            router(List.of(JITTER, COSINE), type, 0, type);
        }
    }

    /** Against the operations one after the other; two logits' noise is made of the same input. */
    private void router(
            List<InputTransform> inputs, DType type, int tokens, @Nullable DType ofProjection) {
        RouterConfig plainRule = RouterConfig.softmaxTopK(16, 2, true);
        RouterConfig rule =
                plainRule
                        .withInputTransforms(inputs)
                        .withLogitTransforms(
                                List.of(
                                        new LogitTransform.Temperature(0.07),
                                        new LogitTransform.LearnedNoise(5)));
        boolean cosine = inputs.contains(COSINE);
        int columns = ofProjection == null ? 24 : 5;
        try (Arena arena = Arena.ofConfined()) {
            Case c = new Case(tokens, 16, 2, 24, 1, Pattern.UNIFORM);
            RouterProblem plain =
                    RouterProblem.of(arena, c, type, plainRule).withGate(type).withTypes();
            RouterWeights weights =
                    new RouterWeights(
                                    Cases.normal(arena, type, 7, 1, 16, columns),
                                    Cases.normal(arena, DType.F32, 8, 1, 16),
                                    null,
                                    null,
                                    Cases.normal(arena, type, 9, 1, 16, columns),
                                    ofProjection == null
                                            ? null
                                            : Cases.normal(arena, ofProjection, 10, 1, 5, 24),
                                    null)
                            .normalised(rule, backend(), arena);
            Tensor step = step(arena, 77);
            Router router = new Router(rule, weights, plain.router().sharedGate(), step);
            RouterProblem problem =
                    new RouterProblem(plain.x(), router, plain.types(), plain.dense());
            assertThat(problem.fusedBy(backend())).isFalse();
            RouterProblem.Results got = problem.run(arena, backend());
            Tensor gates = problem.dense().topkWeights().copy(arena);
            Tensor offsets = plain.dense().expertOffsets();
            Tensor input = plain.x();
            if (inputs.contains(JITTER)) {
                input = Tensor.allocate(arena, DType.F32, tokens, 24);
                backend().jitter(plain.x(), JITTER, step, input);
            }
            if (weights.projection() != null) {
                Tensor projected = Tensor.allocate(arena, DType.F32, tokens, columns);
                backend().groupedGemm(input, weights.projection(), null, offsets, projected);
                input = projected;
            }
            if (cosine) {
                Tensor direction = Tensor.allocate(arena, DType.F32, tokens, columns);
                backend().normaliseRows(input, 1, COSINE.epsilon(), direction);
                input = direction;
            }
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, 16);
            backend().groupedGemm(input, weights.weight(), weights.bias(), offsets, logits);
            Tensor noise = Tensor.allocate(arena, DType.F32, tokens, 16);
            backend().groupedGemm(input, weights.noiseWeight(), null, offsets, noise);
            backend().shapeLogits(logits, rule, new ShapeInputs(plain.types(), noise, step));
            Routing want = Routing.allocate(arena, tokens, 2, 16);
            backend()
                    .routeSort(
                            logits,
                            rule,
                            RouteInputs.of(router, TokenInputs.ofTypes(plain.types())),
                            want);
            String name = "%s %s T=%d".formatted(inputs, type, tokens);
            assertBytes(name, got.logits(), logits);
            assertBytes(name, got.routing().topkIds(), want.topkIds());
            assertBytes(name, got.routing().topkWeights(), want.topkWeights());
            assertBytes(name, got.routing().slotToRow(), want.slotToRow());
            // The same gate as without transforms, in the same way of computing.
            Tensor ofGate = Tensor.allocate(arena, DType.F32, tokens, 1);
            backend().groupedGemm(plain.x(), router.sharedGate(), null, offsets, ofGate);
            for (int t = 0; t < tokens; t++) {
                double sigmoid = 1 / (1 + Math.exp(-ofGate.getDouble(t)));
                assertThat(gates.getDouble(t)).isCloseTo(sigmoid, within(1e-6));
                boolean absent = t % 3 == 2;
                assertThat(got.routing().topkIds().getInt(2L * t) < 0).isEqualTo(absent);
            }
        }
    }

    /** With a projection and without, of every type, for lengths without whole vectors too. */
    @Tag("broad")
    @Test
    default void router_takesCosines() {
        int[][] sizes = {{3, 7, 37, 0}, {2, 8, 2080, 32}, {1, 1, 1344, 5}, {5, 33, 24, 0}};
        for (int[] size : sizes) {
            for (DType type : Cases.FLOATING) {
                try (Arena arena = Arena.ofConfined()) {
                    Tensor x = Cases.normal(arena, type, 1, size[0], size[2]);
                    int columns = size[3] == 0 ? size[2] : size[3];
                    Tensor projection =
                            size[3] == 0 ? null : Cases.normal(arena, type, 2, 1, columns, size[2]);
                    Tensor weight = Cases.normal(arena, type, 3, 1, size[1], columns);
                    Tensor got = cosines(arena, x, projection, weight, COSINE);
                    Tensor want =
                            RouterInputOracle.cosines(
                                    arena, x, projection, weight, COSINE.epsilon());
                    String name = "%s T=%d E=%d H=%d P=%d";
                    Tolerance.assertClose(
                            "router",
                            name.formatted(type, size[0], size[1], size[2], size[3]),
                            got,
                            want,
                            size[2] + 3.0 * columns);
                }
            }
        }
    }

    /** Zeros have no direction; a token that is no number has none, and leaves others theirs. */
    @Test
    default void router_ofZerosAndSpecialTokens() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.F32, 1, 5, 12);
            Tensor projection = Cases.normal(arena, DType.F32, 2, 1, 4, 12);
            Tensor weight = Cases.normal(arena, DType.F32, 3, 1, 6, 4);
            Tensor want = cosines(arena, x, projection, weight, new Cosine(1e-6)).copy(arena);
            for (int i = 0; i < 12; i++) {
                x.row(1).setDouble(i, 0);
            }
            x.row(2).setDouble(3, Double.NaN);
            x.row(3).setDouble(5, 1 / 0.0);
            for (int i = 0; i < 4; i++) {
                weight.setDouble(8 + i, 0);
            }
            Tensor got = cosines(arena, x, projection, weight, new Cosine(1e-6));
            for (int e = 0; e < 6; e++) {
                assertThat(got.row(1).getFloat(e)).isZero();
                assertThat(got.row(2).getFloat(e)).isNaN();
                assertThat(got.row(3).getFloat(e)).isNaN();
                float ordinary = e == 2 ? 0 : want.row(4).getFloat(e);
                assertThat(got.row(4).getFloat(e)).isEqualTo(ordinary);
            }
        }
    }

    /** The logits of a router, all of whose tokens have experts of their own. */
    private Tensor cosines(
            Arena arena, Tensor x, @Nullable Tensor projection, Tensor weight, Cosine cosine) {
        int experts = (int) weight.dim(1);
        RouterConfig rule =
                RouterConfig.softmaxTopK(experts, 1, true).withInputTransforms(List.of(cosine));
        RouterWeights weights =
                new RouterWeights(weight, null, null, null, null, projection, null)
                        .normalised(rule, backend(), arena)
                        .prepare(backend(), arena);
        Routing dense = Routing.allocate(arena, x.dim(0), 1, 1);
        Cases.sort(dense);
        RouterProblem problem = new RouterProblem(x, new Router(rule, weights, null), null, dense);
        RouterProblem.Results results = problem.run(arena, backend());
        for (long t = 0; t < x.dim(0); t++) {
            assertThat(results.routing().topkIds().getInt(t)).isBetween(0, experts - 1);
        }
        return results.logits();
    }

    @Test
    default void router_refusesProjectionsThatItCannotUse() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = Tensor.allocate(arena, DType.F32, 1, 4, 3);
            Tensor projection = Tensor.allocate(arena, DType.BF16, 1, 3, 6);
            RouterWeights weights =
                    new RouterWeights(weight, null, null, null, null, projection, null);
            RouterConfig plain = RouterConfig.softmaxTopK(4, 1, true);
            refused(
                    "projection: expected none because the rule has no Cosine, got ",
                    () -> new Router(plain.withInputTransforms(List.of(JITTER)), weights, null));
            RouterConfig cosine = plain.withInputTransforms(List.of(COSINE));
            Tensor gate = Tensor.allocate(arena, DType.F32, 1, 1, 3);
            refused(
                    "sharedGate: expected F32, F16 or BF16 [1, 1, hidden=6]",
                    () -> new Router(cosine, weights, gate));
            for (Tensor wrong :
                    List.of(
                            Tensor.allocate(arena, DType.F32, 1, 4, 6),
                            Tensor.allocate(arena, DType.F32, 2, 3, 6),
                            Tensor.allocate(arena, DType.F32, 3, 6),
                            Tensor.allocate(arena, DType.F64, 1, 3, 6))) {
                refused(
                        "projection: expected F32, F16 or BF16 [1, 3 as inputs of weight, hidden]",
                        () -> new RouterWeights(weight, null, null, null, null, wrong, null));
            }
            Case c = new Case(2, 4, 1, 5, 1, Pattern.UNIFORM);
            RouterProblem narrow = RouterProblem.of(arena, c, DType.F32, plain);
            RouterProblem problem =
                    new RouterProblem(
                            narrow.x(), new Router(cosine, weights, null), null, narrow.dense());
            refused(
                    "x: expected F32, F16, BF16 or F64 [tokens=2, hidden=6]",
                    () -> problem.run(arena, backend()));
        }
    }

    private static void refused(String message, Runnable call) {
        assertThatThrownBy(call::run)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith(message);
    }

    private static void assertBytes(String name, Tensor got, Tensor want) {
        assertThat(got.data().mismatch(want.data())).as(name).isEqualTo(-1);
    }
}
