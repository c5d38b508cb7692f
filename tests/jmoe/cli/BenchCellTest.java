package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.Backend;
import jmoe.Preset;
import jmoe.ops.Activation;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.tensor.DType;
import jmoe.vector.Ceilings;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.util.List;
import java.util.Map;
import java.util.Set;

/** What is measured where passes are replayed; how long they take is the device's affair. */
final class BenchCellTest {
    private static final int HIDDEN = 32;
    private static final int INTERMEDIATE = 24;
    private static final int EXPERTS = 4;
    private static final int TOP_K = 2;
    private static final int TOKENS = 5;

    private static final Preset SMALL =
            new Preset(
                    "olmoe-1b-7b",
                    new MoeConfig(
                            "olmoe",
                            HIDDEN,
                            HIDDEN,
                            EXPERTS,
                            0,
                            Activation.SWIGLU,
                            List.of(RouterConfig.softmaxTopK(EXPERTS, TOP_K, true)),
                            List.of(INTERMEDIATE),
                            0,
                            false,
                            1),
                    Set.of());

    @ParameterizedTest
    @EnumSource(names = {"BF16", "F32"})
    void measure_replaysPassesOfADevice(DType type) {
        Assumptions.assumeTrue(Backend.CUDA.unavailable().isEmpty(), "there is no CUDA device");
        try (OpenBackend backend = OpenBackend.start("cuda", null);
                BenchLayer layer = new BenchLayer(SMALL, type, backend)) {
            BenchCell cell = BenchCell.measure(layer, TOKENS, 1);
            assertThat(cell.tokens()).isEqualTo(TOKENS);
            assertThat(cell.passes()).isPositive();
            assertThat(cell.medianNanos()).isBetween(cell.minNanos(), cell.maxNanos());
            assertThat(cell.flops())
                    .isEqualTo(2.0 * TOKENS * HIDDEN * (TOP_K * 3 * INTERMEDIATE + EXPERTS));
            assertThat(cell.experts()).isBetween(2.0, 4.0);
            boolean apart = !cell.stageNanos().containsKey(TimedKernels.Stage.EXPERTS);
            if (apart) {
                assertThat(cell.movesShare()).isBetween(0.0, 1.0);
                assertThat(cell.routingShare()).isBetween(0.0, cell.movesShare());
            } else {
                assertThat(cell.movesShare()).isNaN();
                assertThat(cell.routingShare()).isNaN();
            }
            assertThat(cell.notFinite()).isZero();
            assertThat(cell.disturbed()).isFalse();

            boolean emulated = backend.backend().emulated();
            Ceilings ceilings = DeviceCeilings.measure(backend.kernels(), emulated);
            assertThat(ceilings.fmaGflops()).isPositive();
            assertThat(ceilings.streamGbps()).isPositive();
            BenchSeries series =
                    new BenchSeries(
                            SMALL,
                            type,
                            backend.backend(),
                            backend.description(),
                            1,
                            ceilings,
                            List.of(cell),
                            Map.of());
            assertThat(series.json().getFirst()).containsEntry("timing", "graph");
            assertThat(cell.hostNanos()).isPositive();
            assertThat((double) series.json().getFirst().get("host_us_per_replay"))
                    .isEqualTo(cell.hostNanos() / 1e3);
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"BF16", "F32"})
    void capturedPasses_takeTurns(DType type) {
        Assumptions.assumeTrue(Backend.CUDA.unavailable().isEmpty(), "there is no CUDA device");
        try (OpenBackend backend = OpenBackend.start("cuda", null);
                BenchLayer layer = new BenchLayer(SMALL, type, backend);
                BenchLayer.Batches batches = layer.open(TOKENS);
                CapturedPasses passes = batches.capture()) {
            assertThat(passes.count())
                    .isEqualTo(layer.emulated() ? 1 : CapturedPasses.batches(TOKENS));
            assertThat(passes.nanos(1)).isNotNegative();
            assertThat(passes.nanos(2)).isNotNegative();
            assertThat(passes.hostNanos(2)).isPositive();
            assertThat(passes.tokensPerExpert()).hasSize(passes.count());
            for (Work work : batches.work(passes)) {
                long fixed = type.numBytes((long) HIDDEN * EXPERTS);
                long expert = type.numBytes(3L * HIDDEN * INTERMEDIATE);
                assertThat(work.experts()).isBetween(TOP_K, EXPERTS);
                assertThat(work.bytes()).isEqualTo(fixed + work.experts() * expert);
            }
        }
    }
}
