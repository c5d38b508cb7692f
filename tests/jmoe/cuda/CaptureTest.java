package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.CapturedLayer;
import jmoe.MoeLayer;
import jmoe.checkpoint.LoadProgress;
import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.CapacityLimit;
import jmoe.ops.Replay;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;

/** Operations in a graph of the driver. */
final class CaptureTest {
    private long liveBefore;

    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @BeforeEach
    void countLive() {
        liveBefore = CudaKernels.liveAllocations();
    }

    @AfterEach
    void nothingIsLeft() {
        if (CudaDriver.emulatorName() != null) {
            Emulator.repair();
            Emulator.setTiming(Emulator.LATE);
        }
        assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
    }

    @Test
    void capture_computesNothingUntilItRuns() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            SmallLayer layer = new SmallLayer(kernels, arena, true);
            layer.run();
            byte[] first = layer.result();
            layer.setInput(5);
            try (Replay replay = kernels.capture(layer::run)) {
                assertThat(layer.result()).isEqualTo(first);
                replay.run();
                byte[] replayed = layer.result();
                assertThat(replayed).isNotEqualTo(first);
                layer.run();
                assertThat(layer.result()).isEqualTo(replayed);
                layer.setInput(4);
                replay.run();
                assertThat(layer.result()).isEqualTo(first);
            }
        }
    }

    @Test
    void capture_ofWhatAGraphCannotHold_isRefusedAndLeavesNothingBehind() {
        byte[] want = SmallLayer.compute(true);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            SmallLayer fresh = new SmallLayer(kernels, arena, true);
            assertThatThrownBy(() -> kernels.capture(fresh::run))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage(
                            "capture: expected operations that have run before, on tensors of the"
                                + " device, got the first use of grouped_gemm_bf16_f32; run them"
                                + " once with the same types and sizes, and keep the host out");
            fresh.run();
            assertThat(fresh.result()).isEqualTo(want);
            SmallLayer onHost = new SmallLayer(kernels, arena, false);
            assertThatThrownBy(() -> kernels.capture(onHost::run))
                    .hasMessageContaining("got a tensor on the host, BF16 [9, 20]; run");
            assertThatThrownBy(() -> kernels.capture(kernels::synchronise))
                    .hasMessageContaining("got a wait for the device; run");
            assertThatThrownBy(() -> kernels.capture(() -> kernels.nanos(fresh::run)))
                    .hasMessageContaining("got a wait for the device; run");
            assertThatThrownBy(() -> kernels.capture(fresh::result))
                    .hasMessageContaining("got a copy to the host; run");
            assertThatThrownBy(() -> kernels.capture(() -> kernels.allocate(arena, DType.I32, 3)))
                    .hasMessageContaining("got an allocation of 12 bytes; run");
            assertThatThrownBy(() -> kernels.capture(() -> kernels.capture(fresh::run)))
                    .hasMessageContaining("got another capture; run");
            Replay replay = kernels.capture(fresh::run);
            assertThatThrownBy(() -> kernels.capture(replay::run))
                    .hasMessageContaining("got a replay; run");
            replay.run();
            assertThat(fresh.result()).isEqualTo(want);
            replay.close();
            replay.close();
            assertThatThrownBy(replay::run)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("replay: closed; capture the operations again");
        }
    }

    @Test
    void capture_withACallThatFails_throwsAndGoesOn() {
        Emulator.require();
        byte[] want = SmallLayer.compute(true);
        for (String call :
                new String[] {
                    "cuStreamBeginCapture",
                    "cuStreamEndCapture",
                    "cuGraphInstantiate",
                    "cuGraphLaunch",
                    "cuGraphDestroy",
                    "cuLaunchKernel"
                }) {
            try (CudaKernels kernels = new CudaKernels();
                    Arena arena = Arena.ofConfined()) {
                SmallLayer layer = new SmallLayer(kernels, arena, true);
                layer.run();
                Emulator.fail(call, 1, 1);
                assertThatThrownBy(
                                () -> {
                                    try (Replay replay = kernels.capture(layer::run)) {
                                        replay.run();
                                    }
                                })
                        .as(call)
                        .isInstanceOfSatisfying(
                                CudaException.class, e -> assertThat(e.call()).startsWith(call));
                Emulator.repair();
            }
            assertThat(SmallLayer.compute(true)).as(call).isEqualTo(want);
        }
    }

    @Test
    void replay_outlivesItsBackendQuietly() {
        CudaKernels kernels = new CudaKernels();
        Arena arena = Arena.ofConfined();
        SmallLayer layer = new SmallLayer(kernels, arena, true);
        layer.run();
        Replay replay = kernels.capture(layer::run);
        arena.close();
        kernels.close();
        assertThatThrownBy(replay::run)
                .isInstanceOf(IllegalStateException.class)
                .hasMessageStartingWith("the CUDA backend is closed");
        replay.close();
    }

    /** What lies between the kernels of a capacity is where it was when they were captured. */
    @Test
    void capture_ofACapacity_keepsItsScratch() {
        Capacity capacity =
                new Capacity(new CapacityLimit.Tokens(3), Priority.WEIGHT, true)
                        .withRandomRouting(new Capacity.RandomRouting(0.5, 3))
                        .withOverflow(new Capacity.Overflow.NextChoice(2));
        RouterConfig free = RouterConfig.softmaxTopK(8, 2, true);
        RouterConfig config =
                new RouterConfig(
                        8,
                        2,
                        free.score(),
                        free.selection(),
                        free.normalisation(),
                        1,
                        false,
                        capacity,
                        RouterConfig.ALL_TOKENS);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Tensor host = Tensor.allocate(arena, DType.F32, 40, 8);
            for (long i = 0; i < host.numElements(); i++) {
                host.setDouble(i, Math.sin(i));
            }
            Tensor logits = kernels.upload(arena, host);
            Routing routing =
                    Routing.allocate(
                            (dtype, shape) -> kernels.allocate(arena, dtype, shape), 40, 2, 8);
            kernels.route(logits, config, RouteInputs.NONE, routing);
            Tensor want = Tensor.allocate(arena, DType.I32, 40, 2);
            kernels.copy(routing.topkIds(), want);
            try (Replay replay =
                    kernels.capture(
                            () -> kernels.route(logits, config, RouteInputs.NONE, routing))) {
                kernels.fill(routing.topkIds(), 7);
                replay.run();
                Tensor got = Tensor.allocate(arena, DType.I32, 40, 2);
                kernels.copy(routing.topkIds(), got);
                assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
            }
        }
    }

    /** What is decided by the whole batch is decided anew, for other tokens and other absences. */
    @Test
    void capture_ofRulesByBatch_decidesAnew() {
        List<Selection> rules =
                List.of(
                        new Selection.ExpertChoice(2),
                        new Selection.Sinkhorn(1e-3, 8),
                        new Selection.BalancedAssignment(0.1));
        for (Selection rule : rules) {
            RouterConfig config = byBatch(rule);
            try (CudaKernels kernels = new CudaKernels();
                    Arena arena = Arena.ofConfined()) {
                Routing got = routing(kernels, arena);
                Routing want = routing(kernels, arena);
                Tensor logits = kernels.allocate(arena, DType.F32, 70, 5);
                Tensor types = kernels.allocate(arena, DType.I32, 70);
                RouteInputs inputs = new RouteInputs(null, types);
                write(kernels, arena, 70, logits, types);
                kernels.route(logits, config, inputs, got);
                try (Replay replay =
                        kernels.capture(() -> kernels.route(logits, config, inputs, got))) {
                    for (int tokens : new int[] {70, 0, 3, 66}) {
                        write(kernels, arena, tokens, logits, types);
                        kernels.fill(got.topkIds(), 7);
                        replay.run();
                        kernels.route(logits, config, inputs, want);
                        String name = rule + " of " + tokens + " tokens";
                        assertThat(bytes(kernels, got.topkIds()))
                                .as(name)
                                .isEqualTo(bytes(kernels, want.topkIds()));
                        assertThat(bytes(kernels, got.topkWeights()))
                                .as(name)
                                .isEqualTo(bytes(kernels, want.topkWeights()));
                    }
                }
            }
        }
    }

    private static RouterConfig byBatch(Selection rule) {
        RouterConfig plain = RouterConfig.softmaxTopK(5, 1, true);
        return new RouterConfig(
                5,
                1,
                plain.score(),
                rule,
                plain.normalisation(),
                1,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    private static Routing routing(CudaKernels kernels, Arena arena) {
        return Routing.allocate((dtype, shape) -> kernels.allocate(arena, dtype, shape), 70, 1, 5);
    }

    /** Other logits than before, and types that say that the tokens from some on are absent. */
    private static void write(
            CudaKernels kernels, Arena arena, int tokens, Tensor logits, Tensor types) {
        Tensor hostLogits = Tensor.allocate(arena, DType.F32, 70, 5);
        for (long i = 0; i < hostLogits.numElements(); i++) {
            hostLogits.setDouble(i, Math.sin(i * (tokens + 1)));
        }
        kernels.copy(hostLogits, logits);
        kernels.fill(types.slice(0, tokens), 0);
        kernels.fill(types.slice(tokens, 70 - tokens), -1);
    }

    private static byte[] bytes(CudaKernels kernels, Tensor tensor) {
        try (Arena own = Arena.ofConfined()) {
            Tensor host = Tensor.allocate(own, tensor.dtype(), tensor.shape());
            kernels.copy(tensor, host);
            return host.data().toArray(JAVA_BYTE);
        }
    }

    /** Two numbers and a graph: nothing waits, nothing is allocated. */
    @Test
    void replayedLayer_waitsForNothing() {
        Emulator.require();
        Path folder = Path.of("tests/golden/deepseek_v3-0");
        try (CudaKernels kernels = new CudaKernels();
                MoeLayer layer = MoeLayer.load(folder, 0, kernels, DType.F32, LoadProgress.NONE);
                CapturedLayer captured = layer.capture(7)) {
            Emulator.setTiming(Emulator.LATE);
            captured.replay(7);
            kernels.synchronise();
            assertThat(Emulator.get("pending")).isZero();
            long allocations = Emulator.get("liveAllocations");
            captured.replay(7);
            long once = Emulator.get("pending");
            captured.replay(7);
            assertThat(Emulator.get("pending")).isEqualTo(2 * once);
            captured.replay(3);
            captured.replay(0);
            assertThat(Emulator.get("pending")).isGreaterThan(3 * once);
            assertThat(Emulator.get("liveAllocations")).isEqualTo(allocations);
            kernels.synchronise();
        }
    }
}
