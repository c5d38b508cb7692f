package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.Kernels.Residual;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;

/** Null experts, which a rule has and a routing has not, and experts that everybody chooses. */
interface WeightlessExpertsContract extends Contract {
    /** Experts of the rule, of the routing, and those with weights; in between is the identity. */
    int EXPERTS = 12;

    int WITH_ROWS = 9;
    int WITH_WEIGHTS = 7;
    int TOKENS = 19;
    int TOP_K = 3;

    @Test
    default void routeSort_givesNullExpertsNoRows() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Cases.normal(arena, DType.F32, 5, TOKENS, EXPERTS);
            RouterConfig rule = RouterConfig.softmaxTopK(EXPERTS, TOP_K, true);
            Routing all = Routing.allocate(arena, TOKENS, TOP_K, EXPERTS);
            Routing some = Routing.allocate(arena, TOKENS, TOP_K, WITH_ROWS);
            backend().routeSort(logits, rule, RouteInputs.NONE, all);
            backend().routeSort(logits, rule, RouteInputs.NONE, some);
            int nulls = 0;
            for (int slot = 0; slot < TOKENS * TOP_K; slot++) {
                int id = all.topkIds().getInt(slot);
                assertThat(some.topkIds().getInt(slot)).isEqualTo(id);
                assertThat(some.topkWeights().getFloat(slot))
                        .isEqualTo(all.topkWeights().getFloat(slot));
                int row = id < WITH_ROWS ? all.slotToRow().getInt(slot) : -1;
                assertThat(some.slotToRow().getInt(slot)).as("slot %d", slot).isEqualTo(row);
                nulls += id < WITH_ROWS ? 0 : 1;
            }
            assertThat(nulls).as("the case itself").isBetween(1, TOKENS * TOP_K - 1);
            assertThat(Cases.rows(some.expertOffsets())).isEqualTo(TOKENS * TOP_K - nulls);
            assertThatThrownBy(() ->
                            backend()
                                    .routeSort(
                                            logits.slice(0, TOKENS),
                                            rule,
                                            RouteInputs.NONE,
                                            Routing.allocate(arena, TOKENS, TOP_K, EXPERTS + 1)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("tokensPerExpert: expected I32 [at most numExperts=12]");
        }
    }

    /** In two types: a backend may have one way for 16 bits and another for 32. */
    @ParameterizedTest
    @EnumSource(
            value = DType.class,
            names = {"F32", "BF16"})
    default void layer_addsIdentityAndLeavesOutNull(DType type) {
        Case c = new Case(TOKENS, WITH_WEIGHTS, TOP_K, 32, 16, Pattern.UNIFORM);
        RouterConfig rule = RouterConfig.softmaxTopK(EXPERTS, TOP_K, true);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            RouterProblem problem = RouterProblem.of(arena, c, type, rule);
            Routing want = routing(reference, arena, problem);
            Routing got = routing(backend(), arena, problem);
            assertThat(ints(got.topkIds())).isEqualTo(ints(want.topkIds()));
            assertThat(ints(got.slotToRow())).isEqualTo(ints(want.slotToRow())).contains(-1);
            ExpertsProblem plain = ExpertsProblem.of(arena, c, type);
            Bank bank = new Bank(plain.routed().experts(), want, null, want.topkWeights());
            Residual residual = new Residual(null, plain.x(), WITH_WEIGHTS, 1);
            ExpertsProblem experts = new ExpertsProblem(plain.x(), bank, null, residual, type);
            Tensor sum = Tensor.allocate(arena, DType.F64, TOKENS, c.hidden());
            experts.withRows(DType.F64).run(reference, sum);
            Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, c.hidden());
            experts.run(backend(), y);
            double[] squares = experts.squares(reference);
            Tolerance.assertRounded(
                    "experts", "null and identity", y, sum, experts.terms(), type, squares);
        }
    }

    private static Routing routing(Kernels kernels, Arena arena, RouterProblem problem) {
        Routing routing = Routing.allocate(arena, TOKENS, TOP_K, WITH_ROWS);
        Tensor logits = Tensor.allocate(arena, DType.F32, TOKENS, EXPERTS);
        Tensor x = problem.x();
        long elements = kernels.routerScratch(x.dtype(), problem.router(), TOKENS);
        Tensor scratch = Tensor.allocate(arena, DType.F32, elements);
        kernels.router(
                x, problem.router(), TokenInputs.NONE, problem.dense(), scratch, logits, routing);
        return routing;
    }

    private static int[] ints(Tensor tensor) {
        int[] ints = new int[(int) tensor.numElements()];
        for (int i = 0; i < ints.length; i++) {
            ints[i] = tensor.getInt(i);
        }
        return ints;
    }

    /** Shared experts inside the softmax of the routed ones: Uni-MoE-Audio. */
    @Test
    default void route_withInfiniteBias_choosesSharedExpertsAlways() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Cases.normal(arena, DType.F32, 6, TOKENS, EXPERTS);
            Tensor bias = Tensor.allocate(arena, DType.F32, EXPERTS);
            bias.setDouble(4, Double.POSITIVE_INFINITY);
            bias.setDouble(10, Double.POSITIVE_INFINITY);
            RouterConfig rule = RouterConfig.softmaxTopK(EXPERTS, TOP_K, false);
            Routing routing = Routing.allocate(arena, TOKENS, TOP_K, EXPERTS);
            backend().route(logits, rule, new RouteInputs(bias, null), routing);
            Tensor weights = Tensor.allocate(arena, DType.F64, TOKENS, TOP_K);
            for (int token = 0; token < TOKENS; token++) {
                double sum = 0;
                int best = -1;
                for (int e = 0; e < EXPERTS; e++) {
                    double z = logits.getDouble((long) token * EXPERTS + e);
                    sum += Math.exp(z);
                    boolean routed = e != 4 && e != 10;
                    if (routed
                            && (best < 0 || z > logits.getDouble((long) token * EXPERTS + best))) {
                        best = e;
                    }
                }
                int[] want = {4, 10, best};
                for (int k = 0; k < TOP_K; k++) {
                    long slot = (long) token * TOP_K + k;
                    assertThat(routing.topkIds().getInt(slot)).isEqualTo(want[k]);
                    double z = logits.getDouble((long) token * EXPERTS + want[k]);
                    weights.setDouble(slot, Math.exp(z) / sum);
                }
            }
            Tolerance.assertClose(
                    "route", "infinite bias", routing.topkWeights(), weights, EXPERTS);
        }
    }
}
