package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
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
    }

    @ParameterizedTest
    @EnumSource(names = {"BF16", "F16"})
    void tiles_doNotChangeABit(DType type) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor expected = gateUpSwiglu(arena, type, null);
            for (String tile : new String[] {"16", "64", "128"}) {
                Tensor got = gateUpSwiglu(arena, type, tile);
                assertThat(got.data().mismatch(expected.data())).as(tile).isEqualTo(-1);
            }
        }
    }

    @Test
    void tileProperty_refusesOtherSizes() {
        System.setProperty(GroupedGemm.TILE_PROPERTY, "32");
        assertThatThrownBy(CudaKernels::new)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("jmoe.cuda.tile: expected 16, 64 or 128 rows, got 32");
        assertThat(CudaKernels.liveAllocations()).isZero();
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

    private static Tensor gateUpSwiglu(Arena arena, DType type, String tile) {
        if (tile != null) {
            System.setProperty(GroupedGemm.TILE_PROPERTY, tile);
        }
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
