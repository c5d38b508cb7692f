package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordedEvent;
import jdk.jfr.consumer.RecordingFile;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;

/** What Flight Recorder shows. */
final class RecordingTest {
    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    /** The kernels that were launched meanwhile. */
    static List<String> kernels(Path folder, Runnable action) throws Exception {
        return record(folder, "jmoe.KernelLaunch", action).stream()
                .map(event -> event.getString("kernel"))
                .toList();
    }

    private static List<RecordedEvent> record(Path folder, String name, Runnable action)
            throws Exception {
        Path file = folder.resolve("events.jfr");
        try (Recording recording = new Recording()) {
            recording.enable(name).withoutThreshold();
            recording.start();
            action.run();
            recording.stop();
            recording.dump(file);
        }
        return RecordingFile.readAllEvents(file).stream()
                .filter(event -> event.getEventType().getName().equals(name))
                .toList();
    }

    @Test
    void launches_showKernelAndGrid(@TempDir Path folder) throws Exception {
        List<RecordedEvent> events =
                record(folder, "jmoe.KernelLaunch", () -> SmallLayer.compute(true));
        assertThat(events)
                .extracting(event -> event.getString("kernel"))
                .containsExactly(
                        "grouped_gemm_bf16_f32",
                        "route",
                        "sort_by_expert_small",
                        "permute_copy",
                        "grouped_gemm_mma_bf16_16",
                        "swiglu_f32_bf16",
                        "grouped_gemm_bf16_f16",
                        "unpermute_f32_f32");
        for (RecordedEvent event : events) {
            assertThat(event.getInt("gridX")).isPositive();
            assertThat(event.getInt("gridY")).isPositive();
            assertThat(event.getInt("threads")).isPositive();
            assertThat(event.getInt("sharedBytes")).isNotNegative();
        }
    }

    @Test
    void copies_showDirectionAndBytes(@TempDir Path folder) throws Exception {
        List<RecordedEvent> events =
                record(
                        folder,
                        "jmoe.DeviceCopy",
                        () -> {
                            try (CudaKernels kernels = new CudaKernels();
                                    Arena arena = Arena.ofConfined()) {
                                Tensor host = Tensor.allocate(arena, DType.F32, 100);
                                Tensor device = kernels.upload(arena, host);
                                Tensor second = kernels.allocate(arena, DType.F32, 100);
                                kernels.copy(device, second);
                                kernels.copy(second.slice(0, 7), host.slice(0, 7));
                            }
                        });
        assertThat(events)
                .extracting(event -> event.getString("direction") + " " + event.getLong("bytes"))
                .containsExactly(
                        "host to device 400", "within the device 400", "device to host 28");
    }

    @Test
    void allocations_showBytesAndWhere(@TempDir Path folder) throws Exception {
        List<RecordedEvent> events =
                record(
                        folder,
                        "jmoe.DeviceAllocation",
                        () -> {
                            try (CudaKernels kernels = new CudaKernels();
                                    Arena arena = Arena.ofConfined()) {
                                kernels.allocate(arena, DType.F16, 3, 5);
                            }
                        });
        assertThat(events).hasSize(1);
        assertThat(events.getFirst().getLong("bytes")).isEqualTo(30);
        assertThat(events.getFirst().getStackTrace().getFrames())
                .anyMatch(frame ->
                        frame.getMethod()
                                .getType()
                                .getName()
                                .equals(RecordingTest.class.getName()));
    }
}
