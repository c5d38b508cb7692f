package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases.Logits;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/**
 * PEER by operations, {@link Kernels#route} by product keys for every head and {@link
 * Kernels#singletonExperts}, against all N experts looked at one after the other. He 2024, "Mixture
 * of A Million Experts".
 */
interface PeerContract extends Contract {
    /** Tokens, heads, keys of a half, topK, hidden; few tokens for slow backends. */
    static Stream<int[]> peers() {
        int maxTokens = Integer.getInteger(Cases.MAX_TOKENS_PROPERTY, Integer.MAX_VALUE);
        return Stream.of(
                        new int[] {0, 2, 3, 2, 5},
                        new int[] {1, 1, 1, 1, 1},
                        new int[] {1, 8, 16, 16, 33},
                        new int[] {5, 3, 7, 4, 21},
                        new int[] {33, 2, 32, 8, 16})
                .filter(peer -> peer[0] <= maxTokens);
    }

    @ParameterizedTest
    @MethodSource("peers")
    default void peer_isWhatTheEquationsSay(int[] peer) {
        int tokens = peer[0];
        int heads = peer[1];
        int keys = peer[2];
        int topK = peer[3];
        int hidden = peer[4];
        for (Score score : new Score[] {Score.SOFTMAX, Score.SIGMOID}) {
            try (Arena arena = Arena.ofConfined()) {
                int queries = tokens * heads;
                Tensor scores = Cases.normal(arena, DType.F32, 1, 2, queries, keys);
                RouterConfig rule = rule(keys, topK, score);
                Routing routing = Routing.allocate(arena, queries, topK, 1);
                Tensor logits = scores.reshape(queries, 2L * keys);
                backend().route(logits, rule, RouteInputs.NONE, routing);
                Tensor ids = routing.topkIds().reshape(tokens, (long) heads * topK);
                Tensor weights = routing.topkWeights().reshape(tokens, (long) heads * topK);
                Tensor want = Tensor.allocate(arena, DType.F32, weights.shape());
                for (int query = 0; query < queries; query++) {
                    double[] sums = sums(scores, query);
                    int[] best = best(sums, topK);
                    double[] w = weights(sums, best, score);
                    for (int k = 0; k < topK; k++) {
                        int slot = query * topK + k;
                        assertThat(ids.getInt(slot)).as("query %d", query).isEqualTo(best[k]);
                        want.setDouble(slot, w[k]);
                    }
                }
                Tolerance.assertClose("route", "PEER " + score, weights, want, topK);
                long experts = (long) keys * keys;
                SingletonExperts bank =
                        new SingletonExperts(
                                Cases.normal(arena, DType.F32, 2, experts, hidden),
                                Cases.normal(arena, DType.F32, 3, experts, hidden),
                                Activation.of(Activation.Kind.GELU));
                Tensor x = Cases.normal(arena, DType.F32, 4, tokens, hidden);
                Tensor y = Tensor.allocate(arena, DType.F32, tokens, hidden);
                backend().singletonExperts(x, ids, weights, bank, y);
                SingletonOracle oracle = new SingletonOracle(arena, x, ids, want, bank);
                int slots = heads * topK + 2;
                Tolerance.assertRounded(
                        "PEER", score.toString(), y, oracle.y, slots, DType.F32, oracle.squares);
            }
        }
    }

    /** The K best of n^2 sums are among the K^2 of the K best halves; of equals the lower id. */
    @Tag("broad")
    @ParameterizedTest
    @EnumSource(names = {"NORMAL", "TIES", "ALL_EQUAL"})
    default void route_findsTheBestOf4096ProductKeys(Logits kind) {
        int keys = 64;
        int topK = 16;
        int queries = 6;
        try (Arena arena = Arena.ofConfined()) {
            Tensor scores = Tensor.allocate(arena, DType.F32, 2, queries, keys);
            Cases.logits(scores, kind, 7);
            Routing routing = Routing.allocate(arena, queries, topK, 1);
            RouterConfig rule = rule(keys, topK, Score.SOFTMAX);
            Tensor logits = scores.reshape(queries, 2L * keys);
            backend().route(logits, rule, RouteInputs.NONE, routing);
            for (int query = 0; query < queries; query++) {
                int[] want = best(sums(scores, query), topK);
                int[] first = best(half(scores, 0, query), topK);
                int[] second = best(half(scores, 1, query), topK);
                for (int k = 0; k < topK; k++) {
                    assertThat(routing.topkIds().getInt((long) query * topK + k))
                            .as("query %d, place %d", query, k)
                            .isEqualTo(want[k]);
                    assertThat(first).contains(want[k] / keys);
                    assertThat(second).contains(want[k] % keys);
                }
            }
        }
    }

