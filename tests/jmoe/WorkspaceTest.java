package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.checkpoint.LoadProgress;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/** What a workspace takes and keeps, and tokens that are absent from a batch. */
final class WorkspaceTest {
    private static final int TOKENS = 11;

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty());
    }

    private static MoeLayer load(String variant, Kernels kernels) {
        Path folder = Path.of("tests/golden", variant);
        return MoeLayer.load(folder, 0, kernels, DType.F32, LoadProgress.NONE);
    }

    private static Tensor waves(Arena arena, MoeLayer layer) {
        Tensor x = Tensor.allocate(arena, DType.F32, TOKENS, layer.config().hidden());
        for (long i = 0; i < x.numElements(); i++) {
            x.setDouble(i, Math.sin(i * 0.7) + Math.cos(i * 0.013));
        }
        return x;
    }

    /** Every third token is absent; the others are of the types that there are. */
    private static Tensor types(Arena arena, MoeLayer layer) {
        Tensor types = Tensor.allocate(arena, DType.I32, TOKENS);
        for (int token = 0; token < TOKENS; token++) {
            int type = token / 3 % layer.config().numTokenTypes();
            types.setInt(token, token % 3 == 0 ? -1 : type);
        }
        return types;
    }

    @ParameterizedTest
    @MethodSource("backends")
    void numBytes_isKnownBeforehandAndCountsWhatComesLater(Backend backend) {
        for (String variant : List.of("deepseek_v3-0", "ernie4_5_vl_moe-0", "nemotron_h-1")) {
            try (Kernels kernels = backend.open(2);
                    MoeLayer layer = load(variant, kernels)) {
                for (DType rowType : List.of(DType.F32, DType.BF16)) {
                    for (long maxTokens : new long[] {0, 1, 40}) {
                        try (Workspace workspace = layer.workspace(maxTokens, rowType)) {
                            assertThat(layer.workspaceBytes(maxTokens, rowType))
                                    .isEqualTo(workspace.numBytes());
                        }
                    }
                }
                assertThat(layer.workspaceBytes(40)).isEqualTo(layer.workspaceBytes(40, DType.F32));
                assertThat(layer.workspaceBytes(40, DType.BF16))
                        .isLessThan(layer.workspaceBytes(40));
                long maps = 4L * 40 * (2 * layer.config().topK() + 2);
                assertThat(layer.workspaceBytes(40) - layer.workspaceBytes(0)).isGreaterThan(maps);
            }
        }
    }

    @Test
    void workspace_refusesTypesThatAreNoRows() {
        try (Kernels kernels = Backend.REFERENCE.open();
                MoeLayer layer = load("mixtral-0", kernels)) {
            for (DType type : List.of(DType.F64, DType.I32, DType.F8_E4M3)) {
                assertThatThrownBy(() -> layer.workspace(3, type))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage("rowType: expected F32, F16 or BF16, got " + type);
            }
            assertThatThrownBy(() -> layer.workspaceBytes(-1))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("maxTokens: expected 0 to ");
        }
    }

    @ParameterizedTest
    @MethodSource("backends")
    void results_afterClose_sayIt(Backend backend) {
        try (Kernels kernels = backend.open(2);
                Arena arena = Arena.ofConfined();
                MoeLayer layer = load("mixtral-0", kernels)) {
            Workspace workspace = layer.workspace(TOKENS);
            Tensor x = waves(arena, layer);
            layer.forward(x, Tensor.allocate(arena, DType.F32, x.shape()), workspace);
            workspace.close();
            assertThatThrownBy(workspace::topkIds)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("workspace: closed");
        }
    }

    /** The output of tokens that nobody routes: shared expert and output bias. */
    private static Tensor withoutExperts(Arena arena, MoeLayer stored, Tensor x) {
        MoeWeights w = stored.weights();
        List<ExpertWeights> none =
                w.experts().stream()
                        .map(bank ->
                                new ExpertWeights(
                                        bank.gateUp(),
                                        Tensor.allocate(
                                                arena, bank.down().dtype(), bank.down().shape()),
                                        bank.gateUpBias(),
                                        null,
                                        bank.activation()))
                        .toList();
        MoeWeights weights =
                new MoeWeights(
                        w.routers(),
                        none,
                        w.shared(),
                        w.sharedGate(),
                        w.latentIn(),
                        w.latentOut(),
                        w.outputBias());
        Tensor y = Tensor.allocate(arena, DType.F32, x.shape());
        try (Kernels reference = Backend.REFERENCE.open();
                MoeLayer layer = new MoeLayer(stored.config(), weights, reference);
                Workspace workspace = layer.workspace(TOKENS)) {
            Tensor types = Tensor.allocate(arena, DType.I32, TOKENS);
            boolean typed = layer.config().numTokenTypes() > 1;
            layer.forward(x, typed ? types : null, y, workspace);
        }
        return y;
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_leavesAbsentTokensToTheSharedExpert(Backend backend) {
        for (String variant :
                List.of(
                        "mixtral-0",
                        "deepseek_v3-0",
                        "qwen2_moe-0",
                        "ernie4_5_vl_moe-0",
                        "nemotron_h-1",
                        "jetmoe-0",
                        "llama4-0")) {
            try (Kernels kernels = backend.open(2);
                    Kernels reference = Backend.REFERENCE.open();
                    Arena arena = Arena.ofConfined();
                    MoeLayer layer = load(variant, kernels);
                    MoeLayer stored = load(variant, reference);
                    Workspace workspace = layer.workspace(TOKENS)) {
                Tensor x = waves(arena, layer);
                Tensor types = types(arena, layer);
                Tensor y = Tensor.allocate(arena, DType.F32, x.shape());
                layer.forward(x, types, y, workspace);
                checkAbsent(variant, types, y, withoutExperts(arena, stored, x), workspace);
                checkPresent(variant, layer, x, types, y);
            }
        }
    }

    private static void checkAbsent(
            String variant, Tensor types, Tensor y, Tensor shared, Workspace workspace) {
        double largest = 0;
        for (long i = 0; i < shared.numElements(); i++) {
            largest = Math.max(largest, Math.abs(shared.getDouble(i)));
        }
        long topK = workspace.topkIds().dim(1);
        int present = 0;
        for (long token = 0; token < TOKENS; token++) {
            boolean absent = types.getInt(token) < 0;
            present += absent ? 0 : 1;
            for (long k = 0; k < topK; k++) {
                assertThat(workspace.topkIds().getInt(token * topK + k) < 0)
                        .as("%s: id of token %d", variant, token)
                        .isEqualTo(absent);
                if (absent) {
                    assertThat(workspace.topkWeights().getDouble(token * topK + k)).isZero();
                }
            }
            for (long i = 0; absent && i < y.dim(1); i++) {
                double want = shared.getDouble(token * y.dim(1) + i);
                assertThat(y.getDouble(token * y.dim(1) + i))
                        .as("%s: token %d", variant, token)
                        .isCloseTo(want, org.assertj.core.data.Offset.offset(5e-6 * largest));
            }
        }
        long rows = 0;
        for (long e = 0; e < workspace.tokensPerExpert().numElements(); e++) {
            rows += workspace.tokensPerExpert().getInt(e);
        }
        assertThat(rows).isEqualTo(present * topK);
    }

    /** Whatever absent tokens hold, the others do not see it. */
    private static void checkPresent(
            String variant, MoeLayer layer, Tensor x, Tensor types, Tensor y) {
        try (Arena arena = Arena.ofConfined();
                Workspace workspace = layer.workspace(TOKENS)) {
            Tensor poisoned = x.copy(arena);
            Tensor there = types.copy(arena);
            for (long token = 0; token < TOKENS; token++) {
                boolean absent = types.getInt(token) < 0;
                there.setInt(token, absent ? 0 : types.getInt(token));
                for (long i = 0; absent && i < x.dim(1); i++) {
                    poisoned.setDouble(token * x.dim(1) + i, Double.NaN);
                }
            }
            Tensor all = Tensor.allocate(arena, DType.F32, x.shape());
            Tensor some = Tensor.allocate(arena, DType.F32, x.shape());
            layer.forward(x, there, all, workspace);
            layer.forward(poisoned, types, some, workspace);
            for (long token = 0; token < TOKENS; token++) {
                if (types.getInt(token) >= 0) {
                    byte[] want = bytes(all, token);
                    assertThat(bytes(y, token)).as("%s %d", variant, token).isEqualTo(want);
                    assertThat(bytes(some, token)).as("%s %d", variant, token).isEqualTo(want);
                }
            }
        }
    }

    private static byte[] bytes(Tensor y, long token) {
        return y.slice(token, 1).data().toArray(JAVA_BYTE);
    }
}
