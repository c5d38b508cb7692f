package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.function.DoubleUnaryOperator;

/**
 * The reference with rows of x rounded as {@link Kernels#groupedGemm} allows, to see that the
 * contract lets it pass, and nothing coarser.
 */
final class RoundedRowsTest extends TestedBackend implements QuantisedContract {
    @Override
    protected Kernels kernels() {
        return new RoundedRows(Math::rint);
    }

    @Override
    public boolean computesQuantised() {
        return true;
    }

    @Test
    void roundsToNearest_seesTruncation() {
        assertSeen(new RoundedRows(q -> (int) q));
    }

    @Test
    void roundsToNearest_seesFewerSteps() {
        assertSeen(new RoundedRows(q -> 2 * Math.rint(q / 2)));
    }

    private static void assertSeen(Kernels coarse) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor weight = Cases.normal(arena, DType.F32, 2, 3, 272, 512);
            Tensor quantised = Quantisation.of(weight, arena);
            Tensor x = Cases.normal(arena, DType.F32, 1, 70, 512);
            Tensor offsets = Cases.offsets(arena, 1, 37, 32);
            Tensor got = Tensor.allocate(arena, DType.F32, 70, 272);
            coarse.groupedGemm(x, quantised, null, offsets, got);
            Tensor want = Tensor.allocate(arena, DType.F64, 70, 272);
            new ReferenceKernels().groupedGemm(x, quantised, null, offsets, want);
            double[] more = Tolerance.roundedRows(x, quantised, offsets);
            assertThatThrownBy(() -> Tolerance.assertNearest("gemm", "coarse", got, want, more))
                    .isInstanceOf(AssertionError.class)
                    .hasMessageContaining("times what rounding to nearest gives");
        }
    }

    /**
     * The reference, but for the rows of x.
     *
     * @param round of x in steps
     */
    private record RoundedRows(DoubleUnaryOperator round, ReferenceKernels exact)
            implements Kernels {
        private RoundedRows(DoubleUnaryOperator round) {
            this(round, new ReferenceKernels());
        }

        @Override
        public void groupedGemm(
                Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
            try (Arena arena = Arena.ofConfined()) {
                Tensor rounded = Tensor.allocate(arena, DType.F32, x.shape());
                for (long row = 0; row < x.dim(0); row++) {
                    round(x.row(row), rounded.row(row));
                }
                exact.groupedGemm(rounded, weight, bias, expertOffsets, y);
            }
        }

        private void round(Tensor x, Tensor rounded) {
            float max = 0;
            for (long k = 0; k < x.numElements(); k++) {
                max = Math.max(max, Math.abs(x.getFloat(k)));
            }
            float steps = 127 / max;
            for (long k = 0; k < x.numElements(); k++) {
                float code = (float) round.applyAsDouble(x.getFloat(k) * steps);
                rounded.setDouble(k, Float.isInfinite(steps) ? 0 : code * (max / 127));
            }
        }

        @Override
        public void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
            exact.route(logits, config, inputs, routing);
        }

        @Override
        public void sortByExpert(Routing routing) {
            exact.sortByExpert(routing);
        }

        @Override
        public void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
            exact.permute(x, routing, weights, rows);
        }

        @Override
        public void swiglu(
                Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden) {
            exact.swiglu(gateUp, activation, expertOffsets, hidden);
        }

        @Override
        public void unpermute(
                Tensor rows,
                Routing routing,
                @Nullable Tensor weights,
                Residual residual,
                Tensor y) {
            exact.unpermute(rows, routing, weights, residual, y);
        }

        @Override
        public void singletonExperts(
                Tensor x,
                Tensor topkIds,
                @Nullable Tensor weights,
                SingletonExperts experts,
                Tensor y) {
            exact.singletonExperts(x, topkIds, weights, experts, y);
        }

        @Override
        public void constantExperts(
                Tensor x,
                Routing routing,
                ConstantExperts experts,
                int firstId,
                Residual residual,
                Tensor y) {
            exact.constantExperts(x, routing, experts, firstId, residual, y);
        }

        @Override
        public void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
            exact.normaliseRows(x, factor, epsilon, y);
        }

        @Override
        public void softDispatch(Tensor x, Tensor logits, Tensor rows) {
            exact.softDispatch(x, logits, rows);
        }

        @Override
        public void softCombine(Tensor rows, Tensor logits, Tensor y) {
            exact.softCombine(rows, logits, y);
        }
    }
}