    @Tag("broad")
    @Test
    default void peer_hasAMillionExperts() {
        int keys = 1024;
        int topK = 16;
        int hidden = 4;
        try (Arena arena = Arena.ofConfined()) {
            Tensor scores = Cases.normal(arena, DType.F32, 8, 2, 2, keys);
            Routing routing = Routing.allocate(arena, 2, topK, 1);
            RouterConfig rule = rule(keys, topK, Score.SOFTMAX);
            Tensor logits = scores.reshape(2, 2L * keys);
            backend().route(logits, rule, RouteInputs.NONE, routing);
            for (int query = 0; query < 2; query++) {
                double[] sums = sums(scores, query);
                for (int k = 0; k < topK; k++) {
                    int id = routing.topkIds().getInt((long) query * topK + k);
                    long above = Arrays.stream(sums).filter(sum -> sum > sums[id]).count();
                    assertThat(above).as("experts above %d", id).isEqualTo(k);
                }
            }
            long experts = (long) keys * keys;
            // Both halves of the bank in one tensor, since numbers take long to draw.
            Tensor both = Cases.normal(arena, DType.F32, 9, experts, hidden);
            SingletonExperts bank =
                    new SingletonExperts(both, both, Activation.of(Activation.Kind.GELU));
            Tensor x = Cases.normal(arena, DType.F32, 11, 1, hidden);
            Tensor ids = routing.topkIds().reshape(1, 2L * topK);
            Tensor weights = routing.topkWeights().reshape(1, 2L * topK);
            Tensor y = Tensor.allocate(arena, DType.F32, 1, hidden);
            backend().singletonExperts(x, ids, weights, bank, y);
            SingletonOracle oracle = new SingletonOracle(arena, x, ids, weights, bank);
            String name = "a million experts";
            Tolerance.assertRounded(
                    "PEER", name, y, oracle.y, 2 * topK + 2, DType.F32, oracle.squares);
        }
    }

    private static RouterConfig rule(int keys, int topK, Score score) {
        return new RouterConfig(
                keys * keys,
                topK,
                score,
                new Selection.ProductKeys(keys),
                score == Score.SOFTMAX ? new Normalisation.Sum(0) : new Normalisation.None(),
                1,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    private static double[] half(Tensor scores, int half, int query) {
        int keys = (int) scores.dim(2);
        long first = (half * scores.dim(1) + query) * keys;
        return IntStream.range(0, keys).mapToDouble(i -> scores.getDouble(first + i)).toArray();
    }

    /** The scores of all experts. */
    private static double[] sums(Tensor scores, int query) {
        double[] first = half(scores, 0, query);
        double[] second = half(scores, 1, query);
        int keys = first.length;
        return IntStream.range(0, keys * keys)
                .mapToDouble(id -> first[id / keys] + second[id % keys])
                .toArray();
    }

    private static int[] best(double[] values, int count) {
        return IntStream.range(0, values.length)
                .boxed()
                .sorted(
                        Comparator.<Integer>comparingDouble(i -> -values[i])
                                .thenComparingInt(i -> i))
                .limit(count)
                .mapToInt(i -> i)
                .toArray();
    }

    /** Softmax over the chosen, or each by itself. */
    private static double[] weights(double[] sums, int[] chosen, Score score) {
        if (score == Score.SIGMOID) {
            return Arrays.stream(chosen).mapToDouble(id -> 1 / (1 + Math.exp(-sums[id]))).toArray();
        }
        double total = Arrays.stream(chosen).mapToDouble(id -> Math.exp(sums[id])).sum();
        return Arrays.stream(chosen).mapToDouble(id -> Math.exp(sums[id]) / total).toArray();
    }
}
