package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Cases;
import jmoe.ops.Kernels;
import jmoe.ops.PeerWeights;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.SingletonExperts;
import jmoe.ops.Tolerance;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The layer against its equations, with every expert's score computed. */
final class PeerLayerTest {
    private static final int HEADS = 3;
    private static final int KEYS = 9;
    private static final int WIDTH = 5;
    private static final int HIDDEN = 22;
    private static final int TOP_K = 4;
    private static final int TOKENS = 7;

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(b -> b.unavailable().isEmpty());
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_isWhatTheEquationsSay(Backend backend) {
        try (Kernels kernels = backend.open();
                Arena arena = Arena.ofShared()) {
            for (Score score : new Score[] {Score.SOFTMAX, Score.SIGMOID}) {
                for (boolean biased : new boolean[] {false, true}) {
                    PeerWeights weights = weights(arena, biased, DType.F32);
                    try (PeerLayer layer = new PeerLayer(weights, TOP_K, score, kernels, TOKENS)) {
                        for (int tokens : new int[] {TOKENS, 1, 0, 5}) {
                            Tensor x = Cases.normal(arena, DType.F32, 9, tokens, HIDDEN);
                            Tensor y = Tensor.allocate(arena, DType.F32, tokens, HIDDEN);
                            layer.forward(x, y);
                            Tensor want = layer(arena, weights, score, x);
                            String name = "%s, %d tokens on %s".formatted(score, tokens, backend);
                            int terms = HIDDEN + WIDTH + HEADS * TOP_K;
                            Tolerance.assertClose("PEER", name, y, want, terms, DType.F32);
                            assertThat(layer.topkIds().shape())
                                    .containsExactly(tokens, HEADS * TOP_K);
                        }
                    }
                }
            }
        }
    }

    @Test
    void topkIds_areThoseOfTheLastPass() {
        try (Kernels kernels = Backend.REFERENCE.open();
                Arena arena = Arena.ofShared();
                PeerLayer layer =
                        new PeerLayer(
                                weights(arena, true, DType.F32),
                                TOP_K,
                                Score.SOFTMAX,
                                kernels,
                                TOKENS)) {
            assertThatThrownBy(layer::topkIds)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("topkIds: no pass yet; call forward");
            Tensor x = Cases.normal(arena, DType.F32, 9, 2, HIDDEN);
            layer.forward(x, Tensor.allocate(arena, DType.F32, 2, HIDDEN));
            Tensor ids = layer.topkIds();
            for (int slot = 0; slot < ids.numElements(); slot++) {
                assertThat(ids.getInt(slot)).isBetween(0, KEYS * KEYS - 1);
            }
        }
    }

    private static PeerWeights weights(Arena arena, boolean biased, DType type) {
        Tensor bias = biased ? Cases.normal(arena, DType.F32, 4, 2, HEADS * WIDTH) : null;
        return new PeerWeights(
                Cases.normal(arena, type, 1, 2, HEADS * WIDTH, HIDDEN),
                bias,
                Cases.normal(arena, type, 2, 2, KEYS, WIDTH),
                new SingletonExperts(
                        Cases.normal(arena, type, 3, KEYS * KEYS, HIDDEN),
                        Cases.normal(arena, type, 5, KEYS * KEYS, HIDDEN),
                        Activation.of(Activation.Kind.RELU)));
    }

    private static Tensor layer(Arena arena, PeerWeights weights, Score score, Tensor x) {
        Tensor y = Tensor.allocate(arena, DType.F64, x.shape());
        for (int t = 0; t < x.dim(0); t++) {
            for (int head = 0; head < HEADS; head++) {
                double[] first = scores(weights, 0, x, t, head);
                double[] second = scores(weights, 1, x, t, head);
                double[] sums =
                        IntStream.range(0, KEYS * KEYS)
                                .mapToDouble(e -> first[e / KEYS] + second[e % KEYS])
                                .toArray();
                int[] best =
                        IntStream.range(0, sums.length)
                                .boxed()
                                .sorted(Comparator.comparingDouble(e -> -sums[e]))
                                .limit(TOP_K)
                                .mapToInt(e -> e)
                                .toArray();
                double total = Arrays.stream(best).mapToDouble(e -> Math.exp(sums[e])).sum();
                for (int e : best) {
                    double w =
                            score == Score.SOFTMAX
                                    ? Math.exp(sums[e]) / total
                                    : 1 / (1 + Math.exp(-sums[e]));
                    addExpert(weights.experts(), e, w, x, t, y);
                }
            }
        }
        return y;
    }

