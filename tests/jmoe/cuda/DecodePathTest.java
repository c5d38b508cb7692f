package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.CapturedLayer;
import jmoe.MoeLayer;
import jmoe.Workspace;
import jmoe.checkpoint.LoadProgress;
import jmoe.ops.Kernels;
import jmoe.ops.LayerContract;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;

/** Few tokens in three kernels. */
final class DecodePathTest {
    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @AfterEach
    void clear() {
        System.clearProperty(DecodePath.PROPERTY);
        if (CudaDriver.emulatorName() != null) {
            Emulator.set("capability", 90);
        }
    }

    private static CudaKernels open(DecodePath path) {
        System.setProperty(DecodePath.PROPERTY, path.id());
        try {
            return new CudaKernels();
        } finally {
            System.clearProperty(DecodePath.PROPERTY);
        }
    }

    /** By wgmma, where the device has it and sizes suit, else by mma.sync. */
    @Nested
    final class Contract extends LayerContract {
        @Override
        protected Kernels kernels() {
            return open(DecodePath.DECODE);
        }

        @Override
        public boolean worksThroughGigabytes() {
            return CudaDriver.emulatorName() == null;
        }
    }

    @Test
    void pathProperty_refusesWhatIsNoPath() {
        System.setProperty(DecodePath.PROPERTY, "fast");
        assertThatThrownBy(CudaKernels::new)
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("jmoe.cuda.path: expected decode or large, got fast");
        assertThat(CudaKernels.liveAllocations()).isZero();
    }

    /** Three launches, whatever the layer has, and by what the device has. */
    @ParameterizedTest
    @CsvSource({
        "false, 90, 72, sm90",
        "true, 90, 72, sm90",
        "true, 90, 68, mma",
        "true, 80, 72, mma"
    })
    void launches_areThree(
            boolean shared, int capability, int intermediate, String family, @TempDir Path folder)
            throws Exception {
        Emulator.require();
        Emulator.set("capability", capability);
        try (CudaKernels kernels = open(DecodePath.DECODE);
                DecodeLayer layer = new DecodeLayer(kernels, DType.BF16, intermediate, shared)) {
            for (int tokens : new int[] {1, 7}) {
                List<String> launched = RecordingTest.kernels(folder, () -> layer.forward(tokens));
                assertThat(launched)
                        .containsExactly(
                                "decode_route_bf16",
                                "decode_gate_up_" + family + "_bf16",
                                "decode_down_" + family + "_bf16");
            }
        }
    }

    /**
     * A router of another type is a product of its own, behind which one kernel routes and sorts.
     */
    @Test
    void launches_ofF32Tokens_areOfTheLargePath(@TempDir Path folder) throws Exception {
        try (CudaKernels kernels = open(DecodePath.DECODE);
                DecodeLayer layer = new DecodeLayer(kernels, DType.F32, 72, true)) {
            assertThat(RecordingTest.kernels(folder, () -> layer.forward(3)))
                    .contains("route_sort")
                    .noneMatch(name -> name.startsWith("decode"));
        }
        try (CudaKernels kernels = open(DecodePath.LARGE);
                DecodeLayer layer = new DecodeLayer(kernels, DType.F16, 72, false)) {
            assertThat(RecordingTest.kernels(folder, () -> layer.forward(3)))
                    .hasSize(5)
                    .startsWith("grouped_gemm_sm90_f16_64x128", "route_sort")
                    .noneMatch(name -> name.startsWith("decode"));
        }
    }

    /** By mma.sync without early launches on the older device. */
    @ParameterizedTest
    @CsvSource({"BF16, 90, 72", "F16, 90, 68", "BF16, 80, 72", "F16, 80, 72"})
    void paths_agree(DType type, int capability, int intermediate) {
        if (capability != 90) {
            Emulator.require();
            Emulator.set("capability", capability);
        }
        try (CudaKernels kernels = open(DecodePath.DECODE);
                CudaKernels other = open(DecodePath.LARGE);
                DecodeLayer decode = new DecodeLayer(kernels, type, intermediate, true);
                DecodeLayer large = new DecodeLayer(other, type, intermediate, true)) {
            for (int tokens : new int[] {1, 2, 33, 128}) {
                Tensor few = decode.forward(tokens);
                Tensor many = large.forward(tokens);
                assertThat(DecodeLayer.difference(few, many))
                        .as("%d tokens", tokens)
                        .isPositive()
                        .isLessThan(type == DType.BF16 ? 0.01 : 0.002);
            }
        }
    }

