package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Whatever the driver refuses: a clear exception, no memory left, and the next backend works. */
final class CudaFaultTest {
    private static byte[] want = new byte[0];

    private long liveBefore;

    @BeforeAll
    static void computeWithoutFaults() {
        Emulator.require();
        want = SmallLayer.compute(false);
    }

    @BeforeEach
    void countLive() {
        liveBefore = CudaKernels.liveAllocations();
    }

    @AfterEach
    void everythingWorksAgain() {
        Emulator.repair();
        assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        assertThat(Emulator.get("liveAllocations")).isZero();
        assertThat(SmallLayer.compute(true)).isEqualTo(want);
        assertThat(SmallLayer.compute(false)).isEqualTo(want);
    }

    @Test
    void allocationThatFails_saysHowMuchWasWanted() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Emulator.fail("cuMemAllocAsync", 1, Emulator.OUT_OF_MEMORY);
            assertThatThrownBy(() -> kernels.allocate(arena, DType.F32, 1000))
                    .isInstanceOfSatisfying(
                            CudaException.class,
                            e -> {
                                assertThat(e.code()).isEqualTo(Emulator.OUT_OF_MEMORY);
                                assertThat(e.name()).isEqualTo("CUDA_ERROR_OUT_OF_MEMORY");
                                assertThat(e.call()).isEqualTo("cuMemAllocAsync of 4000 bytes");
                                assertThat(e.lastKernel()).isNull();
                            })
                    .hasMessageStartingWith(
                            "cuMemAllocAsync of 4000 bytes failed with CUDA_ERROR_OUT_OF_MEMORY"
                                    + " (2): out of memory");
            assertThat(SmallLayer.compute(kernels, arena, true)).isEqualTo(want);
        }
    }

    /** Each of the calls that an operation makes, the first time and later ones. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "cuMemAllocAsync",
                "cuMemFreeAsync",
                "cuMemAllocHost",
                "cuMemcpyHtoDAsync",
                "cuMemcpyDtoHAsync",
                "cuEventCreate",
                "cuEventRecord",
                "cuEventSynchronize",
                "cuStreamSynchronize",
                "cuModuleLoadData",
                "cuModuleGetFunction",
                "cuModuleGetGlobal",
                "cuMemcpyDtoH",
                "cuCtxGetCurrent",
                "cuLaunchKernel"
            })
    void operation_withACallThatFails_throwsAndGoesOn(String call) {
        int invalidValue = 1;
        for (int countdown : new int[] {1, 2, 5, 9}) {
            try (CudaKernels kernels = new CudaKernels();
                    Arena arena = Arena.ofConfined()) {
                Emulator.fail(call, countdown, invalidValue);
                Throwable thrown = catchThrowable(() -> SmallLayer.compute(kernels, arena, false));
                Emulator.repair();
                assertThat(thrown == null || thrown instanceof CudaException)
                        .as("%s, call number %d: %s", call, countdown, thrown)
                        .isTrue();
                assertThat(countdown > 1 || thrown != null).as("%s fails", call).isTrue();
                if (thrown instanceof CudaException e) {
                    assertThat(e.code()).isEqualTo(invalidValue);
                    assertThat(e.call()).startsWith(call);
                }
                assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
                assertThat(SmallLayer.compute(kernels, arena, false)).isEqualTo(want);
            }
        }
    }

    /** Each of the calls that opening a backend makes. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "cuInit",
                "cuDeviceGet",
                "cuDevicePrimaryCtxRetain",
                "cuCtxGetCurrent",
                "cuCtxSetCurrent",
                "cuStreamCreate",
                "cuDeviceGetAttribute",
                "cuDeviceGetDefaultMemPool",
                "cuMemPoolSetAttribute"
            })
    void open_withACallThatFails_throws(String call) {
        Emulator.fail(call, 1, 999);
        assertThatThrownBy(CudaKernels::new)
                .isInstanceOfAny(CudaException.class, UnsupportedOperationException.class)
                .hasMessageContaining("CUDA_ERROR_UNKNOWN");
    }

    @Test
    void contextThatIsLost_failsUntilAnotherIsOpened() {
        try (Arena arena = Arena.ofConfined()) {
            CudaKernels kernels = new CudaKernels();
            SmallLayer layer = new SmallLayer(kernels, arena, true);
            layer.run();
            kernels.synchronise();
            Emulator.fail("cuLaunchKernel", 2, Emulator.LAUNCH_FAILED);
            for (int i = 0; i < 3; i++) {
                assertThatThrownBy(
                                () -> {
                                    layer.run();
                                    layer.result();
                                })
                        .isInstanceOf(CudaException.class)
                        .hasMessageContaining("CUDA_ERROR_LAUNCH_FAILED (719)")
                        .hasMessageContaining("the last kernel launched was ")
                        .hasMessageContaining("-Djmoe.sync=true finds the one that failed");
            }
            kernels.close();
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        }
    }

    /** What fails on the device after the last call is told by close, once. */
    @Test
    void close_tellsWhatNobodyWaitedFor() {
        try (Arena arena = Arena.ofConfined()) {
            CudaKernels kernels = new CudaKernels();
            SmallLayer layer = new SmallLayer(kernels, arena, true);
            layer.run();
            Emulator.fail("cuStreamSynchronize", 1, Emulator.LAUNCH_FAILED);
            assertThatThrownBy(kernels::close)
                    .isInstanceOf(CudaException.class)
                    .hasMessageContaining("the last kernel launched was unpermute_f32_f32");
            kernels.close();
        }
    }

    /** A kernel that goes wrong: a map that points far outside. */
    @Test
    void kernelThatFails_isNamedInSyncMode() {
        System.setProperty(CudaContext.SYNC_PROPERTY, "true");
        try (Arena arena = Arena.ofConfined()) {
            CudaKernels kernels = new CudaKernels();
            Tensor logits = kernels.allocate(arena, DType.F32, 4, 8);
            Tensor weight = Tensor.device(64, DType.F32, 1, 8, 8);
            Tensor offsets = Tensor.allocate(arena, DType.I32, 2);
            offsets.setInt(1, 4);
            Tensor onDevice = kernels.upload(arena, offsets);
            Tensor y = kernels.allocate(arena, DType.F32, 4, 8);
            assertThatThrownBy(() -> kernels.groupedGemm(logits, weight, null, onDevice, y))
                    .isInstanceOfSatisfying(
                            CudaException.class,
                            e -> assertThat(e.lastKernel()).isEqualTo("grouped_gemm_f32_f32"));
            kernels.close();
        } finally {
            System.clearProperty(CudaContext.SYNC_PROPERTY);
        }
    }

    /** The launch that was begun is forgotten. */
    @Test
    void tensorMapThatFails_isNamed() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Tensor x = kernels.allocate(arena, DType.BF16, 6, 32);
            Tensor weight = kernels.allocate(arena, DType.BF16, 2, 16, 32);
            Tensor y = kernels.allocate(arena, DType.BF16, 6, 16);
            Tensor offsets = kernels.upload(arena, Tensor.allocate(arena, DType.I32, 3));
            Runnable product = () -> kernels.groupedGemm(x, weight, null, offsets, y);
            Emulator.fail("cuTensorMapEncodeTiled", 2, 1);
            assertThatThrownBy(product::run)
                    .isInstanceOf(CudaException.class)
                    .hasMessageStartingWith("cuTensorMapEncodeTiled of BF16 [32, 32] failed");
            product.run();
            kernels.synchronise();
        }
    }

    @Test
    void occupancyThatFails_isNamed() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Tensor x = kernels.allocate(arena, DType.BF16, 60_000, 256);
            Tensor weight = kernels.allocate(arena, DType.BF16, 1, 512, 256);
            Tensor y = kernels.allocate(arena, DType.BF16, 60_000, 512);
            Tensor offsets = kernels.upload(arena, Tensor.allocate(arena, DType.I32, 2));
            Emulator.fail("cuOccupancyMaxActiveClusters", 1, 1);
            assertThatThrownBy(() -> kernels.groupedGemm(x, weight, null, offsets, y))
                    .isInstanceOf(CudaException.class)
                    .hasMessageStartingWith(
                            "cuOccupancyMaxActiveClusters of grouped_gemm_sm90_bf16_");
            kernels.groupedGemm(x, weight, null, offsets, y);
            kernels.synchronise();
        }
    }

    /** Uses what an old driver has, then what it lacks. */
    static final class OldDriver {
        private OldDriver() {}

        public static void main(String[] args) {
            try (CudaKernels kernels = new CudaKernels();
                    Arena arena = Arena.ofConfined()) {
                System.out.println(SmallLayer.compute(kernels, arena, true).length + " bytes");
            }
            try (CudaContext context = new CudaContext(CudaDevice.of(0))) {
                context.enter();
                CudaKernel kernel = new CudaKernel("any", 0, 32, 1, 0, 1, 1, null);
                attempt(() -> context.launch().of(kernel).runCluster(2, 1, 2, false));
                attempt(() -> context.tensorMap().encode(DType.BF16, 4096, 64, 64, 64));
                context.exit();
            }
        }

        private static void attempt(Runnable action) {
            try {
                action.run();
                System.out.println("done");
            } catch (UnsupportedOperationException e) {
                System.out.println(e.getMessage());
            }
        }
    }

    @Test
    void driverThatLacksAFunction_isNamed() throws Exception {
        String library = Emulator.library("old").toString();
        List<String> lines =
                Emulator.run(
                        OldDriver.class,
                        Map.of(),
                        Emulator.NATIVE_ACCESS,
                        Emulator.driver(library));
        assertThat(lines)
                .containsExactly(
                        want.length + " bytes",
                        "cuLaunchKernelEx: the CUDA driver "
                                + library
                                + " lacks this function; install NVIDIA driver 580 or later",
                        "cuTensorMapEncodeTiled: the CUDA driver "
                                + library
                                + " lacks this function; install NVIDIA driver 580 or later");
    }

    /** JCuda trusts whatever lies in the temporary folder under the name of its library. */
    @Test
    void damagedLibraryOfJCuda_isExplained(@TempDir Path folder) throws Exception {
        Matcher version =
                Pattern.compile("jcuda-natives-([0-9.]+-[a-z0-9_-]+)\\.jar")
                        .matcher(System.getProperty("java.class.path"));
        Assumptions.assumeTrue(
                version.find(), "a bundle has the library unpacked, where nobody else can write");
        String name = "libJCudaDriver-" + version.group(1) + ".so";
        Files.writeString(folder.resolve(name), "half a library");
        List<String> lines =
                Emulator.run(
                        CudaProbeTest.Open.class,
                        Map.of(),
                        Emulator.NATIVE_ACCESS,
                        "-Djava.io.tmpdir=" + folder,
                        Emulator.driver(Emulator.library("fast")));
        assertThat(lines.getLast())
                .isEqualTo(
                        "CUDA: JCuda's native library cannot be loaded; if a libJCudaDriver is in "
                                + folder
                                + " remove it, or set -Djava.io.tmpdir");
    }
}
