package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
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

/** {@link Kernels#gateUpSwiglu}, on weights as they are and on prepared ones. */
interface GateUpSwigluContract extends Contract {
    /** Bound of the clamps in gpt-oss. */
    float LIMIT = 7;

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void gateUpSwiglu_agreesWithReference(Case c) {
        check(c, Kind.SWIGLU, DType.F32, DType.F32, DType.F32, false);
        Kind kind = Kind.values()[(int) (c.seed() % Kind.values().length)];
        check(c, kind, c.dtype(0), c.dtype(1), c.dtype(2), true);
    }

    @Tag("broad")
    @ParameterizedTest
    @EnumSource
    default void gateUpSwiglu_ofEveryActivation(Kind kind) {
        for (DType type : Cases.FLOATING) {
            Case c = new Case(9, 3, 2, 37, 21, Pattern.SKEWED);
            check(c, kind, DType.F32, type, DType.F32, true);
            check(c, kind, type, type, type, true);
        }
    }

    @Tag("broad")
    @Test
    default void gateUpSwiglu_ofWholeVectors() {
        WholeVectors.gateUpSwiglu(backend(), DType.BF16);
        WholeVectors.gateUpSwiglu(backend(), DType.F16);
    }

    /** A token's rows are the same bits alone and among others, prepared or not. */
    @Tag("broad")
    @Test
    default void gateUpSwiglu_doesNotDependOnBatch() {
        for (DType type : Cases.FLOATING) {
            rowsAlone(DType.F32, type, 133);
            rowsAlone(type, type, 133);
        }
        rowsAlone(DType.BF16, DType.BF16, 136);
    }

    private void rowsAlone(DType xType, DType type, int hidden) {
        Case c = new Case(40, 3, 2, hidden, 37, Pattern.UNIFORM);
        try (Arena arena = Arena.ofConfined()) {
            ExpertWeights raw = experts(arena, c, Kind.SWIGLU, type, true);
            Routing routing = Cases.routing(arena, c);
            Tensor x = Cases.normal(arena, xType, 1, c.tokens(), c.hidden());
            for (ExpertWeights experts : both(arena, raw)) {
                Tensor all = Tensor.allocate(arena, DType.F32, c.slots(), c.intermediate());
                run(backend(), x, routing, experts, false, all);
                for (int t = 0; t < c.tokens(); t++) {
                    Routing alone = Routing.allocate(arena, 1, c.topK(), c.numExperts());
                    alone.topkIds().data().copyFrom(routing.topkIds().row(t).data());
                    Cases.sort(alone);
                    Tensor own = Tensor.allocate(arena, DType.F32, c.topK(), c.intermediate());
                    run(backend(), x.slice(t, 1), alone, experts, false, own);
                    for (int k = 0; k < c.topK(); k++) {
                        int row = alone.slotToRow().getInt(k);
                        int among = routing.slotToRow().getInt((long) t * c.topK() + k);
                        assertThat(own.row(row).data().mismatch(all.row(among).data()))
                                .as("x %s, weight %s, token %d", xType, type, t)
                                .isEqualTo(-1);
                    }
                }
            }
        }
    }

    /** The last experts of the routing have no weights (identity experts): their rows stay. */
    @Test
    default void gateUpSwiglu_leavesRowsWithoutWeightsAlone() {
        Case c = new Case(12, 5, 2, 20, 9, Pattern.UNIFORM);
        try (Arena arena = Arena.ofConfined()) {
            Case fewer = new Case(12, 3, 2, 20, 9, Pattern.UNIFORM);
            ExpertWeights raw = experts(arena, fewer, Kind.SWIGLU, DType.F32, false);
            Routing routing = Cases.routing(arena, c);
            Tensor x = Cases.normal(arena, DType.F32, 1, c.tokens(), c.hidden());
            compare("3 of 5 experts", x, routing, raw, false, DType.F32);
        }
    }

    private void check(Case c, Kind kind, DType x, DType weight, DType hidden, boolean extras) {
        try (Arena arena = Arena.ofConfined()) {
            ExpertWeights raw = experts(arena, c, kind, weight, extras);
            Tensor tokens = Cases.normal(arena, x, c.seed() + 4, c.tokens(), c.hidden());
            Routing routing = Cases.routing(arena, c);
            String name = "%s %s x %s weight %s hidden %s".formatted(c, kind, x, weight, hidden);
            compare(name, tokens, routing, raw, extras, hidden);
        }
    }

    private void compare(
            String name,
            Tensor x,
            Routing routing,
            ExpertWeights raw,
            boolean weighted,
            DType type) {
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            long slots = routing.tokens() * routing.topK();
            int rows = routing.expertOffsets().getInt(raw.numExperts());
            Tensor offsets = routing.expertOffsets().slice(0, raw.numExperts() + 1L);
            Tensor permuted = Tensor.allocate(arena, DType.F32, slots, raw.hidden());
            Tensor gateUp = Tensor.allocate(arena, DType.F64, slots, raw.gateUp().dim(1));
            Tensor want = Tensor.allocate(arena, DType.F64, slots, raw.intermediate());
            Tensor weights = weighted ? routing.topkWeights() : null;
            reference.permute(x, routing, weights, permuted);
            reference.groupedGemm(permuted, raw.gateUp(), raw.gateUpBias(), offsets, gateUp);
            reference.swiglu(gateUp, raw.activation(), offsets, want);
            for (ExpertWeights experts : both(arena, raw)) {
                Poisoned hidden = Poisoned.allocate(arena, type, slots, raw.intermediate());
                run(backend(), x, routing, experts, weighted, hidden.tensor());
                Tolerance.assertActivation(
                        "gateUpSwiglu",
                        name,
                        hidden.tensor(),
                        want.slice(0, rows),
                        gateUp.slice(0, rows),
                        raw.activation(),
                        raw.hidden() + 1);
                hidden.assertUntouchedFrom("gateUpSwiglu", name, rows);
            }
        }
    }

    private ExpertWeights[] both(Arena arena, ExpertWeights raw) {
        return new ExpertWeights[] {raw, backend().prepare(raw, arena)};
    }

    private static void run(
            Kernels kernels,
            Tensor x,
            Routing routing,
            ExpertWeights experts,
            boolean weighted,
            Tensor hidden) {
        try (Arena arena = Arena.ofConfined()) {
            long elements = kernels.gateUpSwigluScratch(x.dtype(), hidden.dim(0), experts);
            Tensor scratch = Poisoned.allocate(arena, DType.F32, elements).tensor();
            @Nullable Tensor weights = weighted ? routing.topkWeights() : null;
            kernels.gateUpSwiglu(x, routing, weights, experts, scratch, hidden);
        }
    }

    private static ExpertWeights experts(
            Arena arena, Case c, Kind kind, DType type, boolean biased) {
        int e = c.numExperts();
        boolean clamped = kind == Kind.CLAMPED_SWIGLU;
        Activation activation = clamped ? Activation.clampedSwiglu(LIMIT) : Activation.of(kind);
        long columns = (activation.gated() ? 2L : 1L) * c.intermediate();
        return new ExpertWeights(
                Cases.normal(arena, type, c.seed() + 1, e, columns, c.hidden()),
                Tensor.allocate(arena, type, e, c.hidden(), c.intermediate()),
                biased ? Cases.normal(arena, DType.F32, c.seed() + 2, e, columns) : null,
                null,
                activation);
    }
}
