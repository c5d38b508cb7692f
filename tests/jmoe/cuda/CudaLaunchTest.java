package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.JCudaDriver;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** How a kernel gets its arguments, its grid and a current context. */
final class CudaLaunchTest {
    private static final int TOKENS = 6;
    private static final int HIDDEN = 40;

    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @Test
    void arguments_lieAtTheirNaturalAlignment() {
        try (CudaContext context = new CudaContext(CudaDevice.of(0));
                Arena arena = Arena.ofConfined()) {
            CudaKernel kernel = new CudaKernel("any", 0, 1, 1, 0, 1, 1, null);
            MemorySegment struct = arena.allocate(20, 4);
            struct.setAtIndex(JAVA_INT, 4, 77);
            MemorySegment map = arena.allocate(TensorMap.BYTES, TensorMap.ALIGNMENT).fill((byte) 9);
            Launch launch =
                    context.launch()
                            .of(kernel)
                            .int32(-5)
                            .pointer(0x7f00_1234_5678_9abcL)
                            .float32(1.5f)
                            .int64(Long.MIN_VALUE)
                            .int32(6)
                            .float64(-2.25)
                            .struct(struct, 4)
                            .struct(map, TensorMap.ALIGNMENT)
                            .int32(8);
            MemorySegment values = launch.parameters(9);
            assertThat(at(values, 0, 4).get(JAVA_INT, 0)).isEqualTo(-5);
            assertThat(at(values, 1, 8).get(JAVA_LONG, 0)).isEqualTo(0x7f00_1234_5678_9abcL);
            assertThat(at(values, 2, 4).get(JAVA_FLOAT, 0)).isEqualTo(1.5f);
            assertThat(at(values, 3, 8).get(JAVA_LONG, 0)).isEqualTo(Long.MIN_VALUE);
            assertThat(at(values, 4, 4).get(JAVA_INT, 0)).isEqualTo(6);
            assertThat(at(values, 5, 8).get(JAVA_DOUBLE, 0)).isEqualTo(-2.25);
            assertThat(at(values, 6, 4).getAtIndex(JAVA_INT, 4)).isEqualTo(77);
            assertThat(at(values, 7, 64).asSlice(0, TensorMap.BYTES).mismatch(map)).isEqualTo(-1);
            assertThat(at(values, 8, 4).get(JAVA_INT, 0)).isEqualTo(8);
        }
    }

    /** The value that the driver will find, which must lie at a multiple of its alignment. */
    @SuppressWarnings("restricted")
    private static MemorySegment at(MemorySegment addresses, int index, long alignment) {
        MemorySegment value = addresses.getAtIndex(ADDRESS, index);
        assertThat(value.address() % alignment).isZero();
        return value.reinterpret(256);
    }

    @Test
    void arguments_beyondTheBlock_areRefused() {
        try (CudaContext context = new CudaContext(CudaDevice.of(0));
                Arena arena = Arena.ofConfined()) {
            Launch launch = context.launch().of(new CudaKernel("any", 0, 1, 1, 0, 1, 1, null));
            MemorySegment large = arena.allocate(4000, 8);
            launch.struct(large, 8);
            assertThatThrownBy(() -> launch.struct(large, 8))
                    .isInstanceOf(IndexOutOfBoundsException.class);
            Launch many = context.launch().of(new CudaKernel("any", 0, 1, 1, 0, 1, 1, null));
            for (int i = 0; i < Launch.MAX_PARAMETERS; i++) {
                many.int32(i);
            }
            assertThatThrownBy(() -> many.int32(0)).isInstanceOf(IndexOutOfBoundsException.class);
        }
    }

    /** What Java passes is compared with what the compiled kernel takes. */
    @Test
    void arguments_thatAreNotTheKernels_areRefused() {
        try (CudaContext context = new CudaContext(CudaDevice.of(0))) {
            CudaKernel kernel = new CudaKernel("permute_copy", 0, 1, 1, 0, 1, 1, new int[] {8, 4});
            assertThatThrownBy(() -> context.launch().of(kernel).pointer(0).pointer(0))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage(
                            "permute_copy: expected 2 parameters of [8, 4] bytes, got 8 bytes for"
                                    + " parameter 1; build jmoe anew");
            assertThatThrownBy(() -> context.launch().of(kernel).pointer(0).run(1))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("got 1 parameters");
            assertThatThrownBy(() -> context.launch().of(kernel).pointer(0).int32(1).int32(2))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("got 4 bytes for parameter 2");
            assertThatThrownBy(() -> context.launch().run(1))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("a launch begins with its kernel");
        }
    }

