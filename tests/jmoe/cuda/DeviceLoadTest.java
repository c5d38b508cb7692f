package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.MoeLayer;
import jmoe.checkpoint.Checkpoint;
import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.LoadProgress;
import jmoe.ops.Kernels;
import jmoe.ops.MoeWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Weights on their way from a file to the device. */
final class DeviceLoadTest {
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
        assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
    }

    /** Kernels that note what they copy. */
    private static Kernels noting(List<Tensor> copied, Kernels kernels) {
        return (Kernels)
                Proxy.newProxyInstance(
                        Kernels.class.getClassLoader(),
                        new Class<?>[] {Kernels.class},
                        (proxy, method, arguments) -> {
                            if (method.getName().equals("copy")) {
                                copied.add((Tensor) arguments[0]);
                            }
                            try {
                                return method.invoke(kernels, arguments);
                            } catch (InvocationTargetException e) {
                                throw e.getCause();
                            }
                        });
    }

    private static List<Tensor> copies(String variant, @Nullable DType type) {
        List<Tensor> copied = new ArrayList<>();
        List<long[]> progress = new ArrayList<>();
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined();
                Checkpoint files = Checkpoint.open(Path.of("tests/golden", variant))) {
            Kernels noting = noting(copied, kernels);
            MoeWeights weights =
                    files.load(
                            0,
                            type,
                            noting,
                            arena,
                            (b, total) -> progress.add(new long[] {b, total}));
            assertThat(weights.experts().getFirst().gateUp().isDevice()).isTrue();
            assertThat(weights.prepare(kernels, arena)).isSameAs(weights);
        }
        assertThat(progress.getLast()[0]).isEqualTo(progress.getLast()[1]);
        assertThat(copied).hasSameSizeAs(progress);
        return copied;
    }

    /** A mapped file is read-only memory, everything else on the way is not. */
    private static long scratchCopies(List<Tensor> copied) {
        return copied.stream().filter(tensor -> !tensor.data().isReadOnly()).count();
    }

    @ParameterizedTest
    @ValueSource(strings = {"mixtral-0", "qwen2_moe-0", "deepseek_v3-0"})
    void load_inTheStoredType_copiesFromTheFileToTheDevice(String variant) {
        assertThat(scratchCopies(copies(variant, null))).isZero();
    }

    @Test
    void load_inAnotherType_hasOnePieceOnTheHost() {
        List<Tensor> copied = copies("mixtral-0", DType.F16);
        // The router stays as it is; each matrix of each expert has the same place on the host.
        assertThat(scratchCopies(copied)).isEqualTo(copied.size() - 1);
        long places =
                copied.stream()
                        .filter(tensor -> tensor.dtype() == DType.F16)
                        .map(tensor -> tensor.data().address())
                        .distinct()
                        .count();
        assertThat(places).isLessThanOrEqualTo(2);
    }

    /** What is stored the other way round cannot be taken as it is. */
    @Test
    void load_ofTransposedWeights_turnsThemOnTheHost() {
        assertThat(scratchCopies(copies("gpt_oss-0", null))).isPositive();
    }

    @Test
    void load_thatFails_leavesNothingOnTheDevice(@TempDir Path folder) {
        Emulator.require();
        try (CudaKernels kernels = new CudaKernels()) {
            Emulator.fail("cuMemAllocAsync", 3, Emulator.OUT_OF_MEMORY);
            assertThatThrownBy(() ->
                            MoeLayer.load(
                                    Path.of("tests/golden/mixtral-0"),
                                    0,
                                    kernels,
                                    DType.BF16,
                                    LoadProgress.NONE))
                    .isInstanceOf(CudaException.class);
            Emulator.repair();
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
            assertThatThrownBy(() -> MoeLayer.load(folder, 0, kernels, null, LoadProgress.NONE))
                    .isInstanceOf(CheckpointException.class);
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        }
    }
}
