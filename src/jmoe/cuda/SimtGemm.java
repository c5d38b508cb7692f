package jmoe.cuda;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/** The grouped product without matrix units: every type and size, sums in F32. */
final class SimtGemm {
    private final CudaContext context;
    private final CudaModule module;

    SimtGemm(CudaContext context) {
        this.context = context;
        module = context.module("grouped_gemm");
    }

    void queue(
            Operands on,
            Tensor x,
            Tensor weight,
            @Nullable Tensor bias,
            Tensor expertOffsets,
            Tensor y) {
        int rows = Launch.int32("rows", x.dim(0));
        int groups = Launch.int32("groups", weight.dim(0));
        int outputs = Launch.int32("outputs", weight.dim(1));
        CudaKernel kernel = module.kernel(x.dtype(), weight.dtype());
        // Every group may end within a tile.
        long tiles = Math.min(rows, rows / kernel.itemsPerBlock() + (long) groups);
        context.launch()
                .of(kernel)
                .pointer(on.in(x))
                .pointer(on.in(weight))
                .pointer(on.in(bias))
                .pointer(on.in(expertOffsets))
                .pointer(on.rowsOut(y))
                .int32(rows)
                .int32(groups)
                .int32(outputs)
                .int32(Launch.int32("inputs", weight.dim(2)))
                .int32(KernelCodes.of(y.dtype()))
                .run(tiles, kernel.blocks(outputs));
    }
}
