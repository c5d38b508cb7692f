package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Logits;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.LogitTransform.Cap;
import jmoe.ops.LogitTransform.FixedNoise;
import jmoe.ops.LogitTransform.GumbelNoise;
import jmoe.ops.LogitTransform.LearnedNoise;
import jmoe.ops.LogitTransform.Standardise;
import jmoe.ops.LogitTransform.Temperature;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;

/**
 * {@link Kernels#shapeLogits} against {@link ShapeLogitsOracle}, and against the reference to the
 * last bit; {@link Kernels#router} with it.
 */
interface ShapeLogitsContract extends Contract {
    /** Each transform by itself, what depends on their order, and as many as there may be. */
    static List<List<LogitTransform>> chains() {
        Temperature temperature = new Temperature(0.7);
        Standardise standardise = new Standardise(1.3);
        Cap cap = new Cap(1.5);
        FixedNoise fixed = new FixedNoise(5, 0.25);
        LearnedNoise learned = new LearnedNoise(-6);
        GumbelNoise gumbel = new GumbelNoise(1L << 40 | 7, 0.9);
        return List.of(
                List.of(temperature),
                List.of(standardise),
                List.of(cap),
                List.of(fixed),
                List.of(learned),
                List.of(gumbel),
                List.of(fixed, standardise, cap),
                List.of(cap, standardise, fixed),
                List.of(
                        gumbel,
                        cap,
                        standardise,
                        learned,
                        fixed,
                        temperature,
                        standardise,
                        new Cap(40)));
    }

    private static RouterConfig config(int experts, List<LogitTransform> transforms) {
        return RouterConfig.softmaxTopK(experts, 1, true).withLogitTransforms(transforms);
    }

    @ParameterizedTest
    @MethodSource("chains")
    default void shapeLogits_isItsFormula(List<LogitTransform> transforms) {
        int[][] sizes = {{0, 8}, {3, 2}, {5, 33}, {2, 64}};
        for (int[] size : sizes) {
            RouterConfig config = config(size[1], transforms);
            try (Arena arena = Arena.ofConfined()) {
                Tensor logits = Tensor.allocate(arena, DType.F32, size[0], size[1]);
                Cases.logits(logits, Logits.NORMAL, size[1]);
                Tensor noiseLogits = Cases.normal(arena, DType.F32, 3, size[0], size[1]);
                Tensor step = Tensor.allocate(arena, DType.I32, 1);
                step.setInt(0, -size[1]);
                Tensor want = ShapeLogitsOracle.shape(arena, logits, config, noiseLogits, -size[1]);
                ShapeInputs inputs = new ShapeInputs(null, noiseLogits, step);
                String name = "%s T=%d E=%d".formatted(transforms, size[0], size[1]);
                assertSame(name, logits, inputs, config);
                Tolerance.assertClose("shapeLogits", name, logits, want, 1);
            }
        }
    }

    /**
     * NaN, infinities, ties and extremes; a warp, less and more, and the most experts there are.
     */
    @Tag("broad")
    @ParameterizedTest
    @EnumSource
    default void shapeLogits_givesTheBitsOfTheReference(Logits kind) {
        int[][] sizes = {{1, 1}, {5, 31}, {9, 8}, {1, 257}, {1, 2048}};
        for (List<LogitTransform> transforms : chains()) {
            for (int[] size : sizes) {
                try (Arena arena = Arena.ofConfined()) {
                    Tensor logits = Tensor.allocate(arena, DType.F32, size[0], size[1]);
                    Cases.logits(logits, kind, size[0]);
                    Tensor noiseLogits = Tensor.allocate(arena, DType.F32, size[0], size[1]);
                    Cases.logits(noiseLogits, kind, size[1]);
                    String name = "%s %s T=%d E=%d".formatted(kind, transforms, size[0], size[1]);
                    ShapeInputs inputs = new ShapeInputs(null, noiseLogits, null);
                    assertSame(name, logits, inputs, config(size[1], transforms));
                }
            }
        }
    }

