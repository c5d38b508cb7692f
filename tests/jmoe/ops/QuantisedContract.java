package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;

/**
 * {@link Kernels#groupedGemm} and {@link Kernels#gateUpSwiglu} with I8 weights that have a scale,
 * as they are and prepared.
 */
interface QuantisedContract extends Contract {
    @Test
    default void quantised_whereUnsupported_isRefusedAtOnce() {
        Assumptions.assumeFalse(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            Case c = new Case(4, 3, 2, 5, 7, Pattern.UNIFORM);
            ExpertWeights experts = experts(arena, c, Kind.SWIGLU);
            Routing routing = Cases.routing(arena, c);
            Tensor x = Cases.normal(arena, DType.F32, 1, c.tokens(), c.hidden());
            Tensor hidden = Tensor.allocate(arena, DType.F32, c.slots(), c.intermediate());
            Tensor rows = Cases.normal(arena, DType.F32, 1, c.slots(), c.intermediate());
            Tensor y = Tensor.allocate(arena, DType.F32, c.slots(), c.hidden());
            Tensor offsets = routing.expertOffsets();
            assertRefused(
                    "groupedGemm: weight",
                    () -> backend().groupedGemm(rows, experts.down(), null, offsets, y));
            assertRefused("gateUpSwiglu: gateUp", () -> run(x, routing, experts, false, hidden));
            assertRefused("prepare: weight", () -> backend().prepare(experts.down(), arena));
            assertRefused("prepare: gateUp", () -> backend().prepare(experts, arena));
        }
    }

    private static void assertRefused(String what, Runnable call) {
        assertThatThrownBy(call::run)
                .isInstanceOf(UnsupportedOperationException.class)
                .hasMessageStartingWith(what + " of type scaled I8 is not supported by the ")
                .hasMessageEndingWith(
                        "; quantised weights run on the native and reference backends; load them"
                                + " as BF16");
    }

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void groupedGemm_quantised_agreesWithReference(Case c) {
        Assumptions.assumeTrue(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = Cases.routing(arena, c);
            int e = c.numExperts();
            Tensor weight = weight(arena, c.seed() + 1, e, c.intermediate(), c.hidden());
            Tensor bias = Cases.normal(arena, DType.F32, c.seed() + 2, e, c.intermediate());
            Tensor offsets = routing.expertOffsets();
            for (DType type : new DType[] {DType.F32, c.dtype(0)}) {
                Tensor x = Cases.normal(arena, type, c.seed(), c.slots(), c.hidden());
                gemm(c.toString(), x, weight, type == DType.F32 ? null : bias, offsets, c.dtype(2));
            }
        }
    }

    /** Inputs and outputs of real models: in whole vectors, panels and tiles, and with a rest. */
    @ParameterizedTest
    @ValueSource(ints = {64, 512, 576, 1100})
    default void groupedGemm_quantised_roundsToNearest(int inputs) {
        Assumptions.assumeTrue(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = weight(arena, 2, 3, 272, inputs);
            Tensor x = Cases.normal(arena, DType.F32, 1, 70, inputs);
            Tensor offsets = Cases.offsets(arena, 1, 37, 32);
            double[] more = Tolerance.roundedRows(x, weight, offsets);
            Tensor want = want(arena, x, weight, null, offsets);
            Tensor got = gemm(inputs + " inputs", x, weight, null, offsets, DType.F32);
            Tolerance.assertNearest("groupedGemm", inputs + " inputs", got, want, more);
        }
    }

    /** The largest sums that codes have: exact, because nothing is rounded. */
    @ParameterizedTest
    @ValueSource(ints = {-128, -127, 127})
    default void groupedGemm_quantised_doesNotSaturate(int code) {
        Assumptions.assumeTrue(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            int inputs = 16384;
            Tensor weight = weight(arena, 1, 1, 33, inputs);
            weight.data().fill((byte) code);
            Tensor x = Tensor.allocate(arena, DType.F32, 2, inputs);
            for (long i = 0; i < inputs; i++) {
                x.setDouble(i, 3);
                x.setDouble(inputs + i, -3);
            }
            Tensor offsets = Cases.offsets(arena, 2);
            Tensor got = gemm("codes " + code, x, weight, null, offsets, DType.F32);
            Tensor want = want(arena, x, weight, null, offsets);
            Tolerance.assertClose("groupedGemm", "codes " + code, got, want, inputs);
        }
    }

