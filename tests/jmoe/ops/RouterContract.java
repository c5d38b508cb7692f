package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Capacity.Priority;
import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Logits;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.List;
import java.util.stream.Stream;

/** {@link Kernels#router} and {@link Kernels#routeSort}. */
interface RouterContract extends Contract {
    /** Sixteen experts, of which rules choose two. */
    int EXPERTS = 16;

    /** Each way of selecting, one of weighing, and what couples tokens. */
    List<RouterConfig> RULES =
            List.of(
                    rule(Score.SOFTMAX, new Selection.TopK(), new Normalisation.Sum(0), null),
                    rule(Score.SIGMOID, new Selection.TopK(), new Normalisation.None(), null),
                    rule(
                            Score.SIGMOID,
                            new Selection.GroupLimited(4, 2, GroupScore.TOP2_SUM),
                            new Normalisation.Sum(1e-20),
                            null),
                    rule(
                            Score.SOFTMAX,
                            new Selection.SparseMixer(0.1),
                            new Normalisation.None(),
                            null),
                    rule(
                            Score.SOFTMAX,
                            new Selection.ProductKeys(4),
                            new Normalisation.Sum(0),
                            null),
                    rule(
                            Score.SOFTMAX,
                            new Selection.TopK(),
                            new Normalisation.Sum(0),
                            new Capacity(new CapacityLimit.Tokens(1), Priority.PROBABILITY, true)),
                    rule(
                            Score.SQRT_SOFTPLUS,
                            new Selection.TopK(),
                            new Normalisation.Sum(1e-20),
                            null),
                    rule(
                            Score.SOFTMAX,
                            new Selection.EntropyK(0.6, 1),
                            new Normalisation.None(),
                            null));

    private static RouterConfig rule(
            Score score,
            Selection selection,
            Normalisation normalisation,
            @Nullable Capacity capacity) {
        return new RouterConfig(
                EXPERTS,
                2,
                score,
                selection,
                normalisation,
                2.5,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    static Stream<Integer> routedTokens() {
        int maxTokens = Integer.getInteger(Cases.MAX_TOKENS_PROPERTY, Integer.MAX_VALUE);
        return Stream.of(0, 1, 2, 8, 33, 128, 129).filter(tokens -> tokens <= maxTokens);
    }

    @ParameterizedTest
    @MethodSource("routedTokens")
    default void router_agreesWithReference(int tokens) {
        for (RouterConfig rule : RULES) {
            int mix = RULES.indexOf(rule) + tokens % 5;
            DType type = Cases.FLOATING.get(mix % 3);
            // Whole vectors of 16 bytes, and not.
            int hidden = mix % 2 == 0 ? 24 : 37;
            try (Arena arena = Arena.ofConfined()) {
                Case c = new Case(tokens, EXPERTS, 2, hidden, 1, Pattern.UNIFORM);
                RouterProblem problem = RouterProblem.of(arena, c, type, rule);
                check("plain", problem);
                check("biased, with a gate", problem.biased().withGate(type));
                check("some absent", problem.withGate(type).withTypes());
                if (tokens == 8) {
                    check("scaled", problem.scaled().withGate(type));
                }
            }
        }
    }

    /** A router keeps the type that it was trained in. */
    @Test
    default void router_mixesTypes() {
        Case c = new Case(5, EXPERTS, 2, 40, 1, Pattern.UNIFORM);
        for (DType weight : Cases.FLOATING) {
            for (DType x : Cases.FLOATING) {
                for (DType gate : Cases.FLOATING) {
                    try (Arena arena = Arena.ofConfined()) {
                        RouterProblem problem =
                                RouterProblem.of(arena, c, weight, RULES.getFirst());
                        check("mixed", problem.withX(arena, x).withGate(gate));
                    }
                }
            }
        }
    }

    /** More inputs than one block multiplies, and more experts than it has rows. */
    @Tag("broad")
    @Test
    default void router_ofManyInputsAndExperts() {
        RouterConfig rule = RouterConfig.softmaxTopK(130, 8, true);
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                Case c = new Case(9, 130, 8, 4136, 1, Pattern.UNIFORM);
                check("many", RouterProblem.of(arena, c, type, rule).biased().withGate(type));
            }
        }
    }

