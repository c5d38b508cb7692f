package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Cases;
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
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;

/** Layers whose experts differ in size, of two types of tokens, with identity and null experts. */
final class SizeClassLayerTest {
    private static final int HIDDEN = 32;
    private static final int EXPERTS = 6;
    private static final int SHARED = 9;
    private static final int TOKENS = 21;
    private static final int TOP_K = 3;

    /** System property: which way of computing a GPU takes. */
    private static final String CUDA_PATH = "jmoe.cuda.path";

    private static final List<List<SizeClass>> SIZES =
            List.of(
                    List.of(new SizeClass(1, 40), new SizeClass(3, 8), new SizeClass(2, 37)),
                    List.of(new SizeClass(5, 1), new SizeClass(1, 136)));

    /** Routers of few tokens too take the way of many, so that replays are comparable. */
    @BeforeEach
    void forcePath() {
        System.setProperty(CUDA_PATH, "large");
    }

    @AfterEach
    void clearPath() {
        System.clearProperty(CUDA_PATH);
    }

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty());
    }

    private static MoeConfig config(List<List<SizeClass>> sizes) {
        RouterConfig rule = RouterConfig.softmaxTopK(EXPERTS + 2, TOP_K, true);
        List<RouterConfig> routers = new ArrayList<>();
        for (int type = 0; type < sizes.size(); type++) {
            routers.add(sizes.size() == 1 ? rule : ofType(rule, type));
        }
        List<Integer> largest =
                sizes.stream()
                        .map(all -> all.stream().mapToInt(SizeClass::intermediate).max().orElse(0))
                        .toList();
        return new MoeConfig(
                "test",
                HIDDEN,
                HIDDEN,
                EXPERTS,
                1,
                Activation.SWIGLU,
                routers,
                largest,
                SHARED,
                false,
                0.75,
                1,
                sizes,
                0);
    }

    private static RouterConfig ofType(RouterConfig rule, int type) {
        return new RouterConfig(
                rule.numExperts(),
                rule.topK(),
                rule.score(),
                rule.selection(),
                rule.normalisation(),
                rule.factor(),
                rule.weightOnInput(),
                rule.capacity(),
                type);
    }

    private static MoeWeights weights(Arena arena, DType type, List<List<SizeClass>> sizes) {
        List<RouterWeights> routers = new ArrayList<>();
        List<ExpertWeights> experts = new ArrayList<>();
        for (List<SizeClass> ofType : sizes) {
            Tensor router = Cases.normal(arena, DType.F32, experts.size(), 1, EXPERTS + 2, HIDDEN);
            routers.add(new RouterWeights(router, null, null));
            experts.addAll(SizedExperts.random(arena, type, HIDDEN, ofType));
        }
        ExpertWeights shared =
                SizedExperts.random(arena, type, HIDDEN, List.of(new SizeClass(1, SHARED)))
                        .getFirst();
        return new MoeWeights(routers, experts, shared, null, null, null, null);
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_isWhatTheEquationsSay(Backend backend) {
        for (DType type : new DType[] {DType.F32, DType.BF16}) {
            try (Arena arena = Arena.ofShared();
                    Kernels kernels = backend.open()) {
                MoeConfig config = config(SIZES);
                MoeWeights weights = weights(arena, type, SIZES);
                Tensor x = Cases.normal(arena, type, 7, TOKENS, HIDDEN);
                Tensor types = Tensor.allocate(arena, DType.I32, TOKENS);
                for (int token = 0; token < TOKENS; token++) {
                    types.setInt(token, token % 5 == 4 ? -1 : token % 2);
                }
                Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                try (MoeLayer layer = new MoeLayer(config, weights, kernels);
                        Workspace workspace = layer.workspace(TOKENS, type)) {
                    assertThat(workspace.numBytes()).isEqualTo(layer.workspaceBytes(TOKENS, type));
                    layer.forward(x, types, y, workspace);
                    check(arena, type, weights, config, x, types, y, workspace);
                    replay(kernels, layer, workspace, x, types);
                }
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
        Tensor sum = null;
        double[] squares = new double[TOKENS * HIDDEN];
        for (int tokenType = -1; tokenType < SIZES.size(); tokenType++) {
            boolean shared = tokenType < 0;
            Routing routing = Routing.allocate(arena, TOKENS, TOP_K, EXPERTS);
            for (int slot = 0; slot < TOKENS * TOP_K; slot++) {
                int id = workspace.topkIds().getInt(slot);
                boolean own = types.getInt(slot / TOP_K) == tokenType;
                boolean first = slot % TOP_K == 0;
                routing.topkIds().setInt(slot, shared ? (first ? 0 : -1) : own ? id : -1);
                routing.topkWeights()
                        .setDouble(slot, shared ? 1 : workspace.topkWeights().getFloat(slot));
            }
            List<ExpertWeights> classes =
                    shared ? List.of(weights.shared()) : weights.experts(config, tokenType);
            double factor = shared ? 1 : config.outputFactor();
            Residual residual = new Residual(sum, null, Integer.MAX_VALUE, factor);
            SizedExperts.Oracle oracle =
                    new SizedExperts.Oracle(arena, x, classes, routing, residual);
            sum = oracle.y;
            for (int i = 0; i < squares.length; i++) {
                squares[i] += oracle.squares[i];
            }
        }
        int identities = 0;
        for (int slot = 0; slot < TOKENS * TOP_K; slot++) {
            boolean identity = workspace.topkIds().getInt(slot) == EXPERTS;
            identities += identity ? 1 : 0;
            for (int h = 0; h < HIDDEN && identity; h++) {
                int at = slot / TOP_K * HIDDEN + h;
                double weight = config.outputFactor() * workspace.topkWeights().getFloat(slot);
                sum.setDouble(at, sum.getDouble(at) + weight * x.getDouble(at));
            }
        }
        assertThat(identities).as("the case itself").isPositive();
        Tolerance.assertRounded("forward", "" + type, y, sum, 4.0 * 200, type, squares);
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

    /** Codes of each size: as near to the numbers that were quantised as those of one size are. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_ofCodes_isNear(Backend backend) {
        if (backend != Backend.REFERENCE && backend != Backend.NATIVE) {
            return;
        }
        List<List<SizeClass>> sizes = List.of(SIZES.getFirst());
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open()) {
            MoeWeights wide = weights(arena, DType.F32, sizes);
            List<ExpertWeights> codes = new ArrayList<>();
            for (ExpertWeights bank : wide.experts()) {
                Tensor gateUp = Quantisation.of(bank.gateUp(), arena);
                Tensor down = Quantisation.of(bank.down(), arena);
                codes.add(new ExpertWeights(gateUp, down, null, null, bank.activation()));
            }
            MoeWeights narrow =
                    new MoeWeights(wide.routers(), codes, wide.shared(), null, null, null, null);
            Tensor x = Cases.normal(arena, DType.F32, 8, TOKENS, HIDDEN);
            Tensor[] results = new Tensor[2];
            for (int i = 0; i < 2; i++) {
                results[i] = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                try (MoeLayer layer = new MoeLayer(config(sizes), i == 0 ? wide : narrow, kernels);
                        Workspace workspace = layer.workspace(TOKENS)) {
                    layer.forward(x, results[i], workspace);
                }
            }
            double error = 0;
            double norm = 0;
            for (long i = 0; i < results[0].numElements(); i++) {
                double want = results[0].getDouble(i);
                error += Math.pow(results[1].getDouble(i) - want, 2);
                norm += want * want;
            }
            // A step of 1/127 of the largest number of a row, twice, is about a hundredth.
            assertThat(Math.sqrt(error / norm)).isBetween(1e-4, 0.03);
        }
    }

    @Test
    void config_refusesSizesThatDoNotAddUp() {
        List<List<SizeClass>> few = List.of(List.of(new SizeClass(5, 8)));
        assertThatThrownBy(() -> config(few))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "sizeClasses: expected numExperts=6 of which the largest has"
                                + " intermediate=8, got [SizeClass[numExperts=5, intermediate=8]]");
        assertThatThrownBy(() -> new SizeClass(-1, 8))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith("sizeClasses: expected at least 0 experts");
        try (Arena arena = Arena.ofConfined();
                Kernels kernels = Backend.REFERENCE.open()) {
            List<List<SizeClass>> one = List.of(SIZES.getFirst());
            List<List<SizeClass>> other =
                    List.of(
                            List.of(
                                    new SizeClass(1, 40),
                                    new SizeClass(3, 8),
                                    new SizeClass(2, 36)));
            MoeWeights weights = weights(arena, DType.F32, other);
            assertThatThrownBy(() -> new MoeLayer(config(one), weights, kernels))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("intermediate: expected 37 as in the configuration, got 36");
        }
    }

    /** Every expert counts with its own size. */
    @Test
    void preset_countsParametersBySize() {
        Preset preset = new Preset("mixed", config(List.of(SIZES.getFirst())), Set.of());
        int neurons = 40 + 3 * 8 + 2 * 37;
        int matrices = 3 * HIDDEN;
        long rest = (long) matrices * SHARED + (EXPERTS + 2) * HIDDEN;
        assertThat(preset.parameters()).isEqualTo(rest + (long) matrices * neurons);
        assertThat(preset.activeParameters())
                .isEqualTo(rest + (long) matrices * neurons * TOP_K / EXPERTS);
        assertThat(preset.halved()).isNull();
    }
}
