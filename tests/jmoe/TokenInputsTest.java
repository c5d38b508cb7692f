package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.CapacityLimit;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.RouterWeights;
import jmoe.ops.Selection;
import jmoe.ops.TokenInputs;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;

/** Layers that read more of their tokens than x: ids, who is protected; and active experts. */
final class TokenInputsTest {
    private static final int TOKENS = 7;
    private static final int EXPERTS = 5;
    private static final int HIDDEN = 16;
    private static final int INTERMEDIATE = 8;
    private static final int VOCABULARY = 11;

    /** The active experts of two token types. */
    private static final Integer[] FIRST = {0, 2};

    private static final Integer[] SECOND = {1, 3};

    /** Relative to the largest value; sums of 16 products in F32. */
    private static final double TOLERANCE = 5e-6;

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(backend -> backend.unavailable().isEmpty());
    }

    /** Numbers that BF16 holds. */
    private static Tensor random(Arena arena, DType type, int seed, long... shape) {
        SplittableRandom random = new SplittableRandom(seed);
        Tensor tensor = Tensor.allocate(arena, type, shape);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextInt(-64, 65) / 64.0);
        }
        return tensor;
    }

    private static Tensor ints(Arena arena, int... values) {
        Tensor tensor = Tensor.allocate(arena, DType.I32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setInt(i, values[i]);
        }
        return tensor;
    }

    /** Two experts of each id; expert 5 and -1 are none. */
    private static Tensor table(Arena arena) {
        Tensor table = Tensor.allocate(arena, DType.I32, VOCABULARY, 2);
        for (int id = 0; id < VOCABULARY; id++) {
            table.setInt(2L * id, id % 6);
            table.setInt(2L * id + 1, (id + 2) % 6 - 1);
        }
        return table;
    }

    private static RouterConfig rule(Selection selection, @Nullable Capacity capacity) {
        return new RouterConfig(
                EXPERTS,
                2,
                Score.SOFTMAX,
                selection,
                new Normalisation.Sum(0),
                1.5,
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    private static MoeConfig config(RouterConfig rule) {
        return new MoeConfig(
                "test",
                HIDDEN,
                HIDDEN,
                EXPERTS,
                0,
                Activation.SWIGLU,
                List.of(rule),
                List.of(INTERMEDIATE),
                0,
                false,
                1);
    }

    private static MoeWeights weights(Arena arena, RouterWeights router) {
        ExpertWeights experts =
                new ExpertWeights(
                        random(arena, DType.BF16, 1, EXPERTS, 2 * INTERMEDIATE, HIDDEN),
                        random(arena, DType.BF16, 2, EXPERTS, HIDDEN, INTERMEDIATE),
                        null,
                        null,
                        Activation.SWIGLU);
        return new MoeWeights(List.of(router), List.of(experts), null, null, null, null, null);
    }

    private static MoeLayer layer(Arena arena, RouterConfig rule, Kernels kernels) {
        RouterWeights router =
                rule.selection() instanceof Selection.Hash
                        ? RouterWeights.ofHash(HIDDEN, table(arena))
                        : new RouterWeights(
                                random(arena, DType.BF16, 3, 1, EXPERTS, HIDDEN), null, null);
        return new MoeLayer(config(rule), weights(arena, router), kernels);
    }

    /** One expert on one token, as its formula says. */
    private static double[] expert(ExpertWeights bank, int e, Tensor x, int token) {
        double[] y = new double[HIDDEN];
        for (int i = 0; i < INTERMEDIATE; i++) {
            double gate = 0;
            double up = 0;
            for (int h = 0; h < HIDDEN; h++) {
                double value = x.getDouble((long) token * HIDDEN + h);
                long row = 2L * INTERMEDIATE * e + i;
                gate += value * bank.gateUp().getDouble(row * HIDDEN + h);
                up += value * bank.gateUp().getDouble((row + INTERMEDIATE) * HIDDEN + h);
            }
            double hidden = gate / (1 + Math.exp(-gate)) * up;
            for (int h = 0; h < HIDDEN; h++) {
                long at = ((long) e * HIDDEN + h) * INTERMEDIATE + i;
                y[h] += hidden * bank.down().getDouble(at);
            }
        }
        return y;
    }

    private static void assertHashed(Arena arena, Tensor x, Tensor ids, Tensor got) {
        ExpertWeights bank = weights(arena, RouterWeights.ofHash(HIDDEN, null)).experts().get(0);
        Tensor table = table(arena);
        for (int token = 0; token < x.dim(0); token++) {
            double[] want = new double[HIDDEN];
            int id = ids.getInt(token);
            int chosen = 0;
            for (int k = 0; k < 2 && id >= 0 && id < VOCABULARY; k++) {
                int e = table.getInt(2L * id + k);
                if (e >= 0 && e < EXPERTS) {
                    chosen++;
                    double[] y = expert(bank, e, x, token);
                    for (int h = 0; h < HIDDEN; h++) {
                        want[h] += y[h];
                    }
                }
            }
            double largest = 1e-3;
            for (int h = 0; h < HIDDEN; h++) {
                want[h] *= chosen == 0 ? 0 : 1.5 / chosen;
                largest = Math.max(largest, Math.abs(want[h]));
            }
            for (int h = 0; h < HIDDEN; h++) {
                assertThat(Math.abs(got.getDouble((long) token * HIDDEN + h) - want[h]))
                        .as("token %d of id %d", token, id)
                        .isLessThan(TOLERANCE * largest);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_byHash_sendsTokensWhereTheTableSays(Backend backend) {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2);
                MoeLayer layer = layer(arena, rule(new Selection.Hash(), null), kernels);
                Workspace workspace = layer.workspace(TOKENS);
                CapturedLayer captured = layer.capture(TOKENS);
                Arena device = Arena.ofShared()) {
            assertThat(workspace.numBytes()).isEqualTo(layer.workspaceBytes(TOKENS));
            Tensor x = random(arena, DType.F32, 5, TOKENS, HIDDEN);
            Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
            Tensor ids = ints(arena, 3, 0, 5, 3, VOCABULARY, -1, 4);
            layer.forward(x, TokenInputs.NONE.withTokenIds(ids), y, workspace);
            assertHashed(arena, x, ids, y);
            assertThat(workspace.routerLogits().shape()).containsExactly(TOKENS, 0);
            // Ids and x where the backend computes.
            Tensor there = kernels.allocate(device, DType.I32, TOKENS);
            kernels.copy(ids, there);
            Tensor again = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
            layer.forward(x, TokenInputs.NONE.withTokenIds(there), again, workspace);
            assertThat(again.data().mismatch(y.data())).isEqualTo(-1);
            kernels.copy(x, captured.x());
            for (int tokens : new int[] {TOKENS, 3, 0, 5}) {
                Tensor other = ids.slice(TOKENS - tokens, tokens);
                kernels.copy(other, captured.tokenIds().slice(0, tokens));
                captured.replay(tokens);
                kernels.copy(captured.y().slice(0, tokens), y.slice(0, tokens));
                assertHashed(arena, x.slice(0, tokens), other, y);
            }
        }
    }

    /** In 16 bits, where a device has a kernel for everything if all experts are active. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_choosesActiveExpertsOnly(Backend backend) {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2);
                MoeLayer layer = layer(arena, rule(new Selection.TopK(), null), kernels);
                Workspace workspace = layer.workspace(TOKENS, DType.BF16);
                CapturedLayer captured = layer.capture(TOKENS, DType.BF16, DType.BF16)) {
            Tensor x = random(arena, DType.BF16, 6, TOKENS, HIDDEN);
            Tensor y = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
            Tensor replayed = Tensor.allocate(arena, DType.BF16, TOKENS, HIDDEN);
            kernels.copy(x, captured.x());
            int[][] choices = {
                {1, 1, 1, 1, 1}, {0, 1, 0, 1, 1}, {0, 0, 7, 0, 0}, {}, {1, 1, 0, 1, 1}
            };
            Tensor first = null;
            for (int[] choice : choices) {
                Tensor active = choice.length == 0 ? null : ints(arena, choice);
                workspace.setActiveExperts(active);
                captured.workspace().setActiveExperts(active);
                layer.forward(x, y, workspace);
                captured.replay(TOKENS);
                kernels.copy(captured.y(), replayed);
                assertThat(replayed.data().mismatch(y.data())).isEqualTo(-1);
                assertActive(workspace, choice);
                // All are active: the first time each one, then as if nobody had asked.
                if (first == null) {
                    first = y.copy(arena);
                } else if (choice.length == 0) {
                    assertThat(y.data().mismatch(first.data())).isEqualTo(-1);
                }
            }
        }
    }

    /** One token type after the other. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_choosesActiveExpertsOfEachType(Backend backend) {
        List<RouterConfig> rules = new ArrayList<>();
        for (int type = 0; type < 2; type++) {
            RouterConfig all = rule(new Selection.TopK(), null);
            rules.add(
                    new RouterConfig(
                            EXPERTS,
                            2,
                            all.score(),
                            all.selection(),
                            all.normalisation(),
                            all.factor(),
                            false,
                            null,
                            type));
        }
        MoeConfig config =
                new MoeConfig(
                        "test",
                        HIDDEN,
                        HIDDEN,
                        EXPERTS,
                        0,
                        Activation.SWIGLU,
                        rules,
                        List.of(INTERMEDIATE, INTERMEDIATE),
                        0,
                        false,
                        1);
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2)) {
            RouterWeights router =
                    new RouterWeights(random(arena, DType.BF16, 3, 1, EXPERTS, HIDDEN), null, null);
            ExpertWeights bank = weights(arena, router).experts().getFirst();
            MoeWeights weights =
                    new MoeWeights(
                            List.of(router, router),
                            List.of(bank, bank),
                            null,
                            null,
                            null,
                            null,
                            null);
            try (MoeLayer layer = new MoeLayer(config, weights, kernels);
                    Workspace workspace = layer.workspace(TOKENS)) {
                Tensor x = random(arena, DType.F32, 6, TOKENS, HIDDEN);
                Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
                Tensor types = ints(arena, 0, 1, 1, 0, 1, 0, 0);
                workspace.setActiveExperts(ints(arena, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0));
                layer.forward(x, types, y, workspace);
                for (int token = 0; token < TOKENS; token++) {
                    Integer[] active = types.getInt(token) == 0 ? FIRST : SECOND;
                    Integer[] chosen = {
                        workspace.topkIds().getInt(2L * token),
                        workspace.topkIds().getInt(2L * token + 1)
                    };
                    assertThat(chosen).containsExactlyInAnyOrder(active);
                }
            }
        }
    }

    /** The best active experts by their logits, and the softmax over them. */
    private static void assertActive(Workspace workspace, int[] choice) {
        Tensor logits = workspace.routerLogits();
        for (int token = 0; token < TOKENS; token++) {
            int best = -1;
            int second = -1;
            for (int e = 0; e < EXPERTS; e++) {
                if (choice.length > 0 && choice[e] == 0) {
                    continue;
                }
                double z = logits.getDouble((long) token * EXPERTS + e);
                if (best < 0 || z > logits.getDouble((long) token * EXPERTS + best)) {
                    second = best;
                    best = e;
                } else if (second < 0 || z > logits.getDouble((long) token * EXPERTS + second)) {
                    second = e;
                }
            }
            assertThat(workspace.topkIds().getInt(2L * token)).isEqualTo(best);
            assertThat(workspace.topkIds().getInt(2L * token + 1)).isEqualTo(second);
            double sum =
                    workspace.topkWeights().getDouble(2L * token)
                            + workspace.topkWeights().getDouble(2L * token + 1);
            assertThat(Math.abs(sum - 1.5)).isLessThan(TOLERANCE);
        }
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_neverDropsProtectedTokens(Backend backend) {
        Capacity none = new Capacity(new CapacityLimit.Tokens(0), Capacity.Priority.WEIGHT, false);
        try (Arena arena = Arena.ofShared();
                Kernels kernels = backend.open(2);
                MoeLayer dropless = layer(arena, rule(new Selection.TopK(), null), kernels);
                MoeLayer layer = layer(arena, rule(new Selection.TopK(), none), kernels);
                Workspace ofDropless = dropless.workspace(TOKENS);
                Workspace workspace = layer.workspace(TOKENS);
                CapturedLayer captured = layer.capture(TOKENS)) {
            Tensor x = random(arena, DType.F32, 7, TOKENS, HIDDEN);
            Tensor all = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
            dropless.forward(x, all, ofDropless);
            kernels.copy(x, captured.x());
            captured.replay(TOKENS);
            Tensor y = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
            kernels.copy(captured.y(), y);
            assertThat(y.getDouble(0)).isZero();
            Tensor stay = ints(arena, 0, 1, 0, 0, -3, 0, 1);
            layer.forward(x, TokenInputs.NONE.withProtectedTokens(stay), y, workspace);
            kernels.copy(stay, captured.protectedTokens());
            captured.replay(TOKENS);
            Tensor replayed = Tensor.allocate(arena, DType.F32, TOKENS, HIDDEN);
            kernels.copy(captured.y(), replayed);
            assertThat(replayed.data().mismatch(y.data())).isEqualTo(-1);
            for (int token = 0; token < TOKENS; token++) {
                for (int h = 0; h < HIDDEN; h++) {
                    double want = stay.getInt(token) == 0 ? 0 : all.row(token).getDouble(h);
                    assertThat(y.row(token).getDouble(h)).isEqualTo(want);
                }
            }
        }
    }

    @Test
    void forward_refusesWhatItCannotRead() {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = Backend.REFERENCE.open();
                MoeLayer hash = layer(arena, rule(new Selection.Hash(), null), kernels);
                MoeLayer best = layer(arena, rule(new Selection.TopK(), null), kernels);
                Workspace ofHash = hash.workspace(3);
                Workspace ofBest = best.workspace(3);
                CapturedLayer captured = best.capture(3)) {
            Tensor x = random(arena, DType.F32, 5, 3, HIDDEN);
            Tensor y = Tensor.allocate(arena, DType.F32, 3, HIDDEN);
            Tensor two = ints(arena, 1, 2);
            Tensor three = ints(arena, 1, 2, 3);
            assertThatThrownBy(() -> hash.forward(x, y, ofHash))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith(
                            "tokenIds: expected I32 [tokens=3] for a layer that routes by Hash,"
                                    + " got none");
            TokenInputs few = TokenInputs.NONE.withTokenIds(two);
            assertThatThrownBy(() -> hash.forward(x, few, y, ofHash))
                    .hasMessage("tokenIds: expected I32 [tokens=3], got I32 [2]");
            TokenInputs floats = TokenInputs.NONE.withTokenIds(random(arena, DType.F32, 1, 3));
            assertThatThrownBy(() -> hash.forward(x, floats, y, ofHash))
                    .hasMessage("tokenIds: expected I32 [tokens=3], got F32 [3]");
            TokenInputs ids = TokenInputs.NONE.withTokenIds(three);
            assertThatThrownBy(() -> best.forward(x, ids, y, ofBest))
                    .hasMessage(
                            "tokenIds: expected none for a layer that does not route by Hash, got"
                                    + " I32 [3]");
            TokenInputs stay = TokenInputs.NONE.withProtectedTokens(three);
            assertThatThrownBy(() -> best.forward(x, stay, y, ofBest))
                    .hasMessage(
                            "protectedTokens: expected none for a layer without a capacity, which"
                                    + " drops nobody, got I32 [3]");
            assertThatThrownBy(captured::tokenIds)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("tokenIds: not read by this layer");
            assertThatThrownBy(captured::protectedTokens)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("protectedTokens: not read by this layer");
            assertThatThrownBy(() -> ofBest.setActiveExperts(two))
                    .hasMessage(
                            "activeExperts: expected I32 [numTokenTypes * numExperts=5], got I32"
                                    + " [2]");
            Tensor five = ints(arena, 1, 0, 1, 1, 1);
            assertThatThrownBy(() -> ofHash.setActiveExperts(five))
                    .hasMessage("activeExperts: expected none with Hash[], got I32 [5]");
            // What was refused changed nothing.
            hash.forward(x, ids, y, ofHash);
        }
    }

    @Test
    void layer_refusesATableThatItsRuleCannotRead() {
        try (Arena arena = Arena.ofShared();
                Kernels kernels = Backend.REFERENCE.open()) {
            Tensor narrow = Tensor.allocate(arena, DType.I32, VOCABULARY, 3);
            MoeWeights wrong = weights(arena, RouterWeights.ofHash(HIDDEN, narrow));
            MoeConfig hash = config(rule(new Selection.Hash(), null));
            assertThatThrownBy(() -> new MoeLayer(hash, wrong, kernels))
                    .hasMessageStartingWith("hashTable: expected I32 [vocabulary=11, topK=2], got");
            Tensor weight = random(arena, DType.BF16, 3, 1, EXPERTS, HIDDEN);
            RouterWeights both =
                    new RouterWeights(weight, null, null, null, null, null, table(arena));
            MoeConfig best = config(rule(new Selection.TopK(), null));
            assertThatThrownBy(() -> new MoeLayer(best, weights(arena, both), kernels))
                    .hasMessageStartingWith("hashTable: expected none, because only Hash reads it");
        }
    }
}
