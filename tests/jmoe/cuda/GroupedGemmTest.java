package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.cuda.Tile.Family;
import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Replay;
import jmoe.ops.Routing;
import jmoe.ops.WholeVectors;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;
import java.util.SplittableRandom;

/** The choice among the kernels of the grouped product. That they are right, the contract says. */
final class GroupedGemmTest {
    private static final int TOKENS = 150;
    private static final int EXPERTS = 3;
    private static final int TOP_K = 2;
    private static final int HIDDEN = 136;
    private static final int INTERMEDIATE = 72;

    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @AfterEach
    void clearTile() {
        System.clearProperty(GroupedGemm.TILE_PROPERTY);
        if (CudaDriver.emulatorName() != null) {
            Emulator.set("capability", 90);
        }
    }

    /** Within a family; and whichever is chosen by itself is of one of them. */
    @ParameterizedTest
    @EnumSource
    void tilesOfAFamily_giveTheSameBits(Family family) {
        try (Arena arena = Arena.ofConfined()) {
            for (DType type : new DType[] {DType.BF16, DType.F16}) {
                Tensor expected = gateUpSwiglu(arena, type, Tile.of(family).getFirst());
                for (Tile tile : Tile.of(family)) {
                    Tensor got = gateUpSwiglu(arena, type, tile);
                    assertThat(got.data().mismatch(expected.data()))
                            .as("%s %s", type, tile)
                            .isEqualTo(-1);
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void everyTile_agreesWithReference(Tile tile) {
        System.setProperty(GroupedGemm.TILE_PROPERTY, tile.label());
        try (CudaKernels kernels = new CudaKernels()) {
            WholeVectors.groupedGemm(kernels, DType.BF16);
            WholeVectors.gateUpSwiglu(kernels, DType.BF16);
        }
    }

    @Test
    void tileProperty_refusesWhatIsNoTile() {
        System.setProperty(GroupedGemm.TILE_PROPERTY, "32");
        assertThatThrownBy(CudaKernels::new)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "jmoe.cuda.tile: expected one of 16, 64, 128 (mma) and 64x128, 64x256,"
                                + " 128x256 (sm_90), got 32");
        assertThat(CudaKernels.liveAllocations()).isZero();
    }

    /** Never on the number of rows, with which bits would change. */
    @Test
    void family_dependsOnTypesSizesAndAlignment(@TempDir Path folder) throws Exception {
        Emulator.require();
        String wgmma = "grouped_gemm_sm90_bf16_";
        String mma = "grouped_gemm_mma_bf16_";
        for (int rows : new int[] {1, 5, 300, 3000}) {
            assertThat(kernel(folder, DType.BF16, rows, 72, 0)).startsWith(wgmma);
            assertThat(kernel(folder, DType.BF16, rows, 68, 0)).startsWith(mma);
            assertThat(kernel(folder, DType.BF16, rows, 72, 2)).startsWith(mma);
        }
        assertThat(kernel(folder, DType.F32, 5, 72, 0)).isEqualTo("grouped_gemm_f32_f32");
        assertThat(kernel(folder, DType.BF16, 5, 0, 0)).startsWith(mma);
        // Both may leave a rest: outputs, and results at any address.
        assertThat(kernel(folder, DType.F16, 5, 8, 0)).startsWith("grouped_gemm_sm90_f16_");
        for (int capability : new int[] {80, 89, 100, 120}) {
            Emulator.set("capability", capability);
            assertThat(kernel(folder, DType.BF16, 5, 72, 0)).startsWith(mma);
        }
    }

    @Test
    void forcedTile_isUsedWhereItsFamilySuits(@TempDir Path folder) throws Exception {
        Emulator.require();
        System.setProperty(GroupedGemm.TILE_PROPERTY, "16");
        assertThat(kernel(folder, DType.BF16, 300, 72, 0)).isEqualTo("grouped_gemm_mma_bf16_16");
        System.setProperty(GroupedGemm.TILE_PROPERTY, "128x256");
        assertThat(kernel(folder, DType.BF16, 1, 72, 0))
                .isEqualTo("grouped_gemm_sm90_bf16_128x256");
        assertThat(kernel(folder, DType.BF16, 1, 68, 0)).isEqualTo("grouped_gemm_mma_bf16_16");
        Emulator.set("capability", 80);
        assertThat(kernel(folder, DType.BF16, 1, 72, 0)).isEqualTo("grouped_gemm_mma_bf16_16");
    }

    /** The kernel of a product of one group, whose x begins so many bytes behind 16 of them. */
    private static String kernel(Path folder, DType type, int rows, int inputs, int shift)
            throws Exception {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Tensor memory = kernels.allocate(arena, DType.BF16, 2L * rows * inputs + 8);
            Tensor x = Tensor.device(memory.data().address() + shift, type, rows, inputs);
            Tensor weight = kernels.allocate(arena, type, 1, 30, inputs);
            Tensor y = kernels.allocate(arena, DType.F32, rows, 30);
            // Nothing is routed, so that nothing is computed.
            Tensor offsets = kernels.upload(arena, Tensor.allocate(arena, DType.I32, 2));
            List<String> launched =
                    RecordingTest.kernels(
                            folder, () -> kernels.groupedGemm(x, weight, null, offsets, y));
            assertThat(launched).hasSize(1);
            return launched.getFirst();
        }
    }

    /** Maps of memory are part of a captured launch. */
    @Test
    void capturedProducts_readWhatIsThereWhenTheyAreReplayed() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            int rows = 70;
            Tensor x = kernels.allocate(arena, DType.BF16, rows, HIDDEN);
            Tensor weight = kernels.upload(arena, random(arena, DType.BF16, 2, 1, 40, HIDDEN));
            Tensor host = Tensor.allocate(arena, DType.I32, 2);
            host.setInt(1, rows);
            Tensor offsets = kernels.upload(arena, host);
            Tensor y = kernels.allocate(arena, DType.BF16, rows, 40);
            Runnable product = () -> kernels.groupedGemm(x, weight, null, offsets, y);
            kernels.copy(random(arena, DType.BF16, 1, rows, HIDDEN), x);
            product.run();
            try (Replay replay = kernels.capture(product)) {
                kernels.copy(random(arena, DType.BF16, 5, rows, HIDDEN), x);
                // Another product in between uses the same memory for its maps.
                Tensor other = kernels.allocate(arena, DType.F32, rows, 40);
                kernels.groupedGemm(x, weight, null, offsets, other);
                replay.run();
                Tensor replayed = Tensor.allocate(arena, DType.BF16, rows, 40);
                kernels.copy(y, replayed);
                product.run();
                Tensor direct = Tensor.allocate(arena, DType.BF16, rows, 40);
                kernels.copy(y, direct);
                assertThat(replayed.data().mismatch(direct.data())).isEqualTo(-1);
            }
        }
    }

