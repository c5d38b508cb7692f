package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.JCudaDriver;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** What waits and what does not, and in which order work is done. */
final class CudaStreamTest {
    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @AfterEach
    void setTiming() {
        if (CudaDriver.emulatorName() != null) {
            Emulator.setTiming(Emulator.LATE);
        }
    }

    @Test
    void deviceTensors_giveTheBitsOfHostTensors() {
        assertThat(SmallLayer.compute(true)).isEqualTo(SmallLayer.compute(false));
    }

    @Test
    void operationsOnDeviceTensors_doNotWait() {
        Emulator.require();
        Emulator.setTiming(Emulator.LATE);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            SmallLayer layer = new SmallLayer(kernels, arena, true);
            layer.run();
            kernels.synchronise();
            assertThat(Emulator.get("pending")).isZero();
            layer.run();
            assertThat(Emulator.get("pending")).isEqualTo(8);
            kernels.synchronise();
            assertThat(Emulator.get("pending")).isZero();
        }
    }

    /** Memory that an arena gives back while the device still needs it. */
    @Test
    void nanos_waitsForWhatItTimes() {
        Emulator.require();
        Emulator.setTiming(Emulator.LATE);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            SmallLayer layer = new SmallLayer(kernels, arena, true);
            assertThat(kernels.nanos(layer::run)).isNotNegative();
            assertThat(Emulator.get("pending")).isZero();
            assertThat(layer.result()).isEqualTo(SmallLayer.compute(true));
        }
    }

    @Test
    void closingAnArena_waitsItsTurn() {
        byte[] want = SmallLayer.compute(true);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Tensor kept = kernels.allocate(arena, DType.F32, SmallLayer.TOKENS, SmallLayer.HIDDEN);
            try (Arena inner = Arena.ofConfined()) {
                SmallLayer layer = new SmallLayer(kernels, inner, true);
                layer.run();
                kernels.copy(layer.output(), kept);
            }
            SmallLayer another = new SmallLayer(kernels, arena, true);
            another.setInput(17);
            another.run();
            Tensor host = Tensor.allocate(arena, kept.dtype(), kept.shape());
            kernels.copy(kept, host);
            assertThat(host.data().toArray(JAVA_BYTE)).isEqualTo(want);
        }
    }

    @Test
    void operations_withOneHostTensor_haveEndedOnReturn() {
        Emulator.require();
        Emulator.setTiming(Emulator.LATE);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Tensor x = kernels.allocate(arena, DType.F32, 3, 4);
            kernels.copy(Tensor.allocate(arena, DType.F32, 3, 4), x);
            Tensor weight = kernels.allocate(arena, DType.F32, 1, 5, 4);
            kernels.copy(Tensor.allocate(arena, DType.F32, 1, 5, 4), weight);
            Tensor y = kernels.allocate(arena, DType.F32, 3, 5);
            Tensor offsets = Tensor.allocate(arena, DType.I32, 2);
            offsets.setInt(1, 3);
            kernels.groupedGemm(x, weight, null, offsets, y);
            // Giving back the copy of the offsets may still be queued, the product may not.
            assertThat(Emulator.get("pending")).isLessThanOrEqualTo(1);
        }
    }

    @Test
    void capture_replaysTheOperationsOnNewInput() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            SmallLayer layer = new SmallLayer(kernels, arena, true);
            layer.run();
            byte[] first = layer.result();
            CUgraph graph = new CUgraph();
            check(
                    JCudaDriver.cuStreamBeginCapture(
                            kernels.stream(),
                            CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
            layer.run();
            check(JCudaDriver.cuStreamEndCapture(kernels.stream(), graph));
            CUgraphExec replay = new CUgraphExec();
            check(JCudaDriver.cuGraphInstantiate(replay, graph, 0));
            layer.setInput(5);
            check(JCudaDriver.cuGraphLaunch(replay, kernels.stream()));
            byte[] replayed = layer.result();
            layer.run();
            assertThat(replayed).isEqualTo(layer.result()).isNotEqualTo(first);
            layer.setInput(4);
            check(JCudaDriver.cuGraphLaunch(replay, kernels.stream()));
            assertThat(layer.result()).isEqualTo(first);
            check(JCudaDriver.cuGraphExecDestroy(replay));
            check(JCudaDriver.cuGraphDestroy(graph));
        }
    }

    private static void check(int code) {
        assertThat(code).isZero();
    }

    @Test
    void events_arePassedInOrder() {
        Emulator.require();
        Emulator.setTiming(Emulator.LATE);
        try (CudaContext context = new CudaContext(CudaDevice.of(0));
                Arena arena = Arena.ofConfined()) {
            context.enter();
            CudaStream other = new CudaStream(context);
            CudaEvent first = new CudaEvent(context, true);
            CudaEvent second = new CudaEvent(context, true);
            assertThat(first.isPassed()).isTrue();
            CudaMemory.Block block = context.memory().allocate(1 << 20);
            first.record(context.stream());
            context.staging().toDevice(arena.allocate(1 << 20), block.address());
            other.await(first);
            second.record(other);
            second.synchronise();
            assertThat(first.isPassed()).isTrue();
            assertThat(second.millisecondsSince(first)).isGreaterThanOrEqualTo(0);
            context.memory().free(block);
            first.close();
            second.close();
            other.close();
            context.exit();
        }
    }

    @Test
    void manyThreads_getTheSameBits() throws Exception {
        byte[] want = SmallLayer.compute(true);
        try (CudaKernels kernels = new CudaKernels();
                ExecutorService threads = Executors.newFixedThreadPool(8)) {
            List<Future<byte[]>> results = new ArrayList<>();
            for (int i = 0; i < 16; i++) {
                boolean onDevice = i % 2 == 0;
                results.add(
                        threads.submit(() -> {
                            try (Arena arena = Arena.ofConfined()) {
                                return SmallLayer.compute(kernels, arena, onDevice);
                            }
                        }));
            }
            for (Future<byte[]> result : results) {
                assertThat(result.get()).isEqualTo(want);
            }
        }
    }

    @Test
    void close_refusesCallsAndRunsTwice() {
        CudaKernels kernels = new CudaKernels();
        kernels.close();
        kernels.close();
        assertThatThrownBy(kernels::synchronise)
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("the CUDA backend is closed; close it after its last use");
        assertThatThrownBy(() -> kernels.allocate(Arena.ofAuto(), DType.F32, 1))
                .isInstanceOf(IllegalStateException.class);
    }
}