    /** As a captured layer has it: the offsets say fewer tokens than there is room for. */
    @Test
    default void router_leavesOutTokensBehindTheOffsets() {
        for (DType type : Cases.FLOATING) {
            for (int present : new int[] {0, 1, 3, 6}) {
                try (Arena arena = Arena.ofConfined()) {
                    Case c = new Case(6, EXPERTS, 2, 24, 1, Pattern.UNIFORM);
                    RouterProblem problem =
                            RouterProblem.of(arena, c, type, RULES.get(1))
                                    .withGate(type)
                                    .withTypes();
                    for (int token = present; token < 6; token++) {
                        problem.types().setInt(token, -1);
                    }
                    problem.dense().expertOffsets().setInt(1, present);
                    check(present + " of 6", problem);
                }
            }
        }
    }

    /** Of batches that are computed the same way. */
    @Tag("broad")
    @Test
    default void router_doesNotDependOnBatch() {
        Case c = new Case(70, EXPERTS, 2, 300, 1, Pattern.UNIFORM);
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                RouterProblem problem =
                        RouterProblem.of(arena, c, type, RULES.get(2)).withGate(type);
                RouterProblem.Results all = problem.run(arena, backend());
                for (int count : new int[] {1, 2, 9, 17, 65}) {
                    RouterProblem some = problem.first(arena, count);
                    boolean same = some.fusedBy(backend()) == problem.fusedBy(backend());
                    if (same) {
                        RouterProblem.Results own = some.run(arena, backend());
                        assertSame("logits", own.logits(), all.logits().slice(0, count));
                        Tensor weights = all.routing().topkWeights().slice(0, count);
                        assertSame("weights", own.routing().topkWeights(), weights);
                        Tensor gates = problem.dense().topkWeights().slice(0, count);
                        assertSame("gate", some.dense().topkWeights(), gates);
                    }
                }
            }
        }
    }

    @Tag("broad")
    @Test
    default void routeSort_isRouteAndSort() {
        for (RouterConfig rule : RULES) {
            for (Logits kind : Logits.values()) {
                for (int tokens : new int[] {0, 1, 17}) {
                    try (Arena arena = Arena.ofConfined()) {
                        Tensor logits = Tensor.allocate(arena, DType.F32, tokens, rule.numLogits());
                        Cases.logits(logits, kind, tokens);
                        Tensor types = Tensor.allocate(arena, DType.I32, tokens);
                        for (int t = 0; t < tokens; t++) {
                            types.setInt(t, t % 3 == 1 ? -1 : 0);
                        }
                        RouteInputs inputs = new RouteInputs(null, types);
                        Routing want = Routing.allocate(arena, tokens, 2, EXPERTS);
                        backend().route(logits, rule, inputs, want);
                        backend().sortByExpert(want);
                        Routing got = Routing.allocate(arena, tokens, 2, EXPERTS);
                        backend().routeSort(logits, rule, inputs, got);
                        assertSameRouting(rule + " " + kind + " T=" + tokens, got, want);
                    }
                }
            }
        }
    }

    @Test
    default void router_refusesWhatDoesNotBelongTogether() {
        Case c = new Case(4, EXPERTS, 2, 24, 1, Pattern.UNIFORM);
        try (Arena arena = Arena.ofConfined()) {
            RouterProblem problem = RouterProblem.of(arena, c, DType.BF16, RULES.getFirst());
            RouterProblem gated = problem.withGate(DType.BF16);
            refused("scratch: expected F32 [at least", () -> gated.run(arena, backend(), -1));
            RouterProblem few =
                    new RouterProblem(
                            problem.x(), problem.router(), null, problem.first(arena, 3).dense());
            refused(
                    "dense: expected a routing of tokens=4 to one",
                    () -> few.run(arena, backend()));
            RouterWeights weights = problem.router().weights();
            RouterConfig more = RouterConfig.softmaxTopK(EXPERTS + 1, 2, true);
            refused("weight: expected [1, numLogits=17", () -> new Router(more, weights, null));
            Tensor wide = Tensor.allocate(arena, DType.F32, 1, 1, 25);
            refused(
                    "sharedGate: expected F32, F16 or BF16 [1, 1, hidden=24]",
                    () -> new Router(RULES.getFirst(), weights, wide));
        }
    }

    private static void refused(String message, Runnable call) {
        assertThatThrownBy(call::run)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith(message);
    }

    private void check(String name, RouterProblem problem) {
        String full = "%s, %s".formatted(name, problem);
        long present = problem.dense().expertOffsets().getInt(1);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            RouterProblem.Results got = problem.run(arena, backend());
            Tensor gates = problem.dense().topkWeights().copy(arena);
            Router router = problem.router();
            Tensor offsets = problem.dense().expertOffsets();
            Tensor want = Tensor.allocate(arena, DType.F64, got.logits().shape());
            RouterWeights weights = router.weights();
            reference.groupedGemm(problem.x(), weights.weight(), weights.bias(), offsets, want);
            long terms = problem.x().dim(1) + 1;
            Tensor first = got.logits().slice(0, present);
            Tolerance.assertClose("router", full, first, want.slice(0, present), terms);
            // Decisions are those of the logits that it computed.
            Routing decided = Routing.allocate(arena, problem.x().dim(0), 2, EXPERTS);
            if (router.rule().topK() != 2) {
                decided =
                        Routing.allocate(
                                arena,
                                problem.x().dim(0),
                                router.rule().topK(),
                                router.rule().numExperts());
            }
            reference.route(
                    got.logits(),
                    router.rule(),
                    RouteInputs.of(router, TokenInputs.ofTypes(problem.types())),
                    decided);
            reference.sortByExpert(decided);
            assertSame(full, got.routing().topkIds(), decided.topkIds());
            Tolerance.assertClose(
                    "router",
                    full,
                    got.routing().topkWeights(),
                    decided.topkWeights(),
                    Tolerance.ACTIVATION_ROUNDINGS * router.rule().numExperts());
            assertMaps(full, got.routing(), decided);
            checkGate(full, problem, gates, present);
        }
    }

    private static void checkGate(String name, RouterProblem problem, Tensor got, long present) {
        Tensor gate = problem.router().sharedGate();
        if (gate == null) {
            return;
        }
        for (int token = 0; token < present; token++) {
            double sum = 0;
            double squares = 0;
            for (int i = 0; i < gate.dim(2); i++) {
                double term = gate.getDouble(i) * problem.x().row(token).getDouble(i);
                sum += term;
                squares += term * term;
            }
            double want = 1 / (1 + Math.exp(-sum));
            // The slope of the sigmoid is at most a quarter.
            double bound = Math.sqrt(squares) * 0x1p-23 + 4 * Math.ulp((float) want);
            assertThat(Math.abs(got.getDouble(token) - want))
                    .as("gate of token %d, %s", token, name)
                    .isLessThanOrEqualTo(bound);
        }
    }

    private static void assertSameRouting(String name, Routing got, Routing want) {
        assertSame(name, got.topkIds(), want.topkIds());
        assertSame(name, got.topkWeights(), want.topkWeights());
        assertMaps(name, got, want);
    }

    private static void assertMaps(String name, Routing got, Routing want) {
        assertSame(name, got.tokensPerExpert(), want.tokensPerExpert());
        assertSame(name, got.expertOffsets(), want.expertOffsets());
        assertSame(name, got.slotToRow(), want.slotToRow());
        int rows = Cases.rows(want.expertOffsets());
        assertSame(name, got.rowToSlot().slice(0, rows), want.rowToSlot().slice(0, rows));
    }

    private static void assertSame(String name, Tensor got, Tensor want) {
        assertThat(got.data().mismatch(want.data())).as(name).isEqualTo(-1);
    }
}