    private static double[] scores(PeerWeights weights, int half, Tensor x, int token, int head) {
        double[] scores = new double[KEYS];
        for (int d = 0; d < WIDTH; d++) {
            int row = half * HEADS * WIDTH + head * WIDTH + d;
            Tensor bias = weights.queryBias();
            double query = bias == null ? 0 : bias.getDouble(row);
            for (int h = 0; h < HIDDEN; h++) {
                double weight = weights.queries().getDouble((long) row * HIDDEN + h);
                query += weight * x.getDouble((long) token * HIDDEN + h);
            }
            for (int key = 0; key < KEYS; key++) {
                int at = (half * KEYS + key) * WIDTH + d;
                scores[key] += query * weights.keys().getDouble(at);
            }
        }
        return scores;
    }

    private static void addExpert(
            SingletonExperts experts, int expert, double weight, Tensor x, int token, Tensor y) {
        double sum = 0;
        for (int h = 0; h < HIDDEN; h++) {
            double up = experts.up().getDouble((long) expert * HIDDEN + h);
            sum += up * x.getDouble((long) token * HIDDEN + h);
        }
        for (int h = 0; h < HIDDEN; h++) {
            int at = token * HIDDEN + h;
            double down = experts.down().getDouble((long) expert * HIDDEN + h);
            y.setDouble(at, y.getDouble(at) + weight * Math.max(sum, 0) * down);
        }
    }

    /** 16-bit weights and tokens, twice the same bits; tensors on a device where there is one. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_repeatsItsBits(Backend backend) {
        try (Kernels kernels = backend.open();
                Arena arena = Arena.ofShared()) {
            PeerWeights weights = weights(arena, true, DType.BF16);
            try (PeerLayer layer = new PeerLayer(weights, TOP_K, Score.SOFTMAX, kernels, TOKENS)) {
                Tensor host = Cases.normal(arena, DType.BF16, 9, TOKENS, HIDDEN);
                Tensor x = kernels.allocate(arena, DType.BF16, TOKENS, HIDDEN);
                kernels.copy(host, x);
                Tensor there = kernels.allocate(arena, DType.F32, TOKENS, HIDDEN);
                Tensor first = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                Tensor second = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                layer.forward(host, first);
                layer.forward(x, there);
                kernels.copy(there, second);
                assertThat(second.data().mismatch(first.data())).isEqualTo(-1);
            }
        }
    }

    @Test
    void weights_areCheckedAgainstEachOther() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor bank = Tensor.allocate(arena, DType.F32, 9, 4);
            SingletonExperts experts =
                    new SingletonExperts(bank, bank, Activation.of(Activation.Kind.GELU));
            Tensor keys = Tensor.allocate(arena, DType.F32, 2, 3, 5);
            Tensor queries = Tensor.allocate(arena, DType.F32, 2, 10, 4);
            assertThat(new PeerWeights(queries, null, keys, experts).heads()).isEqualTo(2);
            Tensor four = Tensor.allocate(arena, DType.F32, 2, 4, 5);
            Tensor eleven = Tensor.allocate(arena, DType.F32, 2, 11, 4);
            Tensor bias = Tensor.allocate(arena, DType.F32, 2, 9);
            assertRefused(
                    queries, null, four, experts, "experts: expected the square of numKeys=4");
            assertRefused(eleven, null, keys, experts, "queries: expected [2, a multiple of");
            assertRefused(queries, bias, keys, experts, "queryBias: expected F32 [halves=2");
            assertRefused(queries, null, queries, experts, "queries: expected [2, a multiple of");
        }
    }

    private static void assertRefused(
            Tensor queries,
            @Nullable Tensor bias,
            Tensor keys,
            SingletonExperts experts,
            String message) {
        assertThatThrownBy(() -> new PeerWeights(queries, bias, keys, experts))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageStartingWith(message);
    }

    @Test
    void layer_refusesWhatItCannotDo() {
        try (Kernels kernels = Backend.REFERENCE.open();
                Arena arena = Arena.ofShared()) {
            PeerWeights weights = weights(arena, false, DType.F32);
            assertThatThrownBy(() -> new PeerLayer(weights, 82, Score.SOFTMAX, kernels, 1))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("topK: expected 1 to numExperts=81, got 82");
            assertThatThrownBy(() -> new PeerLayer(weights, 4, Score.SOFTMAX, kernels, -1))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("maxTokens: expected 0 to 178956970, got -1");
            PeerLayer layer = new PeerLayer(weights, 4, Score.SOFTMAX, kernels, 2);
            Tensor x = Tensor.allocate(arena, DType.F32, 3, HIDDEN);
            Tensor y = Tensor.allocate(arena, DType.F32, 3, HIDDEN);
            assertThatThrownBy(() -> layer.forward(x, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "x: expected at most maxTokens=2 tokens, got 3; make the layer for"
                                    + " more");
            assertThatThrownBy(() -> layer.forward(x.slice(0, 2), y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("y: expected");
            layer.close();
            layer.close();
            assertThatThrownBy(() -> layer.forward(x.slice(0, 2), y.slice(0, 2)))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("layer: closed; make a new one");
        }
    }
}