    /** All codes there are, rows of zeros in x and weight, and numbers near the ends of F32. */
    @ParameterizedTest
    @ValueSource(doubles = {1, 1e-39, 1e-36, 1e30})
    default void groupedGemm_quantised_ofEveryCodeAndSize(double size) {
        Assumptions.assumeTrue(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = weight(arena, 1, 2, 19, 256);
            for (long i = 0; i < weight.numElements(); i++) {
                weight.data().set(JAVA_BYTE, i, (byte) (i * 7 + i / 256));
            }
            weight.scale().setDouble(3, 0);
            Tensor x = Cases.normal(arena, DType.F32, 2, 9, 256);
            for (long i = 0; i < x.numElements(); i++) {
                x.setDouble(i, i / 256 == 4 ? 0 : x.getDouble(i) * size);
            }
            gemm("x of " + size, x, weight, null, Cases.offsets(arena, 6, 3), DType.F32);
        }
    }

    @ParameterizedTest
    @ValueSource(doubles = {Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY})
    default void groupedGemm_quantised_keepsWhatIsNotFiniteInItsRow(double value) {
        Assumptions.assumeTrue(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = weight(arena, 1, 2, 37, 70);
            Tensor x = Cases.normal(arena, DType.F32, 2, 9, 70);
            Tensor offsets = Cases.offsets(arena, 6, 3);
            for (Tensor form : both(arena, weight)) {
                Tensor want = Tensor.allocate(arena, DType.F32, 9, 37);
                backend().groupedGemm(x, form, null, offsets, want);
                Tensor wrong = x.copy(arena);
                wrong.setDouble(4 * 70 + 69, value);
                Tensor got = Tensor.allocate(arena, DType.F32, 9, 37);
                backend().groupedGemm(wrong, form, null, offsets, got);
                for (int i = 0; i < got.numElements(); i++) {
                    if (i / 37 == 4) {
                        assertThat(Double.isFinite(got.getDouble(i))).isFalse();
                    } else {
                        assertThat(got.getInt(i)).isEqualTo(want.getInt(i));
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    default void gateUpSwiglu_quantised_agreesWithReference(Kind kind) {
        Assumptions.assumeTrue(computesQuantised());
        activate(new Case(9, 3, 2, 37, 21, Pattern.SKEWED), kind, DType.F32, DType.F32);
        activate(new Case(33, 8, 2, 64, 32, Pattern.SOME_NONE), kind, DType.BF16, DType.BF16);
        activate(new Case(70, 2, 1, 192, 50, Pattern.UNIFORM), kind, DType.F16, DType.F32);
    }

    private void activate(Case c, Kind kind, DType xType, DType hiddenType) {
        String name = "%s %s x %s hidden %s".formatted(c, kind, xType, hiddenType);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            ExpertWeights experts = experts(arena, c, kind);
            Routing routing = Cases.routing(arena, c);
            Tensor offsets = routing.expertOffsets();
            int count = Cases.rows(offsets);
            Tensor x = Cases.normal(arena, xType, c.seed() + 4, c.tokens(), c.hidden());
            for (boolean weighted : new boolean[] {false, true}) {
                Tensor weights = weighted ? routing.topkWeights() : null;
                Tensor rows = Tensor.allocate(arena, DType.F32, c.slots(), c.hidden());
                reference.permute(x, routing, weights, rows);
                Tensor gateUp = want(arena, rows, experts.gateUp(), experts.gateUpBias(), offsets);
                Tensor want = Tensor.allocate(arena, DType.F64, count, c.intermediate());
                reference.swiglu(gateUp, experts.activation(), offsets, want);
                double[] more = Tolerance.roundedRows(rows, experts.gateUp(), offsets);
                for (ExpertWeights form : both(arena, experts)) {
                    Poisoned hidden =
                            Poisoned.allocate(arena, hiddenType, c.slots(), c.intermediate());
                    run(x, routing, form, weighted, hidden.tensor());
                    Tolerance.assertActivation(
                            "gateUpSwiglu",
                            name,
                            hidden.tensor(),
                            want,
                            gateUp,
                            experts.activation(),
                            c.hidden() + 1,
                            more);
                    hidden.assertUntouchedFrom("gateUpSwiglu", name, count);
                }
            }
        }
    }

    /** What was prepared needs its source no more, and gives the same bits as the source. */
    @Test
    default void prepare_quantised_keepsTypeScaleAndBits() {
        Assumptions.assumeTrue(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.BF16, 1, 33, 200);
            Tensor offsets = Cases.offsets(arena, 1, 32);
            Tensor want = Tensor.allocate(arena, DType.F32, 33, 75);
            Tensor got = Tensor.allocate(arena, DType.F32, 33, 75);
            Arena source = Arena.ofConfined();
            Tensor weight = weight(source, 2, 2, 75, 200);
            backend().groupedGemm(x, weight, null, offsets, want);
            Tensor prepared = backend().prepare(weight, arena);
            assertThat(prepared.describe()).isEqualTo("scaled I8 [2, 75, 200]");
            assertThat(prepared.scale().data().mismatch(weight.scale().data())).isEqualTo(-1);
            assertThat(backend().prepare(prepared, arena)).isSameAs(prepared);
            boolean same = prepared.equals(weight);
            if (!same) {
                source.close();
            }
            backend().groupedGemm(x, prepared, null, offsets, got);
            assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
            if (same) {
                source.close();
            }
        }
    }

    /** Every number of rows takes other paths; all must give a row the same bits. */
    @Tag("broad")
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 59, 61, 64, 65})
    default void groupedGemm_quantised_doesNotDependOnBatch(int count) {
        Assumptions.assumeTrue(computesQuantised());
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.F32, 1, 130, 300);
            for (Tensor form : both(arena, weight(arena, 2, 1, 75, 300))) {
                Tensor all = Tensor.allocate(arena, DType.F32, 130, 75);
                backend().groupedGemm(x, form, null, Cases.offsets(arena, 130), all);
                for (int first : new int[] {0, 7, 130 - count}) {
                    Tensor some = Tensor.allocate(arena, DType.F32, count, 75);
                    Tensor part = x.slice(first, count);
                    backend().groupedGemm(part, form, null, Cases.offsets(arena, count), some);
                    assertThat(some.data().mismatch(all.slice(first, count).data()))
                            .as("%s rows %d+%d", form, first, count)
                            .isEqualTo(-1);
                }
            }
        }
    }

    /** Compares both forms of the weight with the reference; the result of the last one. */
    private Tensor gemm(
            String name,
            Tensor x,
            Tensor weight,
            @Nullable Tensor bias,
            Tensor offsets,
            DType yType) {
        int rows = Cases.rows(offsets);
        double[] more = Tolerance.roundedRows(x, weight, offsets);
        Arena arena = Arena.ofAuto();
        Tensor want = want(arena, x, weight, bias, offsets);
        Tensor result = want;
        for (Tensor form : both(arena, weight)) {
            String full = "%s, x %s weight %s y %s".formatted(name, x, form, yType);
            Poisoned y = Poisoned.allocate(arena, yType, x.dim(0), weight.dim(1));
            backend().groupedGemm(x, form, bias, offsets, y.tensor());
            Tolerance.assertClose("groupedGemm", full, y.tensor(), want, x.dim(1) + 1, more);
            y.assertUntouchedFrom("groupedGemm", full, rows);
            result = y.tensor().slice(0, rows);
        }
        return result;
    }

    /** Result of the reference, the rows that have a group. */
    private static Tensor want(
            Arena arena, Tensor x, Tensor weight, @Nullable Tensor bias, Tensor offsets) {
        try (Kernels reference = new ReferenceKernels()) {
            Tensor want = Tensor.allocate(arena, DType.F64, x.dim(0), weight.dim(1));
            reference.groupedGemm(x, weight, bias, offsets, want);
            return want.slice(0, Cases.rows(offsets));
        }
    }

    private void run(
            Tensor x, Routing routing, ExpertWeights experts, boolean weighted, Tensor hidden) {
        try (Arena arena = Arena.ofConfined()) {
            long elements = backend().gateUpSwigluScratch(x.dtype(), hidden.dim(0), experts);
            Tensor scratch = Poisoned.allocate(arena, DType.F32, elements).tensor();
            @Nullable Tensor weights = weighted ? routing.topkWeights() : null;
            backend().gateUpSwiglu(x, routing, weights, experts, scratch, hidden);
        }
    }

    private Tensor[] both(Arena arena, Tensor weight) {
        return new Tensor[] {weight, backend().prepare(weight, arena)};
    }

    private ExpertWeights[] both(Arena arena, ExpertWeights raw) {
        return new ExpertWeights[] {raw, backend().prepare(raw, arena)};
    }

    private static Tensor weight(Arena arena, long seed, long... shape) {
        return Quantisation.of(Cases.normal(arena, DType.F32, seed, shape), arena);
    }

    private static ExpertWeights experts(Arena arena, Case c, Kind kind) {
        int e = c.numExperts();
        boolean clamped = kind == Kind.CLAMPED_SWIGLU;
        Activation activation = clamped ? Activation.clampedSwiglu(7) : Activation.of(kind);
        long columns = (activation.gated() ? 2L : 1L) * c.intermediate();
        return new ExpertWeights(
                weight(arena, c.seed() + 1, e, columns, c.hidden()),
                weight(arena, c.seed() + 3, e, c.hidden(), c.intermediate()),
                Cases.normal(arena, DType.F32, c.seed() + 2, e, columns),
                null,
                activation);
    }
}
