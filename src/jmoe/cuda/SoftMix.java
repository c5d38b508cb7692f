package jmoe.cuda;

import jmoe.tensor.Tensor;

/** The sums of Soft-MoE, each a kernel for the softmax and one for the sums; rows of one length. */
final class SoftMix {
    /** Columns of a tile of the sums. */
    private static final int TILE_COLUMNS = 64;

    /** Most blocks of a grid's second dimension. */
    private static final long MAX_GRID_Y = 65535;

    private final CudaContext context;
    private final CudaModule normaliseRows;
    private final CudaModule dispatch;
    private final CudaModule combine;

    SoftMix(CudaContext context) {
        this.context = context;
        normaliseRows = context.module("normalise_rows");
        dispatch = context.module("soft_dispatch");
        combine = context.module("soft_combine");
    }

    void queueNormaliseRows(Operands on, Tensor x, double factor, double epsilon, Tensor y) {
        int rows = Launch.int32("rows", x.dim(0));
        CudaKernel kernel = normaliseRows.kernel(x.dtype(), y.dtype());
        context.launch()
                .of(kernel)
                .pointer(on.in(x))
                .pointer(on.out(y))
                .int32(rows)
                .int32(Launch.int32("columns", x.dim(1)))
                .float32((float) factor)
                .float32((float) epsilon)
                .run(kernel.blocks(rows));
    }

    void queueDispatch(Operands on, Tensor x, Tensor logits, Tensor rows) {
        CudaKernel weights = dispatch.kernel("soft_dispatch_weights");
        CudaKernel sums = dispatch.kernel(x.dtype(), rows.dtype());
        queue(on, weights, sums, x, logits, rows);
    }

    void queueCombine(Operands on, Tensor rows, Tensor logits, Tensor y) {
        CudaKernel weights = combine.kernel("soft_combine_weights");
        CudaKernel sums = combine.kernel(rows.dtype(), y.dtype());
        queue(on, weights, sums, rows, logits, y);
    }

    private void queue(
            Operands on,
            CudaKernel weights,
            CudaKernel sums,
            Tensor sources,
            Tensor logits,
            Tensor targets) {
        int tokens = (int) logits.dim(0);
        int slots = (int) logits.dim(1);
        int hidden = Launch.int32("hidden", targets.dim(1));
        long count = targets.dim(0);
        long z = on.in(logits);
        long maxima = context.scratch().address(2 * 4L * count);
        long inverses = maxima + 4L * count;
        context.launch()
                .of(weights)
                .pointer(z)
                .pointer(maxima)
                .pointer(inverses)
                .int32(tokens)
                .int32(slots)
                .run(weights.blocks(count));
        context.launch()
                .of(sums)
                .pointer(on.in(sources))
                .pointer(z)
                .pointer(maxima)
                .pointer(inverses)
                .pointer(on.out(targets))
                .int32(tokens)
                .int32(slots)
                .int32(hidden)
                .run(
                        sums.blocks(count),
                        Math.min(MAX_GRID_Y, Math.ceilDiv((long) hidden, (long) TILE_COLUMNS)));
    }
}