    /** Alone, among others, replayed, for any number of tokens, again and again: the same bits. */
    @ParameterizedTest
    @ValueSource(ints = {90, 80})
    void bitsOfAToken_areAlwaysTheSame(int capability) {
        Emulator.require();
        Emulator.set("capability", capability);
        try (CudaKernels kernels = open(DecodePath.DECODE);
                DecodeLayer layer = new DecodeLayer(kernels, DType.BF16, 72, true);
                CapturedLayer captured = layer.capture(40)) {
            Tensor all = layer.forward(128);
            for (int tokens : new int[] {40, 1, 0, 7, 40, 33, 1}) {
                assertSame("forward " + tokens, layer.forward(tokens), all, tokens);
                assertSame("replay " + tokens, layer.replay(captured, tokens), all, tokens);
                assertSame("again " + tokens, layer.replay(captured, tokens), all, tokens);
            }
        }
    }

    private static void assertSame(String name, Tensor got, Tensor all, long tokens) {
        assertThat(got.data().mismatch(all.slice(0, tokens).data())).as(name).isEqualTo(-1);
    }

    /** Captured graphs go on with the counters that they have. */
    @Test
    void arrivals_growAndAreZero() {
        try (CudaContext context = new CudaContext(CudaProbe.probe().device())) {
            context.enter();
            try {
                long few = context.arrivals().address(10);
                assertThat(context.arrivals().address(100)).isEqualTo(few);
                long before = CudaKernels.liveAllocations();
                long many = context.arrivals().address(100_000);
                assertThat(many).isNotEqualTo(few);
                assertThat(context.arrivals().address(7)).isEqualTo(many);
                assertThat(CudaKernels.liveAllocations()).isEqualTo(before + 1);
                try (Arena arena = Arena.ofConfined()) {
                    Tensor counters = Tensor.allocate(arena, DType.I32, 100_000);
                    counters.data().fill((byte) 1);
                    context.staging().toHost(many, counters.data());
                    context.stream().synchronise();
                    Tensor zeros = Tensor.allocate(arena, DType.I32, 100_000);
                    assertThat(counters.data().mismatch(zeros.data())).isEqualTo(-1);
                }
            } finally {
                context.exit();
            }
        }
    }

    /** Published layers go this way, and differ from the other by their last places only. */
    @ParameterizedTest
    @ValueSource(strings = {"mixtral-0", "deepseek_v3-0", "gpt_oss-0", "longcat_flash-0"})
    void goldenLayers_takeIt(String variant, @TempDir Path folder) throws Exception {
        Tensor[] results = new Tensor[2];
        for (DecodePath path : DecodePath.values()) {
            try (CudaKernels kernels = open(path);
                    MoeLayer layer = load(variant, kernels)) {
                List<String> launched =
                        RecordingTest.kernels(
                                folder, () -> results[path.ordinal()] = forward(layer, 5));
                boolean decodes = launched.stream().anyMatch(name -> name.contains("decode_down"));
                assertThat(decodes).as("%s %s", variant, path).isEqualTo(path == DecodePath.DECODE);
            }
        }
        assertThat(DecodeLayer.difference(results[0], results[1])).isLessThan(0.02);
    }

    private static MoeLayer load(String variant, CudaKernels kernels) {
        Path folder = Path.of("tests/golden", variant);
        return MoeLayer.load(folder, 0, kernels, DType.BF16, LoadProgress.NONE);
    }

    private static Tensor forward(MoeLayer layer, int tokens) {
        Arena arena = Arena.ofAuto();
        int hidden = layer.config().hidden();
        Tensor x = DecodeLayer.random(arena, DType.BF16, 1, tokens, hidden);
        Tensor y = Tensor.allocate(arena, DType.F32, tokens, hidden);
        try (Workspace workspace = layer.workspace(tokens, DType.BF16)) {
            layer.forward(x, y, workspace);
        }
        return y;
    }
}
