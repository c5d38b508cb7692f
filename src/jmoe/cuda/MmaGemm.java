package jmoe.cuda;

import jmoe.tensor.DType;

/** The grouped product by mma.sync, for x and weight of one 16-bit type, of any size. */
final class MmaGemm {
    private final CudaContext context;
    private final TileKernels bf16;
    private final TileKernels f16;

    MmaGemm(CudaContext context) {
        this.context = context;
        CudaModule module = context.module("grouped_gemm_mma");
        bf16 = new TileKernels(module, "grouped_gemm_mma_bf16_", "");
        f16 = new TileKernels(module, "grouped_gemm_mma_f16_", "");
    }

    void queue(GemmArguments arguments, Tile tile) {
        CudaKernel kernel = (arguments.type() == DType.BF16 ? bf16 : f16).of(tile);
        Launch launch =
                context.launch()
                        .of(kernel)
                        .pointer(arguments.x())
                        .pointer(arguments.rowToSlot())
                        .pointer(arguments.slotWeights())
                        .pointer(arguments.weight());
        arguments.passRest(launch);
        launch.run(kernel.blocksInTurn(arguments.maxTiles(tile)));
    }
}
