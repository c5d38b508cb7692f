package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.checkpoint.LoadProgress;
import jmoe.ops.Kernels;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;

/** What is replayed equals what is computed anew. */
final class CapturedLayerTest {
    private static final int MAX_TOKENS = 9;

    /** System property: which way of computing a GPU takes. */
    private static final String CUDA_PATH = "jmoe.cuda.path";

    private static final int[] COUNTS = {9, 0, 1, 7, 9, 7, 1, 0, 5};

    /** Every way of routing, of sharing and of projecting; the last three couple tokens. */
    private static final List<String> VARIANTS =
            List.of(
                    "mixtral-0",
                    "deepseek_v3-0",
                    "gpt_oss-0",
                    "longcat_flash-0",
                    "nemotron_h-1",
                    "ernie4_5_vl_moe-0",
                    "qwen2_moe-0",
                    "llama4-0",
                    "phimoe-0",
                    "doge-0",
                    "nllb_moe-0",
                    "switch_transformers-0");

    @AfterEach
    void clearPath() {
        System.clearProperty(CUDA_PATH);
    }

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty());
    }

    private static MoeLayer load(String variant, Kernels kernels) {
        Path folder = Path.of("tests/golden", variant);
        return MoeLayer.load(folder, 0, kernels, DType.BF16, LoadProgress.NONE);
    }

    /** A captured pass, its input, and another pass that says what is right. */
    private static final class Replays implements AutoCloseable {
        private final Kernels kernels;
        private final MoeLayer layer;
        private final CapturedLayer captured;
        private final Workspace workspace;
        private final Arena arena = Arena.ofShared();
        private final Random random = new Random(5);
        private Tensor x;
        private @Nullable Tensor types;

        private Replays(String variant, Kernels kernels, DType type, DType rowType) {
            this.kernels = kernels;
            layer = load(variant, kernels);
            captured = layer.capture(MAX_TOKENS, type, rowType);
            workspace = layer.workspace(MAX_TOKENS, rowType);
            x = tensor(0, Double.NaN);
        }

        private Tensor tensor(long tokens, double value) {
            int hidden = layer.config().hidden();
            Tensor tensor = Tensor.allocate(arena, captured.x().dtype(), tokens, hidden);
            for (long i = 0; i < tensor.numElements(); i++) {
                tensor.setDouble(i, value);
            }
            return tensor;
        }

        /** Leaves numbers that are none wherever a pass writes, and in the rest of the input. */
        private void poison() {
            Tensor nan = tensor(MAX_TOKENS, Double.NaN);
            Tensor ofTypes = null;
            if (layer.config().numTokenTypes() > 1) {
                ofTypes = Tensor.allocate(arena, DType.I32, MAX_TOKENS);
            }
            layer.forward(nan, ofTypes, tensor(MAX_TOKENS, 0), captured.workspace());
            kernels.copy(nan, captured.x());
            kernels.copy(nan, captured.y());
        }

        private void replay(int tokens) {
            x = tensor(tokens, 0);
            for (long i = 0; i < x.numElements(); i++) {
                x.setDouble(i, random.nextGaussian());
            }
            kernels.copy(x, captured.x().slice(0, tokens));
            if (layer.config().numTokenTypes() > 1) {
                types = Tensor.allocate(arena, DType.I32, tokens);
                for (int token = 0; token < tokens; token++) {
                    types.setInt(token, random.nextInt(3) - 1);
                }
                kernels.copy(types, captured.tokenTypes().slice(0, tokens));
            }
            captured.replay(tokens);
        }

        private void check(String name, int tokens) {
            Tensor got = tensor(tokens, 0);
            kernels.copy(captured.y().slice(0, tokens), got);
            Tensor want = tensor(tokens, Double.NaN);
            layer.forward(x, types, want, workspace);
            assertThat(got.data().mismatch(want.data())).as(name).isEqualTo(-1);
            Workspace results = captured.workspace();
            assertThat(results.tokens()).isEqualTo(tokens);
            assertThat(results.topkIds().data().mismatch(workspace.topkIds().data()))
                    .as("ids of %s", name)
                    .isEqualTo(-1);
            assertThat(
                            results.tokensPerExpert()
                                    .data()
                                    .mismatch(workspace.tokensPerExpert().data()))
                    .as("load of %s", name)
                    .isEqualTo(-1);
        }

        @Override
        public void close() {
            captured.close();
            workspace.close();
            layer.close();
            arena.close();
        }
    }

    @ParameterizedTest
    @MethodSource("backends")
    void replay_givesTheBitsOfForward(Backend backend) {
        for (String variant : VARIANTS) {
            try (Kernels kernels = backend.open(2);
                    Replays replays = new Replays(variant, kernels, DType.F32, DType.F32)) {
                for (int tokens : COUNTS) {
                    replays.poison();
                    replays.replay(tokens);
                    replays.check(variant + " " + tokens, tokens);
                }
            }
        }
    }

    /** On a GPU either for few tokens or for many: by itself it might take both ways. */
    @ParameterizedTest
    @MethodSource("backends")
    void replay_ofSixteenBits_givesTheBitsOfForward(Backend backend) {
        for (String path : List.of("decode", "large")) {
            System.setProperty(CUDA_PATH, path);
            for (DType type : List.of(DType.BF16, DType.F16)) {
                try (Kernels kernels = backend.open(2);
                        Replays replays = new Replays("deepseek_v3-0", kernels, type, type)) {
                    assertThat(replays.captured.x().dtype()).isEqualTo(type);
                    for (int tokens : new int[] {9, 2, 5}) {
                        replays.poison();
                        replays.replay(tokens);
                        replays.check(path + " " + type + " " + tokens, tokens);
                    }
                }
            }
        }
    }

    /** Types are read from the replay on that follows the first question for them. */
    @ParameterizedTest
    @MethodSource("backends")
    void replay_leavesOutTokensThatAreAbsent(Backend backend) {
        try (Kernels kernels = backend.open(2);
                Replays replays = new Replays("mixtral-0", kernels, DType.F32, DType.F32)) {
            replays.replay(5);
            replays.check("all there", 5);
            replays.types = Tensor.allocate(replays.arena, DType.I32, 5);
            for (int absent : new int[] {0, 3, 4}) {
                for (int token = 0; token < 5; token++) {
                    replays.types.setInt(token, token == absent ? -1 : 0);
                }
                kernels.copy(replays.types, replays.captured.tokenTypes().slice(0, 5));
                replays.replay(5);
                replays.check("token " + absent + " absent", 5);
            }
        }
    }

    /** Two passes of different shape on one backend, which share its scratch. */
    @ParameterizedTest
    @MethodSource("backends")
    void replay_ofTwoLayersInterleaved_mixesNothing(Backend backend) {
        try (Kernels kernels = backend.open(2);
                Replays first = new Replays("nllb_moe-0", kernels, DType.F32, DType.F32);
                Replays second = new Replays("deepseek_v3-0", kernels, DType.F32, DType.F32)) {
            for (int tokens : COUNTS) {
                first.replay(tokens);
                second.replay(MAX_TOKENS - tokens);
                first.check("first " + tokens, tokens);
                second.check("second " + tokens, MAX_TOKENS - tokens);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("backends")
    void replay_onTwoBackendsAtOnce_mixesNothing(Backend backend) throws Exception {
        try (ExecutorService threads = Executors.newFixedThreadPool(2)) {
            List<Future<?>> running = new ArrayList<>();
            for (String variant : List.of("mixtral-0", "qwen2_moe-0")) {
                running.add(
                        threads.submit(() -> {
                            try (Kernels kernels = backend.open(1);
                                    Replays replays =
                                            new Replays(variant, kernels, DType.F32, DType.F32)) {
                                for (int tokens : COUNTS) {
                                    replays.replay(tokens);
                                    replays.check(variant + " " + tokens, tokens);
                                }
                            }
                        }));
            }
            for (Future<?> one : running) {
                one.get();
            }
        }
    }

    @Test
    void replay_refusesWhatItCannotDo() {
        try (Kernels kernels = new ReferenceKernels()) {
            MoeLayer layer = load("mixtral-0", kernels);
            CapturedLayer captured = layer.capture(3);
            assertThatThrownBy(() -> captured.replay(4))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "tokens: expected 0 to maxTokens=3, got 4; capture the layer for more");
            assertThatThrownBy(() -> captured.replay(-1))
                    .hasMessageStartingWith("tokens: expected 0 to maxTokens=3, got -1");
            assertThatThrownBy(layer::close)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("layer: in use by a captured layer; close that first");
            captured.close();
            captured.close();
            assertThatThrownBy(() -> captured.replay(1))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("captured layer: closed; capture the layer again");
            assertThatThrownBy(() -> layer.capture(-1))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("maxTokens: expected 0 to ");
            assertThatThrownBy(() -> layer.capture(1, DType.F64, DType.F32))
                    .hasMessage("type: expected F32, F16 or BF16, got F64");
            assertThatThrownBy(() -> layer.capture(1, DType.F32, DType.I32))
                    .hasMessage("rowType: expected F32, F16 or BF16, got I32");
            layer.close();
            assertThatThrownBy(() -> layer.capture(1))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("layer: closed");
        }
    }

    /** A backend in which something happens in the middle of a replay. */
    @Test
    void close_duringAReplayIsRefused() {
        try (Kernels reference = new ReferenceKernels();
                MoeLayer loaded = load("mixtral-0", reference)) {
            List<Runnable> meanwhile = new ArrayList<>();
            Kernels kernels =
                    (Kernels)
                            Proxy.newProxyInstance(
                                    Kernels.class.getClassLoader(),
                                    new Class<?>[] {Kernels.class},
                                    (proxy, method, arguments) -> {
                                        if (method.getName().equals("experts")) {
                                            meanwhile.forEach(Runnable::run);
                                        }
                                        try {
                                            return method.invoke(reference, arguments);
                                        } catch (InvocationTargetException e) {
                                            throw e.getCause();
                                        }
                                    });
            try (MoeLayer layer = new MoeLayer(loaded.config(), loaded.weights(), kernels);
                    CapturedLayer captured = layer.capture(2)) {
                meanwhile.add(captured::close);
                assertThatThrownBy(() -> captured.replay(1))
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessage("captured layer: in use by a replay; close it afterwards");
                meanwhile.set(0, () -> captured.replay(2));
                assertThatThrownBy(() -> captured.replay(1))
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessage(
                                "captured layer: in use by another replay; capture one for each"
                                        + " thread");
                meanwhile.clear();
                captured.replay(1);
            }
        }
    }
}
