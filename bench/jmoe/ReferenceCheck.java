package jmoe;

import jmoe.ops.Activation;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/** Stops a benchmark whose operation does not compute what the reference computes. */
final class ReferenceCheck implements AutoCloseable {
    /** Of the largest element: sums of a few thousand F32 products in any order. */
    private static final double TOLERANCE = 5e-6;

    private final Arena arena = Arena.ofShared();
    private final Kernels reference = Backend.REFERENCE.open();
    private final Tensor oneRow = Tensor.allocate(arena, DType.I32, 2);

    ReferenceCheck() {
        oneRow.setInt(1, 1);
    }

    void routing(Tensor logits, RouterConfig rule, Routing got) {
        Routing want = Routing.allocate(arena, got.tokens(), got.topK(), got.numExperts());
        reference.route(logits, rule, RouteInputs.NONE, want);
        requireEqual("topkIds", want.topkIds(), got.topkIds());
        requireClose("topkWeights", want.topkWeights(), got.topkWeights());
        reference.sortByExpert(want);
        requireEqual("expertOffsets", want.expertOffsets(), got.expertOffsets());
        requireEqual("rowToSlot", want.rowToSlot(), got.rowToSlot());
        requireEqual("slotToRow", want.slotToRow(), got.slotToRow());
    }

    void permute(Tensor x, Routing routing, Tensor got) {
        Tensor want = Tensor.allocate(arena, DType.F32, got.shape());
        reference.permute(x, routing, null, want);
        requireClose("permute", want, got);
    }

    /** Three rows only: the reference is slow. */
    void groupedGemm(Tensor x, Tensor weight, Tensor offsets, Tensor got) {
        Tensor want = Tensor.allocate(arena, DType.F32, 1, got.dim(1));
        int last = offsets.getInt(weight.dim(0)) - 1;
        for (int row : new int[] {0, last / 2, last}) {
            long group = 0;
            while (offsets.getInt(group + 1) <= row) {
                group++;
            }
            reference.groupedGemm(x.slice(row, 1), weight.slice(group, 1), null, oneRow, want);
            requireClose("groupedGemm", want, got.slice(row, 1));
        }
    }

    void swiglu(Tensor gateUp, Activation activation, Tensor offsets, Tensor got) {
        Tensor want = Tensor.allocate(arena, DType.F32, got.shape());
        reference.swiglu(gateUp, activation, offsets, want);
        requireClose("swiglu", want, got);
    }

    void unpermute(Tensor rows, Routing routing, Tensor got) {
        Tensor want = Tensor.allocate(arena, DType.F32, got.shape());
        reference.unpermute(rows, routing, routing.topkWeights(), Residual.NONE, want);
        requireClose("unpermute", want, got);
    }

    /** The first token only: a token's result does not depend on the others. */
    void forward(MoeConfig config, MoeWeights weights, Tensor x, Tensor got) {
        Tensor want = Tensor.allocate(arena, DType.F32, 1, got.dim(1));
        try (MoeLayer layer = new MoeLayer(config, weights, reference);
                Workspace workspace = layer.workspace(1)) {
            layer.forward(x.slice(0, 1), want, workspace);
        }
        requireClose("forward", want, got.slice(0, 1));
    }

    void requireClose(String what, Tensor want, Tensor got) {
        double largest = 0;
        double worst = 0;
        for (long i = 0; i < want.numElements(); i++) {
            double expected = want.getDouble(i);
            largest = Math.max(largest, Math.abs(expected));
            worst = Math.max(worst, Math.abs(expected - got.getDouble(i)));
        }
        if (!(worst <= TOLERANCE * largest)) {
            throw new IllegalStateException(
                    what + ": the result differs from the reference by " + worst / largest);
        }
    }

    private static void requireEqual(String what, Tensor want, Tensor got) {
        for (long i = 0; i < want.numElements(); i++) {
            if (want.getInt(i) != got.getInt(i)) {
                throw new IllegalStateException(
                        what + ": element " + i + " differs from the reference");
            }
        }
    }

    @Override
    public void close() {
        reference.close();
        arena.close();
    }
}