    /** Copies rows in reverse order; returns what arrived. */
    private static int[] reversed(CudaContext context, Arena arena, int clusterX) {
        context.enter();
        try {
            CudaModule module = context.module("permute");
            CudaKernel kernel = module.kernel("permute_copy");
            Tensor x = Tensor.allocate(arena, DType.I32, TOKENS, HIDDEN);
            Tensor rowToSlot = Tensor.allocate(arena, DType.I32, TOKENS);
            Tensor expertOffsets = Tensor.allocate(arena, DType.I32, 2);
            expertOffsets.setInt(1, TOKENS);
            for (int i = 0; i < TOKENS; i++) {
                rowToSlot.setInt(i, TOKENS - 1 - i);
                x.setInt((long) i * HIDDEN, i);
            }
            Tensor rows = Tensor.allocate(arena, DType.I32, TOKENS, HIDDEN);
            try (Operands on = new Operands(context).open()) {
                Launch launch =
                        context.launch()
                                .of(kernel)
                                .pointer(on.in(x))
                                .pointer(on.in(rowToSlot))
                                .pointer(on.in(expertOffsets))
                                .int32(1)
                                .pointer(on.out(rows))
                                .int32(TOKENS)
                                .int64(4L * HIDDEN)
                                .int32(1);
                long blocks = (kernel.blocks(TOKENS) + 3) / 4 * 4;
                if (clusterX == 0) {
                    launch.run(blocks);
                } else {
                    launch.runCluster(blocks, 1, clusterX, false);
                }
                on.finish();
            }
            int[] first = new int[TOKENS];
            for (int i = 0; i < TOKENS; i++) {
                first[i] = rows.getInt((long) i * HIDDEN);
            }
            return first;
        } finally {
            context.exit();
        }
    }

    @Test
    void clusters_computeTheSame() {
        try (CudaContext context = new CudaContext(CudaDevice.of(0));
                Arena arena = Arena.ofConfined()) {
            for (int clusterX : new int[] {0, 1, 2, 4}) {
                assertThat(reversed(context, arena, clusterX))
                        .as("clusters of %d", clusterX)
                        .containsExactly(5, 4, 3, 2, 1, 0);
            }
        }
    }

    /** A pair of multiprocessors needs two of them. */
    @Test
    void kernelsInClusters_countThoseThatRunAtOnce() {
        Emulator.require();
        String symbol = "grouped_gemm_sm90_bf16_128x256";
        Emulator.set("multiprocessors", 3);
        try (CudaContext context = new CudaContext(CudaDevice.of(0))) {
            context.enter();
            try {
                CudaKernel kernel = context.module("grouped_gemm_sm90").kernel(symbol);
                assertThat(kernel.cluster()).isEqualTo(2);
                assertThat(kernel.residentBlocks()).isEqualTo(2);
                assertThatThrownBy(() -> runWithoutArguments(context, kernel, 3))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(symbol + ": expected a multiple of 2 blocks, got 3; round up");
            } finally {
                context.exit();
            }
        } finally {
            Emulator.set("multiprocessors", 132);
        }
    }

    private static void runWithoutArguments(CudaContext context, CudaKernel kernel, long blocks) {
        CudaKernel unchecked =
                new CudaKernel(
                        kernel.name(),
                        kernel.function(),
                        kernel.threads(),
                        kernel.itemsPerBlock(),
                        kernel.sharedBytes(),
                        kernel.cluster(),
                        kernel.residentBlocks(),
                        null);
        context.launch().of(unchecked).run(blocks);
    }

    @Test
    void blocksInTurn_areWholeClusters() {
        CudaKernel kernel = new CudaKernel("any", 0, 1, 1, 0, 2, 132, null);
        assertThat(kernel.blocksInTurn(0)).isZero();
        assertThat(kernel.blocksInTurn(1)).isEqualTo(2);
        assertThat(kernel.blocksInTurn(131)).isEqualTo(132);
        assertThat(kernel.blocksInTurn(1L << 40)).isEqualTo(132);
        // What does not fit is for the driver to refuse.
        assertThat(kernel.withResidentBlocks(0).blocksInTurn(9)).isEqualTo(2);
    }

