package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.stream.Stream;

/** {@link Kernels#experts}. */
interface ExpertsContract extends Contract {
    /** From none to the most that kernels for few tokens take, and one more. */
    List<Case> EXPERTS_CASES =
            List.of(
                    new Case(0, 4, 2, 24, 16, Pattern.UNIFORM),
                    new Case(1, 8, 2, 72, 40, Pattern.UNIFORM),
                    new Case(1, 3, 1, 21, 13, Pattern.ALL_TO_ONE),
                    new Case(2, 60, 8, 40, 24, Pattern.UNIFORM),
                    new Case(8, 5, 2, 37, 21, Pattern.SOME_NONE),
                    new Case(8, 4, 2, 64, 32, Pattern.ALL_TO_ONE),
                    new Case(7, 4, 2, 16, 8, Pattern.ALL_NONE),
                    new Case(33, 6, 2, 136, 72, Pattern.SKEWED),
                    new Case(128, 8, 8, 24, 16, Pattern.UNIFORM),
                    new Case(128, 2, 1, 15, 9, Pattern.ALL_TO_ONE),
                    new Case(129, 4, 2, 24, 16, Pattern.HOSTILE));

    static Stream<Case> expertsCases() {
        int maxTokens = Integer.getInteger(Cases.MAX_TOKENS_PROPERTY, Integer.MAX_VALUE);
        return EXPERTS_CASES.stream().filter(c -> c.tokens() <= maxTokens);
    }

