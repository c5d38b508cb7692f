package jmoe.cuda;

import jmoe.ops.Activation;
import jmoe.tensor.DType;

import java.lang.foreign.MemorySegment;

/**
 * The grouped product by wgmma, of compute capability 9.0: operands come through tensor maps, and
 * those want rows and addresses of whole 16 bytes. Of the results of an activation there are those
 * of 16 bits only.
 */
final class WgmmaGemm {
    static final int CAPABILITY = 90;

    /** Bytes of which rows and addresses are multiples, and the elements in them. */
    private static final int ALIGNMENT = 16;

    private static final int ALIGNED_ELEMENTS = 8;

    /** Rows of a box of x and y. */
    private static final int BOX_ROWS = 64;

    private final CudaContext context;
    private final TileKernels bf16;
    private final TileKernels f16;
    private final TileKernels bf16Gather;
    private final TileKernels f16Gather;

    WgmmaGemm(CudaContext context) {
        this.context = context;
        CudaModule module = context.module("grouped_gemm_sm90");
        bf16 = new TileKernels(module, "grouped_gemm_sm90_bf16_", "");
        f16 = new TileKernels(module, "grouped_gemm_sm90_f16_", "");
        bf16Gather = new TileKernels(module, "grouped_gemm_sm90_bf16_", "_gather");
        f16Gather = new TileKernels(module, "grouped_gemm_sm90_f16_", "_gather");
    }

    /**
     * Whether the product can be had here. It says the same of every batch, because rows must keep
     * their bits whatever they are with, and matrix units differ in how they round.
     */
    boolean suits(GemmArguments arguments) {
        return context.device().capability() == CAPABILITY
                && arguments.inputs() > 0
                && arguments.inputs() % ALIGNED_ELEMENTS == 0
                && isAligned(arguments.x())
                && isAligned(arguments.weight())
                && (long) arguments.groups() * arguments.columns() <= Integer.MAX_VALUE
                && (arguments.activation() == null
                        || (arguments.yType() != DType.F32 && stores(arguments.activation())));
    }

    /** The gelus would take more registers than the accumulators leave. */
    private static boolean stores(Activation activation) {
        return switch (activation.kind()) {
            case GELU, GELU_TANH, GEGLU, GEGLU_TANH -> false;
            default -> true;
        };
    }

    private static boolean isAligned(long address) {
        return address % ALIGNMENT == 0;
    }

    void queue(GemmArguments arguments, Tile tile) {
        long tiles = arguments.maxTiles(tile);
        if (tiles == 0) {
            // There are no tensor maps of nothing.
            return;
        }
        CudaKernel kernel = kernel(arguments, tile);
        Launch launch = context.launch().of(kernel);
        passMaps(launch, arguments, tile);
        launch.pointer(arguments.x())
                .pointer(arguments.rowToSlot())
                .pointer(arguments.slotWeights());
        arguments.passRest(launch);
        launch.run(kernel.blocksInTurn(tiles));
    }

    /** Of x, weight and y; of the weight once more in the place of one that the kernel ignores. */
    private void passMaps(Launch launch, GemmArguments arguments, Tile tile) {
        if (arguments.gathers()) {
            pass(launch, weightMap(arguments, tile));
        } else {
            long rows = arguments.xRows();
            pass(launch, map(arguments.type(), arguments.x(), rows, arguments.inputs(), BOX_ROWS));
        }
        pass(launch, weightMap(arguments, tile));
        if (storesBoxes(arguments)) {
            DType type = arguments.yType();
            pass(launch, map(type, arguments.y(), arguments.rows(), arguments.outputs(), BOX_ROWS));
        } else {
            pass(launch, weightMap(arguments, tile));
        }
    }

    /** The kernel decides by the same rule. */
    private static boolean storesBoxes(GemmArguments arguments) {
        return arguments.yType() != DType.F32
                && arguments.outputs() % ALIGNED_ELEMENTS == 0
                && isAligned(arguments.y());
    }

    /** In boxes of half a tile's columns: its gates, and its ups. */
    private MemorySegment weightMap(GemmArguments arguments, Tile tile) {
        long rows = (long) arguments.groups() * arguments.columns();
        int boxRows = tile.columns() / 2;
        return map(arguments.type(), arguments.weight(), rows, arguments.inputs(), boxRows);
    }

    private MemorySegment map(DType type, long address, long rows, long columns, int boxRows) {
        return context.tensorMap().encode(type, address, rows, columns, boxRows);
    }

    private static void pass(Launch launch, MemorySegment map) {
        launch.struct(map, TensorMap.ALIGNMENT);
    }

    private CudaKernel kernel(GemmArguments arguments, Tile tile) {
        boolean gathers = arguments.gathers();
        if (arguments.type() == DType.BF16) {
            return (gathers ? bf16Gather : bf16).of(tile);
        }
        return (gathers ? f16Gather : f16).of(tile);
    }
}
