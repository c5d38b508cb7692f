package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** Routing by a token's id. */
interface RouteHashContract extends Contract {
    private static RouterConfig hash(
            int experts, int topK, Normalisation normalisation, @Nullable Capacity capacity) {
        return new RouterConfig(
                experts,
                topK,
                Score.SOFTMAX,
                new Selection.Hash(),
                normalisation,
                2,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    /** The k-th choice as its definition says it, in 64 bits. */
    private static List<Integer> hashed(int id, int experts, int topK) {
        List<Integer> chosen = new ArrayList<>();
        long mask = 0xffffffffL;
        for (int k = 0; k < topK; k++) {
            long x = (id + k * 0x9e3779b9L) & mask;
            x = ((x ^ (x >> 16)) * 0x85ebca6bL) & mask;
            x = ((x ^ (x >> 13)) * 0xc2b2ae35L) & mask;
            int expert = (int) ((x ^ (x >> 16)) % experts);
            while (chosen.contains(expert)) {
                expert = (expert + 1) % experts;
            }
            chosen.add(expert);
        }
        return chosen;
    }

    @Test
    default void route_byHash_isAFunctionOfTheId() {
        int[][] sizes = {{1, 1}, {7, 1}, {8, 2}, {6, 6}, {2048, 8}};
        for (int[] size : sizes) {
            try (Arena arena = Arena.ofConfined()) {
                int tokens = 300;
                Tensor ids = Tensor.allocate(arena, DType.I32, tokens);
                for (int t = 0; t < tokens; t++) {
                    ids.setInt(t, t < 200 ? t : Integer.MAX_VALUE - t);
                }
                Routing got =
                        routed(arena, hash(size[0], size[1], new Normalisation.None(), null), ids);
                for (int t = 0; t < tokens; t++) {
                    assertThat(ints(got.topkIds().row(t)))
                            .as("id %d of %d", ids.getInt(t), size[0])
                            .isEqualTo(hashed(ids.getInt(t), size[0], size[1]));
                    assertThat(got.topkWeights().getDouble((long) t * size[1])).isEqualTo(2);
                }
            }
        }
    }

    @Test
    default void route_byHash_spreadsIdsEvenly() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor ids = Tensor.allocate(arena, DType.I32, 4000);
            for (int t = 0; t < 4000; t++) {
                ids.setInt(t, t);
            }
            Routing got = routed(arena, hash(8, 2, new Normalisation.None(), null), ids);
            int[] counts = new int[8];
            ints(got.topkIds()).forEach(e -> counts[e]++);
            // Five deviations of a thousand in each.
            for (int count : counts) {
                assertThat(count).isBetween(850, 1150);
            }
        }
    }

    @Test
    default void route_byHashTable_leavesOutWhatIsNotThere() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor ids = tensor(arena, 2, -1, 3, 0, 1, Integer.MIN_VALUE);
            // Of four experts; 4 and -5 are none.
            Tensor table = tensor(arena, 3, 1, /**/ 4, 2, /**/ 0, -5).reshape(3, 2);
            RouteInputs inputs =
                    RouteInputs.NONE
                            .withTokenIds(ids, table)
                            .withExpertScale(floats(arena, 1, 10, 100, 1000));
            Routing got = Routing.allocate(arena, 6, 2, 4);
            RouterConfig halves = hash(4, 2, new Normalisation.Sum(0), null);
            backend().route(noLogits(arena, 6), halves, inputs, got);
            assertThat(ints(got.topkIds()))
                    .containsExactly(0, -1, -1, -1, -1, -1, 3, 1, -1, 2, -1, -1);
            assertThat(doubles(got.topkWeights()))
                    .containsExactly(
                            2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1000.0, 10.0, 0.0, 200.0, 0.0, 0.0);
        }
    }

    @Test
    default void route_byHash_queuesByPositionAndLeavesOutOtherTypes() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor ids = tensor(arena, 0, 0, 0, 1);
            Tensor table = tensor(arena, 1, 2, /**/ 2, 1).reshape(2, 2);
            Capacity two =
                    new Capacity(new CapacityLimit.Tokens(2), Capacity.Priority.POSITION, true);
            Routing got = Routing.allocate(arena, 4, 2, 3);
            RouteInputs inputs =
                    RouteInputs.NONE
                            .withTokenIds(ids, table)
                            .withTokenTypes(tensor(arena, 0, -1, 0, 0));
            RouterConfig config = hash(3, 2, new Normalisation.Sum(0), two);
            backend().route(noLogits(arena, 4), config, inputs, got);
            assertThat(ints(got.topkIds())).containsExactly(1, 2, -1, -1, 1, 2, 2, 1);
            // Expert 1 has two first choices; expert 2 a first and the first second choice.
            assertThat(doubles(got.topkWeights()))
                    .containsExactly(1.0, 1.0, 0.0, 0.0, 2.0, 0.0, 2.0, 0.0);
        }
    }

    @Test
    default void route_byHash_refusesWhatItCannotRead() {
        try (Arena arena = Arena.ofConfined()) {
            RouterConfig config = hash(4, 2, new Normalisation.None(), null);
            Routing to = Routing.allocate(arena, 1, 2, 4);
            Tensor none = noLogits(arena, 1);
            assertThatThrownBy(() -> backend().route(none, config, RouteInputs.NONE, to))
                    .hasMessage("tokenIds: expected I32 [tokens=1] with Hash, got none");
            RouteInputs flat = RouteInputs.NONE.withTokenIds(tensor(arena, 1), tensor(arena, 1, 2));
            assertThatThrownBy(() -> backend().route(none, config, flat, to))
                    .hasMessage("hashTable: expected I32 [vocabulary, topK=2], got I32 [2]");
            Tensor logits = Tensor.allocate(arena, DType.F32, 1, 4);
            RouterConfig other = RouterConfig.softmaxTopK(4, 2, true);
            RouteInputs ids = RouteInputs.NONE.withTokenIds(tensor(arena, 1), null);
            assertThatThrownBy(() -> backend().route(logits, other, ids, to))
                    .hasMessage("tokenIds: expected none, because only Hash reads it, got I32 [1]");
            RouteInputs active = ids.withActiveExperts(tensor(arena, 1, 1, 1, 1));
            assertThatThrownBy(() -> backend().route(none, config, active, to))
                    .hasMessage("activeExperts: expected none with Hash[], got I32 [4]");
        }
    }

    private Routing routed(Arena arena, RouterConfig config, Tensor ids) {
        int tokens = (int) ids.numElements();
        Routing routing = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
        RouteInputs inputs = RouteInputs.NONE.withTokenIds(ids, null);
        backend().route(noLogits(arena, tokens), config, inputs, routing);
        return routing;
    }

    private static Tensor noLogits(Arena arena, int tokens) {
        return Tensor.allocate(arena, DType.F32, tokens, 0);
    }

    private static Tensor tensor(Arena arena, int... values) {
        Tensor tensor = Tensor.allocate(arena, DType.I32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setInt(i, values[i]);
        }
        return tensor;
    }

    private static Tensor floats(Arena arena, double... values) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setDouble(i, values[i]);
        }
        return tensor;
    }

    private static List<Integer> ints(Tensor tensor) {
        List<Integer> values = new ArrayList<>();
        for (long i = 0; i < tensor.numElements(); i++) {
            values.add(tensor.getInt(i));
        }
        return values;
    }

    private static List<Double> doubles(Tensor tensor) {
        List<Double> values = new ArrayList<>();
        for (long i = 0; i < tensor.numElements(); i++) {
            values.add(tensor.getDouble(i));
        }
        return values;
    }
}
