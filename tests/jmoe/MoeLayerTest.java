package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.checkpoint.LoadProgress;
import jmoe.checkpoint.Safetensors;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/** The whole layer against the values of Hugging Face, and the rules of its use. */
final class MoeLayerTest {
    private static final Path GOLDEN = Path.of("tests/golden");

    /** Relative to the largest expected value; tests/golden/README.md says where they come from. */
    private static final double LOGITS_TOLERANCE = 2e-6;

    private static final double WEIGHTS_TOLERANCE = 2e-6;
    private static final double Y_TOLERANCE = 5e-6;

    /** Those that run here; cuda does wherever the emulator could be built. */
    private static final List<Backend> BACKENDS =
            Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty()).toList();

    /** Those that compute on the host, with arenas of any kind. */
    static Stream<Backend> hostBackends() {
        return BACKENDS.stream().filter(backend -> backend != Backend.CUDA);
    }

    /** Those of them with threads. */
    static Stream<Backend> threadedBackends() {
        return hostBackends().filter(backend -> backend != Backend.REFERENCE);
    }

    static Stream<Arguments> variantsAndBackends() throws IOException {
        List<Arguments> all = new ArrayList<>();
        try (Stream<Path> folders = Files.list(GOLDEN)) {
            for (Path folder : folders.sorted().toList()) {
                if (Files.exists(folder.resolve("cases.safetensors"))) {
                    for (Backend backend : BACKENDS) {
                        all.add(Arguments.of(folder.getFileName().toString(), backend));
                    }
                }
            }
        }
        return all.stream();
    }

    @Test
    void golden_holdsEveryVariant() throws IOException {
        assertThat(variantsAndBackends()).hasSize(BACKENDS.size() * 43);
        assertThat(BACKENDS).contains(Backend.REFERENCE, Backend.VECTOR);
    }

    /**
     * Golden weights and inputs are exact in all three types and activations stay F32, so one
     * tolerance serves all.
     */
    @ParameterizedTest(name = "{0} on {1}")
    @MethodSource("variantsAndBackends")
    void forward_givesTheNumbersOfHuggingFace(String variant, Backend backend) {
        Path folder = GOLDEN.resolve(variant);
        try (Safetensors cases = Safetensors.open(folder.resolve("cases.safetensors"));
                Kernels kernels = backend.open(2)) {
            for (DType type : List.of(DType.F32, DType.BF16, DType.F16)) {
                try (MoeLayer layer = MoeLayer.load(folder, 0, kernels, type, LoadProgress.NONE);
                        Workspace workspace = layer.workspace(130)) {
                    for (int tokens : List.of(1, 7, 33, 130)) {
                        if (cases.contains("t" + tokens + ".x")) {
                            checkCase(cases, "t" + tokens + ".", layer, workspace);
                        }
                    }
                }
            }
        }
    }

    /** Experts, shared expert, latent projections, biases: each with the numbers of its codes. */
    @ParameterizedTest
    @ValueSource(strings = {"qwen2_moe-0", "gpt_oss-0", "nemotron_h-1", "longcat_flash-0"})
    void forward_ofQuantisedExperts_multipliesByScaleTimesCode(String variant) {
        try (Arena arena = Arena.ofConfined();
                Kernels kernels = Backend.REFERENCE.open();
                MoeLayer layer =
                        MoeLayer.load(
                                GOLDEN.resolve(variant), 0, kernels, DType.I8, LoadProgress.NONE);
                MoeLayer exact =
                        new MoeLayer(layer.config(), exact(layer.weights(), arena), kernels);
                Workspace workspace = layer.workspace(9);
                Workspace exactWorkspace = exact.workspace(9)) {
            Tensor x = waves(arena, 9, layer);
            Tensor got = filled(arena, 9, layer, Double.NaN);
            Tensor want = filled(arena, 9, layer, Double.NaN);
            layer.forward(x, got, workspace);
            exact.forward(x, want, exactWorkspace);
            assertThat(layer.weights().experts().getFirst().gateUp().describe())
                    .startsWith("scaled I8 [");
            assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
            assertThat(got.getDouble(0)).isFinite();
        }
    }

    private static MoeWeights exact(MoeWeights weights, Arena arena) {
        ExpertWeights shared = weights.shared();
        return new MoeWeights(
                weights.routers(),
                weights.experts().stream().map(bank -> exact(bank, arena)).toList(),
                shared == null ? null : exact(shared, arena),
                weights.sharedGate(),
                weights.latentIn(),
                weights.latentOut(),
                weights.outputBias());
    }

    private static ExpertWeights exact(ExpertWeights bank, Arena arena) {
        return new ExpertWeights(
                exact(bank.gateUp(), arena),
                exact(bank.down(), arena),
                bank.gateUpBias(),
                bank.downBias(),
                bank.activation());
    }

    private static Tensor exact(Tensor scaled, Arena arena) {
        Tensor exact = Tensor.allocate(arena, DType.F64, scaled.shape());
        for (long i = 0; i < exact.numElements(); i++) {
            exact.setDouble(i, scaled.getDouble(i));
        }
        return exact;
    }

    /** Before anything is read. */
    @Test
    void load_ofQuantisedExperts_isRefusedWhereTheyDoNotRun() {
        for (Backend backend : BACKENDS) {
            if (backend != Backend.VECTOR && backend != Backend.CUDA) {
                continue;
            }
            try (Kernels kernels = backend.open()) {
                LoadProgress progress =
                        (bytes, totalBytes) -> {
                            throw new AssertionError("read " + bytes);
                        };
                Path folder = GOLDEN.resolve("mixtral-0");
                assertThatThrownBy(() -> MoeLayer.load(folder, 0, kernels, DType.I8, progress))
                        .isInstanceOf(UnsupportedOperationException.class)
                        .hasMessageContaining("of type scaled I8 is not supported by the ")
                        .hasMessageEndingWith("native and reference backends; load them as BF16");
            }
        }
    }

    private static void checkCase(
            Safetensors cases, String prefix, MoeLayer layer, Workspace workspace) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = cases.tensor(prefix + "x");
            Tensor types =
                    cases.contains(prefix + "token_types")
                            ? cases.tensor(prefix + "token_types")
                            : null;
            Tensor y = Tensor.allocate(arena, DType.F32, x.shape());
            layer.forward(x, types, y, workspace);
            // Some families wrap their logits in a batch dimension of 1.
            Tensor gotLogits = workspace.routerLogits();
            Tensor logits = cases.tensor(prefix + "router_logits").reshape(gotLogits.shape());
            assertClose(prefix + "router_logits", gotLogits, logits, LOGITS_TOLERANCE);
            checkRouting(
                    workspace,
                    cases.tensor(prefix + "topk_ids"),
                    cases.tensor(prefix + "topk_weights"));
            assertClose(prefix + "y", y, cases.tensor(prefix + "y"), Y_TOLERANCE);
            if (cases.contains(prefix + "y_f64")) {
                assertClose(prefix + "y_f64", y, cases.tensor(prefix + "y_f64"), Y_TOLERANCE);
            }
        }
    }

    /**
     * Hugging Face does not always sort its choices, so each id is looked up in the token's row.
     */
    private static void checkRouting(Workspace got, Tensor wantIds, Tensor wantWeights) {
        assertThat(got.topkIds().shape()).isEqualTo(wantIds.shape());
        int topK = (int) wantIds.dim(1);
        double largest = largest(wantWeights);
        for (long token = 0; token < wantIds.dim(0); token++) {
            for (int k = 0; k < topK; k++) {
                int id = wantIds.getInt(token * topK + k);
                int at = -1;
                for (int j = 0; j < topK; j++) {
                    at = got.topkIds().getInt(token * topK + j) == id ? j : at;
                }
                assertThat(at).as("position of expert %d of token %d", id, token).isNotNegative();
                assertThat((double) got.topkWeights().getFloat(token * topK + at))
                        .as("weight of expert %d of token %d", id, token)
                        .isCloseTo(
                                wantWeights.getFloat(token * topK + k),
                                org.assertj.core.data.Offset.offset(WEIGHTS_TOLERANCE * largest));
            }
        }
    }

    private static void assertClose(String name, Tensor got, Tensor want, double tolerance) {
        double worst = 0;
        for (long i = 0; i < want.numElements(); i++) {
            double error = Math.abs(got.getDouble(i) - want.getDouble(i));
            worst = error <= worst ? worst : error; // NaN counts
        }
        assertThat(worst / largest(want)).as(name).isLessThan(tolerance);
    }

    private static double largest(Tensor tensor) {
        double largest = 0;
        for (long i = 0; i < tensor.numElements(); i++) {
            largest = Math.max(largest, Math.abs(tensor.getDouble(i)));
        }
        return largest;
    }

    @ParameterizedTest
    @MethodSource("hostBackends")
    void forward_ofNoTokensDoesNothing(Backend backend) {
        try (Arena arena = Arena.ofConfined();
                MoeLayer layer = load("deepseek_v3-0", backend);
                Workspace workspace = layer.workspace(0)) {
            Tensor none = Tensor.allocate(arena, DType.F32, 0, layer.config().hidden());
            layer.forward(none, none, workspace);
            assertThat(workspace.tokens()).isZero();
            assertThat(workspace.topkIds().shape()).containsExactly(0, layer.config().topK());
        }
    }

    /** What a pass left in the workspace must not reach the next one, nor what was in y. */
    @ParameterizedTest
    @MethodSource("hostBackends")
    void forward_doesNotReadOldMemory(Backend backend) {
        for (String variant : List.of("longcat_flash-0", "nemotron_h-1", "qwen2_moe-0")) {
            try (Arena arena = Arena.ofConfined();
                    MoeLayer layer = load(variant, backend);
                    Workspace fresh = layer.workspace(7);
                    Workspace used = layer.workspace(40)) {
                Tensor poison = filled(arena, 40, layer, Double.NaN);
                layer.forward(poison, filled(arena, 40, layer, 0), used);
                Tensor x = waves(arena, 7, layer);
                Tensor want = filled(arena, 7, layer, 0);
                Tensor got = filled(arena, 7, layer, Double.NaN);
                layer.forward(x, want, fresh);
                layer.forward(x, got, used);
                assertThat(got.data().mismatch(want.data())).as(variant).isEqualTo(-1);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("threadedBackends")
    void forward_givesTheSameBitsAloneAndInABatchWithAnyThreads(Backend backend) {
        for (String variant : List.of("deepseek_v3-0", "gpt_oss-0", "longcat_flash-0")) {
            byte @Nullable [] first = null;
            for (int threads : List.of(1, 2, 5)) {
                try (Arena arena = Arena.ofConfined();
                        Kernels kernels = backend.open(threads);
                        MoeLayer layer =
                                MoeLayer.load(
                                        GOLDEN.resolve(variant),
                                        0,
                                        kernels,
                                        null,
                                        LoadProgress.NONE);
                        Workspace workspace = layer.workspace(33)) {
                    Tensor x = waves(arena, 33, layer);
                    Tensor batch = filled(arena, 33, layer, 0);
                    Tensor alone = filled(arena, 33, layer, 0);
                    layer.forward(x, batch, workspace);
                    for (long token = 0; token < 33; token++) {
                        layer.forward(x.slice(token, 1), alone.slice(token, 1), workspace);
                    }
                    byte[] bits = batch.data().toArray(ValueLayout.JAVA_BYTE);
                    assertThat(alone.data().toArray(ValueLayout.JAVA_BYTE)).isEqualTo(bits);
                    assertThat(bits).isEqualTo(first == null ? bits : first);
                    first = bits;
                }
            }
        }
    }

    @ParameterizedTest
    @MethodSource("hostBackends")
    void forward_readsAndWritesSixteenBitTypes(Backend backend) {
        try (Arena arena = Arena.ofConfined();
                MoeLayer layer = load("mixtral-0", backend);
                Workspace workspace = layer.workspace(7)) {
            Tensor x = waves(arena, 7, layer);
            for (DType type : List.of(DType.BF16, DType.F16)) {
                Tensor narrowX = Tensor.allocate(arena, type, x.shape());
                Tensor sameX = Tensor.allocate(arena, DType.F32, x.shape());
                for (long i = 0; i < x.numElements(); i++) {
                    narrowX.setDouble(i, x.getDouble(i));
                    sameX.setDouble(i, narrowX.getDouble(i));
                }
                Tensor wide = filled(arena, 7, layer, 0);
                Tensor narrow = Tensor.allocate(arena, type, x.shape());
                layer.forward(sameX, wide, workspace);
                layer.forward(narrowX, narrow, workspace);
                Tensor rounded = Tensor.allocate(arena, type, x.shape());
                for (long i = 0; i < x.numElements(); i++) {
                    rounded.setDouble(i, wide.getDouble(i));
                }
                if (backend != Backend.REFERENCE) {
                    assertThat(narrow.data().mismatch(rounded.data())).isEqualTo(-1);
                } else {
                    // The reference rounds its double sum once, not by way of F32.
                    assertClose(
                            type.name(), narrow, rounded, type == DType.BF16 ? 0x1p-8 : 0x1p-11);
                }
            }
        }
    }

    @ParameterizedTest
    @MethodSource("threadedBackends")
    void forward_allocatesNothingThatGrowsWithTheBatch(Backend backend) {
        try (Arena arena = Arena.ofConfined();
                MoeLayer layer = load("qwen3_moe-0", backend);
                Workspace workspace = layer.workspace(4000)) {
            long small = allocatedBytes(layer, workspace, waves(arena, 40, layer));
            long large = allocatedBytes(layer, workspace, waves(arena, 4000, layer));
            // 4,000 tokens are 700 kB of activations; views and task objects are a few kB.
            assertThat(large).isLessThan(small + 32_768);
            assertThat(large).isLessThan(65_536);
        }
    }

    private static long allocatedBytes(MoeLayer layer, Workspace workspace, Tensor x) {
        com.sun.management.ThreadMXBean threads =
                (com.sun.management.ThreadMXBean)
                        java.lang.management.ManagementFactory.getThreadMXBean();
        try (Arena arena = Arena.ofConfined()) {
            Tensor y = Tensor.allocate(arena, DType.F32, x.shape());
            for (int warmUp = 0; warmUp < 20; warmUp++) {
                layer.forward(x, y, workspace);
            }
            long least = Long.MAX_VALUE;
            for (int pass = 0; pass < 5; pass++) {
                long before = threads.getCurrentThreadAllocatedBytes();
                layer.forward(x, y, workspace);
                least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
            }
            return least;
        }
    }

    @Test
    void forward_rejectsWrongArguments() {
        try (Arena arena = Arena.ofConfined();
                MoeLayer layer = load("mixtral-0", Backend.REFERENCE);
                MoeLayer other = load("mixtral-1", Backend.REFERENCE);
                Workspace workspace = layer.workspace(4)) {
            Tensor x = waves(arena, 4, layer);
            Tensor y = filled(arena, 4, layer, 0);
            assertThatThrownBy(() -> layer.forward(waves(arena, 5, layer), y, workspace))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "y: expected F32, F16, BF16 or F64 [tokens=5, hidden=44], got F32 [4,"
                                    + " 44]");
            Tensor five = waves(arena, 5, layer);
            assertThatThrownBy(() -> layer.forward(five, filled(arena, 5, layer, 0), workspace))
                    .hasMessageContaining("room for tokens=5, got maxTokens=4");
            assertThatThrownBy(() -> layer.forward(x.reshape(8, 22), y, workspace))
                    .hasMessage(
                            "x: expected F32, F16, BF16 or F64 [tokens=8, hidden=44], got F32 [8,"
                                    + " 22]");
            assertThatThrownBy(() -> layer.forward(x, x, workspace))
                    .hasMessage("y: expected memory of its own, got memory shared with x");
            assertThatThrownBy(() -> layer.forward(x, y.reshape(4, 44), other.workspace(4)))
                    .hasMessageContaining("made for another layer");
            Tensor types = Tensor.allocate(arena, DType.I32, 4);
            types.setInt(3, 1);
            assertThatThrownBy(() -> layer.forward(x, types, y, workspace))
                    .hasMessage(
                            "tokenTypes: expected at most 0 (negative for an absent token), got 1"
                                    + " at token 3");
        }
    }

    @Test
    void forward_needsTokenTypesWhereTheModelSeparatesThem() {
        try (Arena arena = Arena.ofConfined();
                MoeLayer layer = load("ernie4_5_vl_moe-0", Backend.REFERENCE);
                Workspace workspace = layer.workspace(2)) {
            Tensor x = waves(arena, 2, layer);
            Tensor y = filled(arena, 2, layer, 0);
            assertThatThrownBy(() -> layer.forward(x, y, workspace))
                    .hasMessageContaining("tokenTypes: expected I32 [tokens=2]");
            Tensor types = Tensor.allocate(arena, DType.I32, 2);
            types.setInt(1, 2);
            assertThatThrownBy(() -> layer.forward(x, types, y, workspace))
                    .hasMessage(
                            "tokenTypes: expected at most 1 (negative for an absent token), got 2"
                                    + " at token 1");
        }
    }

    /** Latent projections of full width are still projections. */
    @Test
    void forward_projectsAlsoWhereTheLatentWidthIsTheHidden() {
        try (Arena arena = Arena.ofConfined();
                MoeLayer plain = load("mixtral-0", Backend.REFERENCE)) {
            long hidden = plain.config().hidden();
            Tensor same = Tensor.allocate(arena, DType.F32, 1, hidden, hidden);
            for (long i = 0; i < hidden; i++) {
                same.setDouble(i * hidden + i, 1);
            }
            MoeWeights w = plain.weights();
            MoeWeights latent =
                    new MoeWeights(w.routers(), w.experts(), null, null, same, same, null);
            try (Kernels kernels = Backend.REFERENCE.open();
                    MoeLayer layer = new MoeLayer(plain.config(), latent, kernels);
                    Workspace workspace = layer.workspace(3);
                    Workspace plainWorkspace = plain.workspace(3)) {
                Tensor x = waves(arena, 3, plain);
                Tensor got = filled(arena, 3, plain, 0);
                Tensor want = filled(arena, 3, plain, 0);
                layer.forward(x, got, workspace);
                plain.forward(x, want, plainWorkspace);
                assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
            }
        }
    }

    @Test
    void forward_rejectsTypesAndMemoryBeforeAnyWork() {
        try (Arena arena = Arena.ofConfined();
                MoeLayer layer = load("ernie4_5_vl_moe-0", Backend.VECTOR);
                Workspace workspace = layer.workspace(2)) {
            Tensor x = waves(arena, 2, layer);
            Tensor y = filled(arena, 2, layer, 0);
            Tensor typesInY = Tensor.of(y.data(), DType.I32, 2);
            assertThatThrownBy(() -> layer.forward(x, typesInY, y, workspace))
                    .hasMessage("y: expected memory of its own, got memory shared with tokenTypes");
            Tensor types = Tensor.allocate(arena, DType.I32, 2);
            Tensor wide = Tensor.allocate(arena, DType.F64, x.shape());
            assertThatThrownBy(() -> layer.forward(x, types, wide, workspace))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("y: expected F32, F16 or BF16");
        }
    }

    /** A backend that closes the layer in the middle of a pass. */
    @Test
    void close_duringAPassIsRefused() {
        try (Arena arena = Arena.ofConfined();
                MoeLayer loaded = load("mixtral-0", Backend.REFERENCE)) {
            MoeLayer[] layer = new MoeLayer[1];
            Kernels closing =
                    (Kernels)
                            Proxy.newProxyInstance(
                                    Kernels.class.getClassLoader(),
                                    new Class<?>[] {Kernels.class},
                                    (proxy, method, arguments) -> {
                                        if (method.isDefault()) {
                                            return InvocationHandler.invokeDefault(
                                                    proxy, method, arguments);
                                        }
                                        layer[0].close();
                                        return null;
                                    });
            layer[0] = new MoeLayer(loaded.config(), loaded.weights(), closing);
            try (Workspace workspace = layer[0].workspace(1)) {
                Tensor x = waves(arena, 1, loaded);
                Tensor y = filled(arena, 1, loaded, 0);
                assertThatThrownBy(() -> layer[0].forward(x, y, workspace))
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessageStartingWith("layer: in use by a forward pass");
            }
            layer[0].close();
            layer[0].close();
        }
    }

    @Test
    void forward_afterCloseSaysSo() {
        try (Arena arena = Arena.ofConfined()) {
            MoeLayer layer = load("mixtral-0", Backend.VECTOR);
            Tensor x = waves(arena, 1, layer);
            Tensor y = filled(arena, 1, layer, 0);
            Workspace workspace = layer.workspace(1);
            workspace.close();
            workspace.close();
            assertThatThrownBy(() -> layer.forward(x, y, workspace))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("workspace: closed");
            layer.close();
            layer.close();
            assertThatThrownBy(() -> layer.forward(x, y, workspace))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("layer: closed");
        }
    }

    @ParameterizedTest
    @MethodSource("threadedBackends")
    void forward_fromSeveralThreadsGivesEachItsOwnResult(Backend backend)
            throws InterruptedException {
        try (Arena arena = Arena.ofShared();
                MoeLayer layer = load("qwen2_moe-1", backend)) {
            Tensor x = waves(arena, 33, layer);
            Tensor want = filled(arena, 33, layer, 0);
            try (Workspace workspace = layer.workspace(33)) {
                layer.forward(x, want, workspace);
            }
            List<Tensor> results = new ArrayList<>();
            List<Thread> threads = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                Tensor y = filled(arena, 33, layer, Double.NaN);
                results.add(y);
                threads.add(
                        Thread.ofPlatform()
                                .start(() -> {
                                    try (Workspace own = layer.workspace(33)) {
                                        for (int pass = 0; pass < 10; pass++) {
                                            layer.forward(x, y, own);
                                        }
                                    }
                                }));
            }
            for (Thread thread : threads) {
                thread.join();
            }
            for (Tensor y : results) {
                assertThat(y.data().mismatch(want.data())).isEqualTo(-1);
            }
        }
    }

    private static MoeLayer load(String variant, Backend backend) {
        return MoeLayer.load(GOLDEN.resolve(variant), 0, backend);
    }

    private static Tensor waves(Arena arena, long tokens, MoeLayer layer) {
        Tensor x = Tensor.allocate(arena, DType.F32, tokens, layer.config().hidden());
        for (long i = 0; i < x.numElements(); i++) {
            x.setDouble(i, Math.sin(i * 0.7) + Math.cos(i * 0.013));
        }
        return x;
    }

    private static Tensor filled(Arena arena, long tokens, MoeLayer layer, double value) {
        Tensor x = Tensor.allocate(arena, DType.F32, tokens, layer.config().hidden());
        for (long i = 0; i < x.numElements(); i++) {
            x.setDouble(i, value);
        }
        return x;
    }
}