    @ParameterizedTest
    @MethodSource("expertsCases")
    default void experts_agreeWithReference(Case c) {
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                ExpertsProblem all =
                        ExpertsProblem.of(arena, c, type).biased().withShared(c.intermediate() + 3);
                check("all", all.withAddend(c.tokens(), c.dtype(1)), c.dtype(2));
                if (type != DType.F32) {
                    check("gate", all.withSharedWeights().withAddend(1, DType.F32), type);
                    check("bare", ExpertsProblem.of(arena, c, type), DType.F32);
                    check("shared", ExpertsProblem.of(arena, c, type).withShared(9), type);
                }
            }
        }
    }

    @Tag("broad")
    @ParameterizedTest
    @EnumSource
    default void experts_ofEveryActivation(Kind kind) {
        for (DType type : Cases.FLOATING) {
            // Whole vectors of 16 bytes, and not.
            for (int intermediate : type == DType.F32 ? new int[] {21} : new int[] {21, 40}) {
                try (Arena arena = Arena.ofConfined()) {
                    Case c = new Case(5, 3, 2, 40, intermediate, Pattern.SKEWED);
                    ExpertsProblem problem =
                            ExpertsProblem.of(arena, c, type).withActivation(kind).biased();
                    check("" + kind, problem.withShared(intermediate), type);
                }
            }
        }
    }

    /** Rows of x in 16 bits beside rows of F32, and weights of another type. */
    @Test
    default void experts_ofMixedTypes() {
        Case c = new Case(6, 4, 2, 24, 16, Pattern.UNIFORM);
        for (DType x : Cases.FLOATING) {
            for (DType weight : Cases.FLOATING) {
                try (Arena arena = Arena.ofConfined()) {
                    ExpertsProblem problem =
                            ExpertsProblem.of(arena, c, weight).withX(x).withShared(8);
                    check("rows F32", problem.withRows(DType.F32), DType.F32);
                    check("rows as x", problem.withRows(x), x);
                }
            }
        }
    }

    @Test
    default void experts_weightTheirInput() {
        Case c = new Case(6, 4, 2, 40, 24, Pattern.SOME_NONE);
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                ExpertsProblem problem =
                        ExpertsProblem.of(arena, c, type).biased().withInputWeights();
                check("on the input", problem, type);
                check("and shared", problem.withShared(16).withSharedWeights(), DType.F32);
            }
        }
    }

    /** The last experts of the routing have no weights: they return what they are given. */
    @Test
    default void experts_withoutWeights_returnTheirInput() {
        Case c = new Case(8, 7, 3, 24, 16, Pattern.UNIFORM);
        for (DType type : Cases.FLOATING) {
            DType identity = type == DType.BF16 ? DType.F32 : DType.BF16;
            try (Arena arena = Arena.ofConfined()) {
                ExpertsProblem problem = ExpertsProblem.of(arena, c, type).biased();
                check("identity", problem.withIdentity(4, identity), type);
                ExpertsProblem shared = problem.withShared(8).withAddend(8, identity);
                check("and shared", shared.withIdentity(4, type), DType.F32);
            }
        }
    }

    /** More inputs than one sum takes, in both products and of both banks. */
    @Tag("broad")
    @Test
    default void experts_ofManyInputs() {
        Case c = new Case(2, 3, 2, 584, 520, Pattern.UNIFORM);
        for (DType type : List.of(DType.F16, DType.BF16)) {
            try (Arena arena = Arena.ofConfined()) {
                ExpertsProblem problem = ExpertsProblem.of(arena, c, type).biased();
                check("aligned", problem.withShared(1032).withSharedWeights(), type);
                Case odd = new Case(2, 3, 2, 531, 525, Pattern.UNIFORM);
                check("odd", ExpertsProblem.of(arena, odd, type).withShared(517), type);
            }
        }
    }

    @Test
    default void experts_mayWriteOverTheAddend() {
        Case c = new Case(8, 4, 2, 24, 16, Pattern.UNIFORM);
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                ExpertsProblem problem =
                        ExpertsProblem.of(arena, c, type).withShared(8).withAddend(8, type);
                Tensor y = Tensor.allocate(arena, type, 8, 24);
                problem.run(backend(), y);
                Tensor addend = problem.residual().addend();
                problem.run(backend(), addend);
                assertThat(addend.data().mismatch(y.data())).as("%s", type).isEqualTo(-1);
            }
        }
    }

    /** Of batches that are computed the same way. */
    @Tag("broad")
    @Test
    default void experts_doNotDependOnBatch() {
        Case c = new Case(70, 3, 2, 136, 72, Pattern.UNIFORM);
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                ExpertsProblem problem =
                        ExpertsProblem.of(arena, c, type)
                                .biased()
                                .withShared(40)
                                .withSharedWeights()
                                .withAddend(c.tokens(), DType.F32);
                Tensor all = Tensor.allocate(arena, DType.F32, c.tokens(), c.hidden());
                problem.run(backend(), all);
                boolean fused = problem.fusedBy(backend());
                for (int count : new int[] {1, 2, 9, 33, 65}) {
                    ExpertsProblem some = problem.first(arena, count);
                    if (some.fusedBy(backend()) == fused) {
                        Tensor own = Tensor.allocate(arena, DType.F32, count, c.hidden());
                        some.run(backend(), own);
                        assertThat(own.data().mismatch(all.slice(0, count).data()))
                                .as("%s, %d tokens", type, count)
                                .isEqualTo(-1);
                    }
                }
            }
        }
    }

    @Test
    default void experts_refuseWhatDoesNotBelongTogether() {
        Case c = new Case(4, 3, 2, 24, 16, Pattern.UNIFORM);
        try (Arena arena = Arena.ofConfined()) {
            ExpertsProblem problem = ExpertsProblem.of(arena, c, DType.BF16).withShared(8);
            Tensor y = Tensor.allocate(arena, DType.F32, 4, 24);
            long elements = problem.scratchElements(backend());
            Tensor scratch = Tensor.allocate(arena, DType.F32, Math.max(0, elements - 1));
            refused("scratch: expected F32 [at least", () -> problem.run(backend(), scratch, y));
            Tensor bytes = Tensor.allocate(arena, DType.U8, 4 * elements);
            refused("scratch: expected F32 [at least", () -> problem.run(backend(), bytes, y));
            ExpertsProblem rows = problem.withRows(DType.I32);
            refused("rowType: expected", () -> rows.run(backend(), y));
            Bank routed = problem.routed();
            ExpertsProblem notDense =
                    problem.withBank(
                            new Bank(problem.shared().experts(), routed.routing(), null, null));
            refused(
                    "shared: expected a routing of tokens=4 to one",
                    () -> notDense.run(backend(), y));
            ExpertsProblem few = problem.withBank(problem.first(arena, 3).shared());
            refused("shared: expected a routing of tokens=4 to one", () -> few.run(backend(), y));
            Tensor enough = Tensor.allocate(arena, DType.F32, elements);
            Tensor shared = Tensor.of(enough.data(), DType.F32, 4, 24);
            refused("y: expected memory of its own", () -> problem.run(backend(), enough, shared));
        }
    }

    private static void refused(String message, Runnable call) {
        assertThatThrownBy(call::run)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith(message);
    }

    private void check(String name, ExpertsProblem problem, DType out) {
        String full = "%s, %s to %s".formatted(name, problem, out);
        long tokens = problem.x().dim(0);
        long hidden = problem.x().dim(1);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor want = Tensor.allocate(arena, DType.F64, tokens, hidden);
            problem.withRows(DType.F64).run(reference, want);
            Poisoned y = Poisoned.allocate(arena, out, tokens, hidden);
            problem.run(backend(), y.tensor());
            Tolerance.assertRounded(
                    "experts",
                    full,
                    y.tensor(),
                    want,
                    problem.terms(),
                    problem.rowType(),
                    problem.squares(reference));
            y.assertUntouchedFrom("experts", full, tokens);
        }
    }
}
