package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;

import jdk.incubator.vector.FloatVector;

import jmoe.ops.Kernels.Residual;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * {@code y[t] = addend[t] + factor * sum_k w[t,k] v[t,k]}: from 0, one FMA per slot in slot order,
 * then one FMA with the factor and the addend (or 0).
 */
final class Unpermute {
    private final Workers workers;
    private final Chunks chunks;

    Unpermute(Workers workers, Chunks chunks) {
        this.workers = workers;
        this.chunks = chunks;
    }

    /** The arguments of one call, as the workers see them. */
    private record Sum(
            Elements rows,
            Elements slotToRow,
            Elements topkIds,
            @Nullable Elements weights,
            @Nullable Elements identity,
            int firstIdentity,
            int topK,
            long columns) {
        /** Adds the slots of a token to {@code sum}; {@code term} is overwritten. */
        void addSlots(long token, long column, int count, float[] sum, float[] term) {
            for (long slot = token * topK; slot < (token + 1) * topK; slot++) {
                float weight = weights == null ? 1 : weights.getFloat(slot);
                int row = slotToRow.getInt(slot);
                if (row < 0 || weight == 0) {
                    continue;
                }
                if (identity != null && topkIds.getInt(slot) >= firstIdentity) {
                    identity.read(token * columns + column, count, term, 0);
                } else {
                    rows.read(row * columns + column, count, term, 0);
                }
                addProduct(term, weight, sum, Lanes.padded(count));
            }
        }
    }

    void reduce(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y) {
        long columns = y.dim(1);
        Sum sum =
                new Sum(
                        Elements.of(rows, workers),
                        Elements.of(routing.slotToRow(), workers),
                        Elements.of(routing.topkIds(), workers),
                        elements(weights),
                        elements(residual.identity()),
                        residual.firstIdentity(),
                        routing.topK(),
                        columns);
        Elements addend = elements(residual.addend());
        boolean oneAddend = residual.addend() != null && residual.addend().dim(0) == 1;
        float factor = (float) residual.factor();
        Elements out = Elements.of(y, workers);
        chunks.run(
                routing.tokens(),
                columns,
                (token, column, count, first, second) -> {
                    int padded = Lanes.padded(count);
                    Arrays.fill(first, 0, padded, 0);
                    sum.addSlots(token, column, count, first, second);
                    if (addend == null) {
                        Arrays.fill(second, 0, padded, 0);
                    } else {
                        long row = oneAddend ? 0 : token;
                        addend.read(row * columns + column, count, second, 0);
                    }
                    addProduct(first, factor, second, padded);
                    out.write(second, 0, count, token * columns + column);
                });
    }

    private @Nullable Elements elements(@Nullable Tensor tensor) {
        return tensor == null ? null : Elements.of(tensor, workers);
    }

    private static void addProduct(float[] term, float weight, float[] sum, int count) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector.fromArray(Lanes.FLOATS, term, i)
                    .lanewise(FMA, weight, FloatVector.fromArray(Lanes.FLOATS, sum, i))
                    .intoArray(sum, i);
        }
    }
}
