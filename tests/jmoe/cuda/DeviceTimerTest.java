package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** That the timer runs what it is given; how long that takes is the device's affair. */
final class DeviceTimerTest {
    private final Arena arena = Arena.ofShared();
    private CudaKernels kernels;
    private DeviceTimer timer;
    private List<Tensor> from;
    private List<Tensor> to;

    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @BeforeEach
    void open() {
        kernels = new CudaKernels();
        timer = new DeviceTimer(kernels, arena, 64, false);
        from = new ArrayList<>();
        to = new ArrayList<>();
        for (int set = 0; set < 2; set++) {
            Tensor host = Tensor.allocate(arena, DType.F32, 4);
            host.setDouble(3, set + 1);
            from.add(kernels.upload(arena, host));
            to.add(kernels.upload(arena, Tensor.allocate(arena, DType.F32, 4)));
        }
    }

    @AfterEach
    void close() {
        timer.close();
        arena.close();
        kernels.close();
        assertThat(CudaKernels.liveAllocations()).isZero();
    }

    private void copy(int set) {
        kernels.copy(from.get(set), to.get(set));
    }

    private double last(Tensor device) {
        Tensor host = Tensor.allocate(arena, DType.F32, 4);
        kernels.copy(device, host);
        return host.getDouble(3);
    }

    @Test
    void time_runsEverySet() {
        DeviceTimer.Time time = timer.time(this::copy, 2);
        assertThat(time.repeats()).isGreaterThanOrEqualTo(2);
        assertThat(time.micros()).isNotNegative();
        assertThat(last(to.get(0))).isEqualTo(1);
        assertThat(last(to.get(1))).isEqualTo(2);
    }

    @Test
    void timeOfOtherKernels_leavesTheFirstUsable() {
        kernels.synchronise();
        try (CudaKernels others = new CudaKernels();
                DeviceTimer othersTimer = new DeviceTimer(others, timer)) {
            othersTimer.time(set -> others.copy(from.get(set), to.get(set)), 2);
        }
        timer.time(this::copy, 2);
        assertThat(last(to.get(1))).isEqualTo(2);
    }

    @Test
    void time_leavesNoCaptureBehindWhatFails() {
        int[] calls = new int[1];
        assertThatThrownBy(() ->
                        timer.time(
                                set -> {
                                    if (++calls[0] > 5) {
                                        throw new IllegalStateException("enough");
                                    }
                                    copy(set);
                                },
                                2))
                .hasMessage("enough");
        timer.time(this::copy, 2);
    }
}
