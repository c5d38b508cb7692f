package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.cli.TimedKernels.Meter;
import jmoe.cli.TimedKernels.Stage;
import jmoe.ops.Activation;
import jmoe.ops.Bank;
import jmoe.ops.ExpertWeights;
import jmoe.ops.InputTransform;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.LogitTransform;
import jmoe.ops.RouteInputs;
import jmoe.ops.Router;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.ops.Routing;
import jmoe.ops.ShapeInputs;
import jmoe.ops.TokenInputs;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.lang.reflect.Proxy;
import java.util.List;

/** Four tokens, two of five experts each, of which two experts get all tokens. */
final class TimedKernelsTest {
    private static final int TOKENS = 4;
    private static final int EXPERTS = 5;
    private static final int TOP_K = 2;
    private static final int HIDDEN = 3;
    private static final int INTERMEDIATE = 7;
    private static final int ROWS = TOKENS * TOP_K;

    private final Arena arena = Arena.ofConfined();
    private final TimedKernels kernels = new TimedKernels(new ReferenceKernels());
    private final Routing routing = Routing.allocate(arena, TOKENS, TOP_K, EXPERTS);

    @AfterEach
    void close() {
        arena.close();
    }

    private Tensor f32(long... shape) {
        return Tensor.allocate(arena, DType.F32, shape);
    }

    private void sort() {
        for (int slot = 0; slot < ROWS; slot++) {
            routing.topkIds().setInt(slot, slot % TOP_K == 0 ? 1 : 4);
        }
        kernels.sortByExpert(routing);
    }

    private void assertMeter(Stage stage, long bytes, long flops) {
        Meter meter = kernels.meter(stage);
        assertThat(meter.calls()).isEqualTo(1);
        assertThat(meter.bytes()).isEqualTo(bytes);
        assertThat(meter.flops()).isEqualTo(flops);
        assertThat(meter.nanos()).isPositive();
    }

    @Test
    void route_countsLogitsBiasAndResult() {
        kernels.route(
                f32(TOKENS, EXPERTS),
                RouterConfig.softmaxTopK(EXPERTS, TOP_K, true),
                new RouteInputs(f32(EXPERTS), null),
                routing);
        assertMeter(
                Stage.ROUTE,
                4 * (TOKENS * EXPERTS + EXPERTS + 2 * TOKENS * TOP_K),
                4 * TOKENS * EXPERTS);
    }

    @Test
    void shapeLogits_countsLogitsTwice() {
        RouterConfig rule =
                RouterConfig.softmaxTopK(EXPERTS, TOP_K, true)
                        .withLogitTransforms(List.of(new LogitTransform.LearnedNoise(1)));
        ShapeInputs inputs = new ShapeInputs(null, f32(TOKENS, EXPERTS), null);
        kernels.shapeLogits(f32(TOKENS, EXPERTS), rule, inputs);
        assertMeter(Stage.SHAPE, 4 * 3 * TOKENS * EXPERTS, 0);
    }

    @Test
    void jitterAndNormaliseRows_countInputAndResult() {
        Tensor x = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
        InputTransform.Jitter jitter = new InputTransform.Jitter(1, 0.01);
        kernels.jitter(x, jitter, null, f32(TOKENS, HIDDEN));
        assertMeter(Stage.SHAPE, TOKENS * HIDDEN * (2 + 4), TOKENS * HIDDEN);
        kernels.reset();
        kernels.normaliseRows(x, 1, 0, f32(TOKENS, HIDDEN));
        assertMeter(Stage.SHAPE, TOKENS * HIDDEN * (2 + 4), 3 * TOKENS * HIDDEN);
    }

    @Test
    void sortByExpert_countsMaps() {
        sort();
        assertMeter(Stage.SORT, 4 * (3 * ROWS + EXPERTS + EXPERTS + 1), 0);
    }

    @Test
    void permute_countsRowsInTheirTypes() {
        sort();
        Tensor x = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
        kernels.permute(x, routing, null, f32(ROWS, HIDDEN));
        assertMeter(Stage.PERMUTE, ROWS * HIDDEN * (2 + 4) + 4 * ROWS, 0);
    }

    @Test
    void groupedGemm_countsWeightsOfExpertsWithRowsOnly() {
        sort();
        Tensor weight = Tensor.allocate(arena, DType.F16, EXPERTS, INTERMEDIATE, HIDDEN);
        kernels.groupedGemm(
                f32(ROWS, HIDDEN),
                weight,
                f32(EXPERTS, INTERMEDIATE),
                routing.expertOffsets(),
                f32(ROWS, INTERMEDIATE));
        assertMeter(
                Stage.GEMM,
                4 * ROWS * (HIDDEN + INTERMEDIATE) + 2 * INTERMEDIATE * (2 * HIDDEN + 4),
                2 * ROWS * HIDDEN * INTERMEDIATE);
    }