    /** Shapes the logits, and a copy of them by the reference. */
    private void assertSame(String name, Tensor logits, ShapeInputs inputs, RouterConfig config) {
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor want = logits.copy(arena);
            reference.shapeLogits(want, config, inputs);
            backend().shapeLogits(logits, config, inputs);
            for (long i = 0; i < want.numElements(); i++) {
                assertThat(Float.floatToRawIntBits(logits.getFloat(i)))
                        .as(
                                "%s: element %d, %s and %s",
                                name, i, logits.getFloat(i), want.getFloat(i))
                        .isEqualTo(Float.floatToRawIntBits(want.getFloat(i)));
            }
        }
    }

    @Test
    default void shapeLogits_standardisesEqualLogitsToZeros() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 2, 7);
            Cases.logits(logits, Logits.ALL_EQUAL, 1);
            // Equal numbers of 53 bits, whose mean is another one.
            List<LogitTransform> transforms =
                    List.of(new Temperature(0.7), new Cap(3), new Standardise(2));
            backend().shapeLogits(logits, config(7, transforms), ShapeInputs.NONE);
            for (long i = 0; i < logits.numElements(); i++) {
                assertThat(logits.getFloat(i)).isZero();
            }
        }
    }

    /** Tokens that a router does not serve, and all where there is no transform. */
    @Test
    default void shapeLogits_leavesOthersAlone() {
        RouterConfig one =
                new RouterConfig(
                        5,
                        1,
                        RouterConfig.Score.SOFTMAX,
                        new Selection.TopK(),
                        new RouterConfig.Normalisation.None(),
                        1,
                        false,
                        null,
                        1,
                        List.of(new GumbelNoise(3, 1)));
        try (Arena arena = Arena.ofConfined()) {
            Poisoned logits = Poisoned.allocate(arena, DType.F32, 9, 5);
            Tensor before = logits.tensor().copy(arena);
            Tensor types = Tensor.allocate(arena, DType.I32, 9);
            for (int token = 0; token < 9; token++) {
                types.setInt(token, token % 4 - 1);
            }
            ShapeInputs inputs = new ShapeInputs(types, null, null);
            backend().shapeLogits(logits.tensor(), one.withLogitTransforms(List.of()), inputs);
            assertThat(logits.tensor().data().mismatch(before.data())).isEqualTo(-1);
            Cases.logits(logits.tensor(), Logits.SOME_NAN, 3);
            before = logits.tensor().copy(arena);
            for (RouterConfig config : List.of(one, config(5, one.logitTransforms()))) {
                assertSame("types", logits.tensor(), inputs, config);
                for (int token = 0; token < 9; token++) {
                    boolean same =
                            logits.tensor().row(token).data().mismatch(before.row(token).data())
                                    < 0;
                    assertThat(same).isEqualTo(!config.serves(types.getInt(token)));
                }
                before.data().copyFrom(logits.tensor().data());
            }
            logits.assertUntouchedFrom("shapeLogits", "margins", 9);
        }
    }

    @Test
    default void shapeLogits_refusesWhatDoesNotBelongTogether() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 3, 4);
            RouterConfig learned = config(4, List.of(new LearnedNoise(1)));
            assertThatThrownBy(() -> backend().shapeLogits(logits, learned, ShapeInputs.NONE))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "noiseLogits: expected F32 [tokens=3, numLogits=4] because the rule has"
                                    + " LearnedNoise, got none; multiply the tokens by the noise"
                                    + " weight, or take the transform out of the rule");
            Tensor weight = Tensor.allocate(arena, DType.F32, 1, 4, 6);
            RouterWeights without = new RouterWeights(weight, null, null);
            assertThatThrownBy(() -> new Router(learned, without, null))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("noiseWeight: expected F32, F16 or BF16 [1, 4, 6]");
        }
    }

    /** Whatever way a backend has for few tokens: product, shape, rule, and nothing else. */
    @Test
    default void router_shapesBetweenProductAndRule() {
        List<List<LogitTransform>> chains = chains();
        for (List<LogitTransform> transforms : List.of(chains.get(5), chains.getLast())) {
            for (DType type : Cases.FLOATING) {
                for (int tokens : new int[] {1, 7}) {
                    router(transforms, type, tokens);
                }
            }
        }
    }

    private void router(List<LogitTransform> transforms, DType type, int tokens) {
        RouterConfig rule = RouterConfig.softmaxTopK(16, 2, true).withLogitTransforms(transforms);
        try (Arena arena = Arena.ofConfined()) {
            Case c = new Case(tokens, 16, 2, 24, 1, Pattern.UNIFORM);
            RouterProblem plain =
                    RouterProblem.of(arena, c, type, rule.withLogitTransforms(List.of()));
            plain = plain.biased().withGate(type).withTypes();
            RouterWeights old = plain.router().weights();
            Tensor noiseWeight = Cases.normal(arena, type, 9, 1, 16, 24);
            RouterWeights weights =
                    new RouterWeights(
                            old.weight(), old.bias(), old.selectionBias(), null, noiseWeight);
            Tensor step = Tensor.allocate(arena, DType.I32, 1);
            step.setInt(0, 77);
            Router router = new Router(rule, weights, plain.router().sharedGate(), step);
            RouterProblem problem =
                    new RouterProblem(plain.x(), router, plain.types(), plain.dense());
            RouterProblem.Results got = problem.run(arena, backend());
            Tensor offsets = plain.dense().expertOffsets();
            Tensor logits = Tensor.allocate(arena, DType.F32, tokens, 16);
            backend().groupedGemm(plain.x(), old.weight(), old.bias(), offsets, logits);
            Tensor noiseLogits = Tensor.allocate(arena, DType.F32, tokens, 16);
            backend().groupedGemm(plain.x(), noiseWeight, null, offsets, noiseLogits);
            Tensor types = plain.types();
            backend().shapeLogits(logits, rule, new ShapeInputs(types, noiseLogits, step));
            Routing want = Routing.allocate(arena, tokens, 2, 16);
            backend()
                    .routeSort(
                            logits, rule, RouteInputs.of(router, TokenInputs.ofTypes(types)), want);
            String name = "%s %s T=%d".formatted(transforms, type, tokens);
            assertBytes(name, got.logits(), logits);
            assertBytes(name, got.routing().topkIds(), want.topkIds());
            assertBytes(name, got.routing().topkWeights(), want.topkWeights());
            assertBytes(name, got.routing().slotToRow(), want.slotToRow());
        }
    }

    private static void assertBytes(String name, @Nullable Tensor got, Tensor want) {
        assertThat(got).isNotNull();
        assertThat(got.data().mismatch(want.data())).as(name).isEqualTo(-1);
    }
}
