package jmoe.vector;

import jdk.incubator.vector.FloatVector;

import jmoe.ops.Routing;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.MemorySegment;

/** {@code rows[r] = w[r] x[rowToSlot[r] / topK]}. */
final class Permute {
    private final Workers workers;
    private final Chunks chunks;

    Permute(Workers workers, Chunks chunks) {
        this.workers = workers;
        this.chunks = chunks;
    }

    void gather(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        Elements in = Elements.of(x, workers);
        Elements out = Elements.of(rows, workers);
        Elements rowToSlot = Elements.of(routing.rowToSlot(), workers);
        Elements weightBySlot = weights == null ? null : Elements.of(weights, workers);
        int topK = routing.topK();
        long columns = x.dim(1);
        boolean copies = weights == null && x.dtype() == rows.dtype();
        long elementBytes = x.dtype().blockBytes();
        long firstRow = routing.expertOffsets().getInt(0);
        chunks.run(
                routing.expertOffsets().getInt(routing.numExperts()) - firstRow,
                columns,
                (index, column, count, first, second) -> {
                    long row = firstRow + index;
                    int slot = rowToSlot.getInt(row);
                    long from = slot / topK * columns + column;
                    long to = row * columns + column;
                    if (copies) {
                        MemorySegment.copy(
                                in.data(),
                                from * elementBytes,
                                out.data(),
                                to * elementBytes,
                                count * elementBytes);
                        return;
                    }
                    in.read(from, count, first, 0);
                    if (weightBySlot != null) {
                        multiply(first, Lanes.padded(count), weightBySlot.getFloat(slot));
                    }
                    out.write(first, 0, count, to);
                });
    }

    private static void multiply(float[] values, int count, float factor) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector.fromArray(Lanes.FLOATS, values, i).mul(factor).intoArray(values, i);
        }
    }
}
