package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.MoeLayer;
import jmoe.Workspace;
import jmoe.checkpoint.LoadProgress;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterWeights;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** A layer whose weights, intermediate results, input and output are on the device. */
final class DeviceLayerTest {
    private static final int TOKENS = 9;

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
            Emulator.setTiming(Emulator.LATE);
        }
        assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
    }

    private static MoeLayer load(String variant, Kernels kernels) {
        Path folder = Path.of("tests/golden", variant);
        return MoeLayer.load(folder, 0, kernels, DType.BF16, LoadProgress.NONE);
    }

    private static Tensor input(Arena arena, MoeLayer layer, DType type) {
        Tensor x = Tensor.allocate(arena, type, TOKENS, layer.config().hidden());
        for (long i = 0; i < x.numElements(); i++) {
            x.setDouble(i, Math.sin(i * 0.7) + Math.cos(i * 0.013));
        }
        return x;
    }

    private static @Nullable Tensor types(Arena arena, MoeLayer layer) {
        if (layer.config().numTokenTypes() == 1) {
            return null;
        }
        Tensor types = Tensor.allocate(arena, DType.I32, TOKENS);
        for (int token = 0; token < TOKENS; token++) {
            types.setInt(token, token % 3 - 1);
        }
        return types;
    }

    private static List<Tensor> tensors(MoeWeights weights) {
        List<Tensor> all = new ArrayList<>();
        for (RouterWeights router : weights.routers()) {
            add(all, router.weight(), router.bias(), router.selectionBias());
        }
        for (ExpertWeights bank : weights.experts()) {
            add(all, bank.gateUp(), bank.down(), bank.gateUpBias(), bank.downBias());
        }
        ExpertWeights shared = weights.shared();
        if (shared != null) {
            add(all, shared.gateUp(), shared.down(), shared.gateUpBias(), shared.downBias());
        }
        add(all, weights.sharedGate(), weights.latentIn(), weights.latentOut());
        add(all, weights.outputBias());
        return all;
    }

    private static void add(List<Tensor> all, @Nullable Tensor... more) {
        for (Tensor tensor : more) {
            if (tensor != null) {
                all.add(tensor);
            }
        }
    }

    /** Among them every optional weight: biases, gate, latent projections, two token types. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "gpt_oss-0",
                "qwen2_moe-0",
                "deepseek_v3-0",
                "nemotron_h-1",
                "ernie4_5_vl_moe-0",
                "granitemoe-0",
                "jetmoe-0"
            })
    void weights_areOnTheDeviceAsTheyAreStored(String variant) {
        try (CudaKernels kernels = new CudaKernels();
                Kernels reference = new ReferenceKernels();
                MoeLayer layer = load(variant, kernels);
                MoeLayer stored = load(variant, reference);
                Arena arena = Arena.ofConfined()) {
            List<Tensor> got = tensors(layer.weights());
            List<Tensor> want = tensors(stored.weights());
            assertThat(got).hasSameSizeAs(want);
            for (int i = 0; i < got.size(); i++) {
                assertThat(got.get(i).isDevice()).isTrue();
                Tensor back = Tensor.allocate(arena, want.get(i).dtype(), want.get(i).shape());
                kernels.copy(got.get(i), back);
                assertThat(back.data().mismatch(want.get(i).data())).isEqualTo(-1);
            }
            assertThat(layer.weights().prepare(kernels, arena)).isSameAs(layer.weights());
        }
    }

    /** What is only in part on the device is brought there as a whole. */
    @Test
    void prepare_bringsTheRestToTheDevice() {
        try (CudaKernels kernels = new CudaKernels();
                Kernels reference = new ReferenceKernels();
                MoeLayer stored = load("qwen2_moe-0", reference);
                Arena arena = Arena.ofConfined()) {
            MoeWeights w = stored.weights();
            ExpertWeights bank = kernels.prepare(w.experts().getFirst(), arena);
            MoeWeights part =
                    new MoeWeights(
                            w.routers(),
                            List.of(bank),
                            w.shared(),
                            w.sharedGate(),
                            null,
                            null,
                            null);
            MoeWeights whole = part.prepare(kernels, arena);
            assertThat(whole.experts().getFirst()).isSameAs(bank);
            assertThat(tensors(whole)).allMatch(Tensor::isDevice);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"deepseek_v3-0", "ernie4_5_vl_moe-0", "nemotron_h-1", "qwen2_moe-0"})
    void forward_takesInputAndOutputFromEitherSide(String variant) {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined();
                MoeLayer layer = load(variant, kernels);
                Workspace workspace = layer.workspace(TOKENS + 2)) {
            Tensor hostX = input(arena, layer, DType.BF16);
            Tensor hostTypes = types(arena, layer);
            Tensor x = kernels.upload(arena, hostX);
            Tensor types = hostTypes == null ? null : kernels.upload(arena, hostTypes);
            Tensor y = kernels.allocate(arena, DType.F32, hostX.shape());
            Tensor back = Tensor.allocate(arena, DType.F32, hostX.shape());
            layer.forward(x, types, y, workspace);
            kernels.copy(y, back);
            byte[] want = back.data().toArray(JAVA_BYTE);
            long bytes = workspace.numBytes();
            layer.forward(x, hostTypes, y, workspace);
            kernels.copy(y, back);
            assertThat(back.data().toArray(JAVA_BYTE)).isEqualTo(want);
            assertThat(workspace.numBytes()).isEqualTo(bytes);
            Tensor hostY = Tensor.allocate(arena, DType.F32, hostX.shape());
            layer.forward(hostX, types, hostY, workspace);
            assertThat(hostY.data().toArray(JAVA_BYTE)).isEqualTo(want);
            assertThat(workspace.numBytes()).isGreaterThan(bytes);
            hostY.data().fill((byte) 0);
            layer.forward(x, types, hostY, workspace);
            assertThat(hostY.data().toArray(JAVA_BYTE)).isEqualTo(want);
            layer.forward(hostX, types, y, workspace);
            kernels.copy(y, back);
            assertThat(back.data().toArray(JAVA_BYTE)).isEqualTo(want);
        }
    }

    /** Nothing of a pass runs before somebody waits: so no call in it has waited. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "mixtral-0",
                "deepseek_v3-0",
                "ernie4_5_vl_moe-0",
                "nemotron_h-1",
                "nllb_moe-0"
            })
    void forward_ofDeviceTensors_waitsForNothing(String variant) {
        Emulator.require();
        Emulator.setTiming(Emulator.LATE);
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined();
                MoeLayer layer = load(variant, kernels);
                Workspace workspace = layer.workspace(TOKENS)) {
            Tensor x = kernels.upload(arena, input(arena, layer, DType.F32));
            Tensor hostTypes = types(arena, layer);
            Tensor types = hostTypes == null ? null : kernels.upload(arena, hostTypes);
            Tensor y = kernels.allocate(arena, DType.F32, x.shape());
            layer.forward(x, types, y, workspace);
            kernels.synchronise();
            assertThat(Emulator.get("pending")).isZero();
            long allocations = Emulator.get("liveAllocations");
            layer.forward(x, types, y, workspace);
            long once = Emulator.get("pending");
            assertThat(once).isPositive();
            // Another number of tokens changes what the dense layers see.
            Tensor none = types == null ? null : types.slice(0, 3);
            layer.forward(x.slice(0, 3), none, y.slice(0, 3), workspace);
            layer.forward(x, types, y, workspace);
            assertThat(Emulator.get("pending")).isEqualTo(3 * once);
            assertThat(Emulator.get("liveAllocations")).isEqualTo(allocations);
            kernels.synchronise();
        }
    }

    /** An operation that needs scratch has it from its first call on. */
    @Test
    void operations_allocateNothingOnceTheyHaveRun() {
        Emulator.require();
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            ScratchUsers users = new ScratchUsers(kernels, arena);
            users.run();
            kernels.synchronise();
            long allocations = Emulator.get("liveAllocations");
            Emulator.setTiming(Emulator.LATE);
            users.run();
            assertThat(Emulator.get("liveAllocations")).isEqualTo(allocations);
            // Four kernels of route, three of sortByExpert, and nothing to allocate or to free.
            assertThat(Emulator.get("pending")).isEqualTo(7);
            kernels.synchronise();
        }
    }

    /** With one token type they are copied, with two merged as well. */
    @ParameterizedTest
    @ValueSource(strings = {"deepseek_v3-0", "ernie4_5_vl_moe-0"})
    void results_areReadOnceAPassAndAreOfTheLastPass(String variant) {
        try (CudaKernels kernels = new CudaKernels();
                Kernels reference = new ReferenceKernels();
                Arena arena = Arena.ofConfined();
                MoeLayer layer = load(variant, kernels);
                MoeLayer expected = load(variant, reference);
                Workspace workspace = layer.workspace(TOKENS)) {
            Tensor x = input(arena, layer, DType.F32);
            Tensor types = types(arena, layer);
            Tensor y = Tensor.allocate(arena, DType.F32, x.shape());
            for (int tokens : new int[] {TOKENS, 4}) {
                int from = TOKENS - tokens;
                Tensor some = x.slice(from, tokens);
                Tensor someTypes = types == null ? null : types.slice(from, tokens);
                layer.forward(some, someTypes, y.slice(0, tokens), workspace);
                // A new one has nothing of an earlier pass.
                try (Workspace want = expected.workspace(tokens)) {
                    expected.forward(some, someTypes, y.slice(0, tokens), want);
                    assertSame(workspace.topkIds(), want.topkIds());
                    assertSame(workspace.tokensPerExpert(), want.tokensPerExpert());
                    assertThat(workspace.routerLogits().shape())
                            .isEqualTo(want.routerLogits().shape());
                }
                long address = workspace.topkIds().data().address();
                assertThat(workspace.topkIds().data().address()).isEqualTo(address);
                assertThat(workspace.topkWeights().isDevice()).isFalse();
            }
        }
    }

    private static void assertSame(Tensor got, Tensor want) {
        assertThat(got.shape()).isEqualTo(want.shape());
        assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
    }
}
