package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Cases;
import jmoe.ops.ConstantExperts;
import jmoe.ops.ConstantOracle;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.ops.Routing;
import jmoe.ops.SizeClass;
import jmoe.ops.SizedExperts;
import jmoe.ops.Tolerance;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;

/** Layers of MoE++: experts with weights beside zero, copy and constant experts. */
final class ConstantLayerTest {
    private static final int HIDDEN = 32;
    private static final int WIDTH = 24;
    private static final int EXPERTS = 4;
    private static final int CONSTANTS = 3;

    /** With weights, two of identity, one null, and the constants. */
    private static final int ALL = EXPERTS + 2 + 1 + CONSTANTS;

    private static final int TOKENS = 21;
    private static final int TOP_K = 3;

    /** System property: which way of computing a GPU takes. */
    private static final String CUDA_PATH = "jmoe.cuda.path";

    @AfterEach
    void clearPath() {
        System.clearProperty(CUDA_PATH);
    }

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty());
    }

    private static MoeConfig config(int types, int expertHidden) {
        RouterConfig rule = RouterConfig.softmaxTopK(ALL, TOP_K, true);
        List<RouterConfig> routers = new ArrayList<>();
        for (int type = 0; type < types; type++) {
            routers.add(
                    new RouterConfig(
                            ALL,
                            TOP_K,
                            rule.score(),
                            rule.selection(),
                            rule.normalisation(),
                            1,
                            false,
                            null,
                            types == 1 ? RouterConfig.ALL_TOKENS : type));
        }
        return new MoeConfig(
                "test",
                HIDDEN,
                expertHidden,
                EXPERTS,
                2,
                Activation.SWIGLU,
                routers,
                Collections.nCopies(types, WIDTH),
                0,
                false,
                0.75,
                1,
                List.of(),
                CONSTANTS);
    }

    private static MoeWeights weights(Arena arena, DType type, int types, int expertHidden) {
        List<RouterWeights> routers = new ArrayList<>();
        List<ExpertWeights> experts = new ArrayList<>();
        List<ConstantExperts> constants = new ArrayList<>();
        for (int t = 0; t < types; t++) {
            Tensor router = Cases.normal(arena, DType.F32, 10 + t, 1, ALL, HIDDEN);
            routers.add(new RouterWeights(router, null, null));
            List<SizeClass> size = List.of(new SizeClass(EXPERTS, WIDTH));
            experts.addAll(SizedExperts.random(arena, type, expertHidden, size));
            constants.add(
                    new ConstantExperts(
                            Cases.normal(arena, DType.F32, 20 + t, CONSTANTS, 2, expertHidden),
                            Cases.normal(arena, DType.F32, 30 + t, CONSTANTS, expertHidden)));
        }
        boolean latent = expertHidden != HIDDEN;
        Tensor in = latent ? Cases.normal(arena, DType.F32, 40, 1, expertHidden, HIDDEN) : null;
        Tensor out = latent ? Cases.normal(arena, DType.F32, 41, 1, HIDDEN, expertHidden) : null;
        Tensor bias = Cases.normal(arena, DType.F32, 42, 1, HIDDEN);
        return new MoeWeights(routers, experts, null, null, in, out, bias, constants);
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_isWhatTheEquationsSay(Backend backend) {
        for (String path : backend == Backend.CUDA ? List.of("large", "decode") : List.of("")) {
            System.setProperty(CUDA_PATH, path.isEmpty() ? "large" : path);
            try (Kernels kernels = backend.open()) {
                for (DType type : new DType[] {DType.F32, DType.BF16}) {
                    forward(kernels, type, 1);
                    forward(kernels, type, 2);
                }
            }
        }
    }

    private static void forward(Kernels kernels, DType type, int numTypes) {
        try (Arena arena = Arena.ofShared()) {
            MoeConfig config = config(numTypes, HIDDEN);
            MoeWeights weights = weights(arena, type, numTypes, HIDDEN);
            Tensor x = Cases.normal(arena, type, 7, TOKENS, HIDDEN);
            Tensor types = Tensor.allocate(arena, DType.I32, TOKENS);
            for (int token = 0; token < TOKENS; token++) {
                types.setInt(token, token % 7 == 4 ? -1 : token % numTypes);
            }
            Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
            try (MoeLayer layer = new MoeLayer(config, weights, kernels);
                    Workspace workspace = layer.workspace(TOKENS, type)) {
                assertThat(workspace.numBytes()).isEqualTo(layer.workspaceBytes(TOKENS, type));
                layer.forward(x, types, y, workspace);
                check(arena, type, weights, config, x, types, y, workspace);
                assertThat(workspace.tokensPerExpert().numElements())
                        .isEqualTo((long) numTypes * (EXPERTS + 2));
                replay(kernels, layer, workspace, x, types);
            }
        }
    }

    private static void check(
            Arena arena,
            DType type,
            MoeWeights weights,
            MoeConfig config,
            Tensor x,
            Tensor types,
            Tensor y,
            Workspace workspace) {
        Tensor sum = weights.outputBias();
        double[] squares = new double[TOKENS * HIDDEN];
        int[] chosen = new int[ALL];
        for (int tokenType = 0; tokenType < config.numTokenTypes(); tokenType++) {
            Routing routing = Routing.allocate(arena, TOKENS, TOP_K, EXPERTS);
            for (int slot = 0; slot < TOKENS * TOP_K; slot++) {
                boolean own = types.getInt(slot / TOP_K) == tokenType;
                int id = own ? workspace.topkIds().getInt(slot) : -1;
                routing.topkIds().setInt(slot, id);
                routing.topkWeights().setDouble(slot, workspace.topkWeights().getFloat(slot));
                chosen[Math.max(0, id)] += id < 0 ? 0 : 1;
            }
            Residual residual = new Residual(sum, null, Integer.MAX_VALUE, config.outputFactor());
            SizedExperts.Oracle routed =
                    new SizedExperts.Oracle(
                            arena, x, weights.experts(config, tokenType), routing, residual);
            ConstantOracle constants =
                    new ConstantOracle(
                            arena,
                            x,
                            routing,
                            weights.constants().get(tokenType),
                            EXPERTS + 3,
                            new Residual(routed.y, null, Integer.MAX_VALUE, config.outputFactor()));
            sum = constants.y;
            addCopies(sum, x, routing, config.outputFactor());
            for (int i = 0; i < squares.length; i++) {
                squares[i] += routed.squares[i] + constants.squares[i];
            }
        }
        assertThat(chosen[EXPERTS] + chosen[EXPERTS + 1]).as("copies").isPositive();
        assertThat(chosen[EXPERTS + 2]).as("nulls").isPositive();
        assertThat(chosen[ALL - 1] + chosen[ALL - 2]).as("constants").isPositive();
        Tolerance.assertRounded("forward", "" + type, y, sum, 4.0 * 100, type, squares);
    }

    private static void addCopies(Tensor sum, Tensor x, Routing routing, double factor) {
        for (int slot = 0; slot < TOKENS * TOP_K; slot++) {
            int id = routing.topkIds().getInt(slot);
            boolean copies = id == EXPERTS || id == EXPERTS + 1;
            for (int h = 0; h < HIDDEN && copies; h++) {
                int at = slot / TOP_K * HIDDEN + h;
                double weight = factor * routing.topkWeights().getDouble(slot);
                sum.setDouble(at, sum.getDouble(at) + weight * x.getDouble(at));
            }
        }
    }

    private static void replay(
            Kernels kernels, MoeLayer layer, Workspace workspace, Tensor x, Tensor types) {
        try (CapturedLayer captured = layer.capture(TOKENS + 4, x.dtype(), x.dtype());
                Arena arena = Arena.ofConfined()) {
            for (int tokens : new int[] {TOKENS, 0, 6}) {
                Tensor some = x.slice(0, tokens);
                Tensor ofSome = types.slice(0, tokens);
                kernels.copy(some, captured.x().slice(0, tokens));
                kernels.copy(ofSome, captured.tokenTypes().slice(0, tokens));
                captured.replay(tokens);
                Tensor y = Tensor.allocate(arena, x.dtype(), tokens, HIDDEN);
                kernels.copy(captured.y().slice(0, tokens), y);
                Tensor want = Tensor.allocate(arena, x.dtype(), tokens, HIDDEN);
                layer.forward(some, ofSome, want, workspace);
                assertThat(y.data().mismatch(want.data())).as("%d tokens", tokens).isEqualTo(-1);
            }
        }
    }

    /** Between latent projections constants are of the experts' width: as a layer by hand. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_ofLatentExperts_mixesWhatTheySee(Backend backend) {
        int latent = 16;
        try (Kernels kernels = backend.open();
                Kernels reference = Backend.REFERENCE.open();
                Arena arena = Arena.ofShared()) {
            MoeConfig config = config(1, latent);
            MoeWeights weights = weights(arena, DType.F32, 1, latent);
            Tensor x = Cases.normal(arena, DType.F32, 8, TOKENS, HIDDEN);
            Tensor want = forward(reference, config, weights, x, arena);
            Tensor got = forward(kernels, config, weights, x, arena);
            Tolerance.assertClose("forward", "latent", got, want, 4.0 * 200);
        }
    }

    private static Tensor forward(
            Kernels kernels, MoeConfig config, MoeWeights weights, Tensor x, Arena arena) {
        Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
        try (MoeLayer layer = new MoeLayer(config, weights, kernels);
                Workspace workspace = layer.workspace(TOKENS)) {
            layer.forward(x, y, workspace);
        }
        return y;
    }

    @Test
    void layer_refusesConstantsThatDoNotFit() {
        try (Kernels kernels = Backend.REFERENCE.open();
                Arena arena = Arena.ofConfined()) {
            MoeWeights w = weights(arena, DType.F32, 1, HIDDEN);
            refused(kernels, with(w, null), "constants: expected 1 as in the configuration, got 0");
            ConstantExperts few = w.constants().getFirst();
            ConstantExperts two =
                    new ConstantExperts(few.mixing().slice(0, 2), few.vectors().slice(0, 2));
            refused(
                    kernels,
                    with(w, two),
                    "numConstantExperts: expected 3 as in the configuration, got 2");
            assertThatThrownBy(() -> new ConstantExperts(few.mixing(), two.vectors()))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith(
                            "mixing: expected F32 [numConstants=2, 2, hidden=32], got F32");
        }
    }

    private static MoeWeights with(MoeWeights w, @Nullable ConstantExperts constants) {
        return new MoeWeights(
                w.routers(),
                w.experts(),
                null,
                null,
                null,
                null,
                null,
                constants == null ? List.of() : List.of(constants));
    }

    private static void refused(Kernels kernels, MoeWeights weights, String message) {
        assertThatThrownBy(() -> new MoeLayer(config(1, HIDDEN), weights, kernels))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(message);
    }

    @Test
    void preset_countsMixingAndVectors() {
        Preset preset = new Preset("moe++", config(1, HIDDEN), Set.of());
        long experts = 3L * EXPERTS * WIDTH * HIDDEN;
        long constants = 3L * CONSTANTS * HIDDEN;
        assertThat(preset.parameters()).isEqualTo(experts + constants + (long) ALL * HIDDEN);
    }
}