    @Test
    void swiglu_countsHalvesAndResult() {
        sort();
        kernels.swiglu(
                f32(ROWS, 2 * INTERMEDIATE),
                Activation.SWIGLU,
                routing.expertOffsets(),
                f32(ROWS, INTERMEDIATE));
        assertMeter(Stage.SWIGLU, 4 * 3 * ROWS * INTERMEDIATE, 4 * ROWS * INTERMEDIATE);
    }

    @Test
    void unpermute_countsRowsAndResult() {
        sort();
        kernels.unpermute(
                f32(ROWS, HIDDEN),
                routing,
                routing.topkWeights(),
                Residual.of(f32(1, HIDDEN)),
                f32(TOKENS, HIDDEN));
        assertMeter(
                Stage.UNPERMUTE,
                4 * (ROWS * HIDDEN + ROWS + ROWS + HIDDEN + TOKENS * HIDDEN),
                2 * ROWS * HIDDEN);
    }

    /** Step by step where a backend has no kernels of its own for it, else as one stage. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void experts_areOneStageIfTheyAreFused(boolean fused) {
        sort();
        kernels.reset();
        TimedKernels timed = fused ? new TimedKernels(fusing(kernels)) : kernels;
        ExpertWeights experts =
                new ExpertWeights(
                        f32(EXPERTS, 2 * INTERMEDIATE, HIDDEN),
                        f32(EXPERTS, HIDDEN, INTERMEDIATE),
                        null,
                        null,
                        Activation.SWIGLU);
        Bank bank = new Bank(experts, routing, null, routing.topkWeights());
        Tensor scratch = f32(timed.expertsScratch(DType.F32, bank, null));
        Tensor y = f32(TOKENS, HIDDEN);
        timed.experts(f32(TOKENS, HIDDEN), bank, null, Residual.NONE, DType.F32, scratch, y);
        assertThat(timed.meter(Stage.EXPERTS).calls()).isEqualTo(fused ? 1 : 0);
        assertThat(timed.meter(Stage.GATE_UP).calls()).isEqualTo(fused ? 0 : 1);
        assertThat(timed.meter(Stage.UNPERMUTE).calls()).isEqualTo(fused ? 0 : 1);
        if (fused) {
            int matrices = 3 * HIDDEN * INTERMEDIATE;
            Meter meter = timed.meter(Stage.EXPERTS);
            assertThat(meter.bytes())
                    .isEqualTo(4 * (2 * TOKENS * HIDDEN + 2 * matrices + TOKENS * TOP_K));
            assertThat(meter.flops()).isEqualTo(ROWS * (2 * matrices + 4 * INTERMEDIATE));
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void router_isOneStageIfItIsFused(boolean fused) {
        TimedKernels timed = fused ? new TimedKernels(fusing(kernels)) : kernels;
        Router router =
                new Router(
                        RouterConfig.softmaxTopK(EXPERTS, TOP_K, true),
                        new RouterWeights(f32(1, EXPERTS, HIDDEN), null, null),
                        f32(1, 1, HIDDEN));
        Routing dense = Routing.allocate(arena, TOKENS, 1, 1);
        kernels.sortByExpert(dense);
        kernels.reset();
        Tensor scratch = f32(timed.routerScratch(DType.F32, router, TOKENS));
        timed.router(
                f32(TOKENS, HIDDEN),
                router,
                TokenInputs.NONE,
                dense,
                scratch,
                f32(TOKENS, EXPERTS),
                routing);
        assertThat(timed.meter(Stage.ROUTER).calls()).isEqualTo(fused ? 1 : 0);
        assertThat(timed.meter(Stage.DENSE).calls()).isEqualTo(fused ? 0 : 2);
        assertThat(timed.meter(Stage.SORT).calls()).isEqualTo(fused ? 0 : 1);
        if (fused) {
            assertThat(timed.meter(Stage.ROUTER).flops())
                    .isEqualTo(2 * TOKENS * HIDDEN * (EXPERTS + 1) + 4 * TOKENS * EXPERTS);
        }
    }

    /** The same backend, which says that it has kernels of its own. */
    private static Kernels fusing(Kernels kernels) {
        return (Kernels)
                Proxy.newProxyInstance(
                        Kernels.class.getClassLoader(),
                        new Class<?>[] {Kernels.class},
                        (proxy, method, arguments) ->
                                method.getName().startsWith("fuses")
                                        ? (Object) true
                                        : method.invoke(kernels, arguments));
    }

    @Test
    void reset_forgets() {
        sort();
        kernels.reset();
        assertThat(kernels.meter(Stage.SORT).calls()).isZero();
        assertThat(kernels.meter(Stage.SORT).bytes()).isZero();
    }

    @Test
    void passes_reportMedianMinimumAndMaximum() {
        Passes passes = new Passes(kernels);
        for (int pass = 0; pass < 3; pass++) {
            passes.measure(this::sort);
        }
        assertThat(passes.count()).isEqualTo(3);
        assertThat(passes.medianNanos()).isBetween(passes.minNanos(), passes.maxNanos());
        assertThat(passes.totalBytes()).isEqualTo(kernels.meter(Stage.SORT).bytes());
        assertThat(passes.stagesJson()).hasSize(Stage.values().length);
    }
}