    @Test
    void emptyGrid_isNotLaunched() {
        try (CudaContext context = new CudaContext(CudaDevice.of(0))) {
            CudaKernel kernel = new CudaKernel("no such kernel", 0, 1, 1, 0, 1, 1, null);
            context.launch().of(kernel).run(0);
            context.launch().of(kernel).run(3, 0);
            context.launch().of(kernel).runCluster(0, 1, 2, false);
        }
    }

    @Test
    void gridBeyondInt_isRefused() {
        try (CudaContext context = new CudaContext(CudaDevice.of(0))) {
            CudaKernel kernel = new CudaKernel("any", 0, 1, 1, 0, 1, 1, null);
            assertThatThrownBy(() -> context.launch().of(kernel).run(1L << 31))
                    .isInstanceOf(ArithmeticException.class);
        }
    }

    @Test
    void tensorMap_isWritten() {
        try (CudaContext context = new CudaContext(CudaDevice.of(0));
                Arena arena = Arena.ofConfined()) {
            context.enter();
            try {
                long matrix = context.memory().allocate(arena, 2 * 64 * 128).address();
                TensorMap maps = context.tensorMap();
                MemorySegment map = maps.encode(DType.BF16, matrix, 64, 128, 64);
                assertThat(map.byteSize()).isEqualTo(128);
                assertThat(map.address() % TensorMap.ALIGNMENT).isZero();
                assertThat(map.mismatch(arena.allocate(128))).isNotEqualTo(-1);
                assertThatThrownBy(() -> maps.encode(DType.BF16, matrix, 64, 128, 257))
                        .isInstanceOf(CudaException.class)
                        .hasMessageStartingWith("cuTensorMapEncodeTiled of BF16 [64, 128] failed");
            } finally {
                context.exit();
            }
        }
    }

    /** A thread that never used CUDA, and one that has another context current. */
    @Test
    void anyThread_getsTheContextAndKeepsItsOwn() throws Exception {
        byte[] want = SmallLayer.compute(true);
        try (CudaKernels kernels = new CudaKernels()) {
            byte[][] got = new byte[2][];
            long[] current = new long[2];
            JCudaPointers.Context own = new JCudaPointers.Context();
            Thread fresh =
                    new Thread(() -> {
                        try (Arena arena = Arena.ofConfined()) {
                            got[0] = SmallLayer.compute(kernels, arena, true);
                        }
                    });
            Thread busy =
                    new Thread(() -> {
                        CUdevice device = new CUdevice();
                        JCudaDriver.cuDeviceGet(device, 0);
                        JCudaDriver.cuCtxCreate(own, 0, device);
                        try (Arena arena = Arena.ofConfined()) {
                            got[1] = SmallLayer.compute(kernels, arena, true);
                        }
                        JCudaPointers.Context after = new JCudaPointers.Context();
                        JCudaDriver.cuCtxGetCurrent(after);
                        current[0] = own.address();
                        current[1] = after.address();
                        JCudaDriver.cuCtxDestroy(own);
                    });
            fresh.start();
            busy.start();
            fresh.join();
            busy.join();
            assertThat(got[0]).isEqualTo(want);
            assertThat(got[1]).isEqualTo(want);
            assertThat(current[0]).isNotZero();
            assertThat(current[1]).isEqualTo(current[0]);
        }
    }

    /** Others may change what is current between two calls. */
    @Test
    void contextThatOthersChange_isMadeCurrentAgain() {
        byte[] want = SmallLayer.compute(true);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            SmallLayer layer = new SmallLayer(kernels, arena, true);
            CUcontext none = new CUcontext();
            assertThat(JCudaDriver.cuCtxSetCurrent(none)).isZero();
            layer.run();
            assertThat(JCudaDriver.cuCtxSetCurrent(none)).isZero();
            assertThat(layer.result()).isEqualTo(want);
        }
    }

    @Test
    void closedContext_isNotCurrentAnyLonger() {
        new CudaKernels().close();
        JCudaPointers.Context current = new JCudaPointers.Context();
        assertThat(JCudaDriver.cuCtxGetCurrent(current)).isZero();
        assertThat(current.address()).isZero();
    }
}
