package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Kernels.Residual;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.Combinators;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;
import net.jqwik.api.lifecycle.AfterProperty;
import net.jqwik.api.lifecycle.BeforeProperty;

import java.lang.foreign.Arena;
import java.util.BitSet;
import java.util.List;

/** What holds for any ids and any logits, on every backend; a subclass opens one. */
public abstract class PermutationProperties {
    private Kernels kernels;

    /**
     * Opens a backend.
     *
     * @return a new instance; closed after each property
     */
    protected abstract Kernels kernels();

    /** The backend of the running property. */
    final Kernels backend() {
        return kernels;
    }

    @BeforeProperty
    final void openBackend() {
        kernels = kernels();
    }

    @AfterProperty
    final void closeBackend() {
        if (kernels != null) {
            kernels.close();
        }
    }

    /** Ids of some tokens for some experts, many of them out of range. */
    record Ids(int numExperts, int topK, List<Integer> ids) {}

    @Provide
    Arbitrary<Ids> ids() {
        Arbitrary<Integer> experts = Arbitraries.integers().between(1, 20);
        Arbitrary<Integer> topK = Arbitraries.integers().between(1, 6);
        return Combinators.combine(experts, topK)
                .flatAs((e, k) ->
                        Arbitraries.oneOf(
                                        Arbitraries.integers().between(0, e - 1),
                                        Arbitraries.integers().between(-2, e + 1),
                                        Arbitraries.integers())
                                .list()
                                .ofMaxSize(90)
                                .map(ids -> new Ids(e, k, ids.subList(0, ids.size() / k * k))));
    }

    private Routing sorted(Arena arena, Ids given) {
        int slots = given.ids.size();
        Routing routing = Routing.allocate(arena, slots / given.topK, given.topK, given.numExperts);
        for (int slot = 0; slot < slots; slot++) {
            routing.topkIds().setInt(slot, given.ids.get(slot));
        }
        kernels.sortByExpert(routing);
        return routing;
    }

    @Property(tries = 500)
    void sortByExpert_isStableBijectionOnValidSlots(@ForAll("ids") Ids given) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = sorted(arena, given);
            BitSet seen = new BitSet();
            int rows = Cases.rows(routing.expertOffsets());
            int expert = 0;
            for (int row = 0; row < rows; row++) {
                while (routing.expertOffsets().getInt(expert + 1) <= row) {
                    expert++;
                }
                int slot = routing.rowToSlot().getInt(row);
                assertThat(given.ids.get(slot)).isEqualTo(expert);
                assertThat(routing.slotToRow().getInt(slot)).isEqualTo(row);
                if (row > routing.expertOffsets().getInt(expert)) {
                    assertThat(slot).isGreaterThan(routing.rowToSlot().getInt(row - 1));
                }
                seen.set(slot);
            }
            for (int slot = 0; slot < given.ids.size(); slot++) {
                int id = given.ids.get(slot);
                boolean valid = id >= 0 && id < given.numExperts;
                assertThat(seen.get(slot)).isEqualTo(valid);
                assertThat(routing.slotToRow().getInt(slot) == -1).isEqualTo(!valid);
            }
        }
    }

    @Property(tries = 200)
    void permute_isAdjointOfUnpermute(@ForAll("ids") Ids given, @ForAll long seed) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = sorted(arena, given);
            Cases.weights(routing.topkWeights(), seed);
            long tokens = routing.tokens();
            int hidden = 3;
            Tensor x = Cases.normal(arena, DType.F32, seed, tokens, hidden);
            Tensor r = Cases.normal(arena, DType.F32, seed + 1, given.ids.size(), hidden);
            Tensor px = Tensor.allocate(arena, DType.F32, given.ids.size(), hidden);
            Tensor ur = Tensor.allocate(arena, DType.F32, tokens, hidden);
            kernels.permute(x, routing, routing.topkWeights(), px);
            kernels.unpermute(r, routing, routing.topkWeights(), Residual.NONE, ur);
            // Each product once: the sums differ only in how terms are grouped.
            double left = 0;
            double[] terms = new double[given.ids.size() * hidden];
            for (int row = 0; row < Cases.rows(routing.expertOffsets()); row++) {
                int slot = routing.rowToSlot().getInt(row);
                double weight = routing.topkWeights().getDouble(slot);
                for (int h = 0; h < hidden; h++) {
                    long i = (long) row * hidden + h;
                    double xValue = x.getDouble((long) (slot / given.topK) * hidden + h);
                    terms[(int) i] = weight * xValue * r.getDouble(i);
                    left += px.getDouble(i) * r.getDouble(i);
                }
            }
            double right = 0;
            for (long i = 0; i < x.numElements(); i++) {
                right += x.getDouble(i) * ur.getDouble(i);
            }
            Tolerance.assertSum("permute", given.toString(), left, terms);
            Tolerance.assertSum("unpermute", given.toString(), right, terms);
        }
    }

    @Property(tries = 200)
    void unpermute_ofPermute_multipliesByNumberOfRows(@ForAll("ids") Ids given, @ForAll long seed) {
        try (Arena arena = Arena.ofConfined()) {
            Routing routing = sorted(arena, given);
            Tensor x = Cases.normal(arena, DType.BF16, seed, routing.tokens(), 2);
            Tensor rows = Tensor.allocate(arena, DType.BF16, given.ids.size(), 2);
            Tensor y = Tensor.allocate(arena, DType.F32, routing.tokens(), 2);
            kernels.permute(x, routing, null, rows);
            kernels.unpermute(rows, routing, null, Residual.NONE, y);
            for (int t = 0; t < routing.tokens(); t++) {
                int count = 0;
                for (int k = 0; k < given.topK; k++) {
                    count += routing.slotToRow().getInt((long) t * given.topK + k) < 0 ? 0 : 1;
                }
                assertThat(y.getDouble(2L * t)).isEqualTo(count * x.getDouble(2L * t));
            }
        }
    }

    @Provide
    Arbitrary<Selection> selections() {
        return Arbitraries.of(
                new Selection.TopK(),
                new Selection.GroupLimited(4, 2, GroupScore.MAX),
                new Selection.GroupLimited(4, 1, GroupScore.TOP2_SUM),
                new Selection.SparseMixer(0.01),
                new Selection.ProductKeys(4));
    }

    /** Logits of arbitrary bits: every NaN, infinity and subnormal there is. */
    @Property(tries = 1000)
    void route_givesUniqueIdsInRange(
            @ForAll("selections") Selection selection,
            @ForAll Score score,
            @ForAll int[] bits,
            @ForAll boolean biased) {
        int topK = 2;
        RouterConfig config =
                new RouterConfig(
                        16,
                        topK,
                        score,
                        selection,
                        new Normalisation.Sum(0),
                        1,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(arena, DType.F32, 2, config.numLogits());
            for (int i = 0; i < logits.numElements() && bits.length > 0; i++) {
                logits.setInt(i, bits[i % bits.length]);
            }
            boolean takesBias = biased && !(selection instanceof Selection.ProductKeys);
            Tensor bias = takesBias ? logits.slice(1, 1).reshape(16) : null;
            Routing routing = Routing.allocate(arena, 2, topK, 16);
            kernels.route(logits, config, new RouteInputs(bias, null), routing);
            for (int t = 0; t < 2; t++) {
                int first = routing.topkIds().getInt(2L * t);
                int second = routing.topkIds().getInt(2L * t + 1);
                assertThat(first).isBetween(0, 15);
                assertThat(second).isBetween(0, 15).isNotEqualTo(first);
            }
        }
    }
}