    @Test
    void gateUpSwigluScratch_isNotNeededOnMatrixUnits() {
        try (Arena arena = Arena.ofConfined();
                CudaKernels kernels = new CudaKernels()) {
            ExpertWeights experts = experts(arena, DType.BF16);
            assertThat(kernels.gateUpSwigluScratch(DType.BF16, 10, experts)).isZero();
            assertThat(kernels.gateUpSwigluScratch(DType.F32, 10, experts))
                    .isEqualTo(10 * (HIDDEN + 2 * INTERMEDIATE));
        }
    }

    private static Tensor gateUpSwiglu(Arena arena, DType type, Tile tile) {
        System.setProperty(GroupedGemm.TILE_PROPERTY, tile.label());
        try (CudaKernels kernels = new CudaKernels()) {
            Routing routing = Routing.allocate(arena, TOKENS, TOP_K, EXPERTS);
            for (long slot = 0; slot < TOKENS * TOP_K; slot++) {
                routing.topkIds().setInt(slot, (int) (slot * slot % EXPERTS));
            }
            kernels.sortByExpert(routing);
            Tensor x = random(arena, type, 1, TOKENS, HIDDEN);
            Tensor hidden = Tensor.allocate(arena, type, TOKENS * TOP_K, INTERMEDIATE);
            Tensor scratch = Tensor.allocate(arena, DType.F32, 0);
            kernels.gateUpSwiglu(x, routing, null, experts(arena, type), scratch, hidden);
            return hidden;
        }
    }

    private static ExpertWeights experts(Arena arena, DType type) {
        return new ExpertWeights(
                random(arena, type, 2, EXPERTS, 2 * INTERMEDIATE, HIDDEN),
                random(arena, type, 3, EXPERTS, HIDDEN, INTERMEDIATE),
                random(arena, DType.F32, 4, EXPERTS, 2 * INTERMEDIATE),
                null,
                Activation.SWIGLU);
    }

    private static Tensor random(Arena arena, DType type, long seed, long... shape) {
        Tensor tensor = Tensor.allocate(arena, type, shape);
        SplittableRandom random = new SplittableRandom(seed);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextDouble(-1, 1));
        }
        return tensor;
    }
}
