package jmoe.cuda;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.EnumMap;
import java.util.Map;

/**
 * The grouped product: on matrix units where x and weight have the same 16-bit type, otherwise by a
 * kernel for every type. Which one it is does not depend on the batch.
 */
final class GroupedGemm {
    /** System property: rows of a tile on matrix units, 16, 64 or 128, instead of the best. */
    static final String TILE_PROPERTY = "jmoe.cuda.tile";

    /** Sizes of tiles on matrix units. */
    enum Tile {
        SMALL(16),
        MEDIUM(64),
        LARGE(128);

        private final int rows;

        Tile(int rows) {
            this.rows = rows;
        }

        private Tile smaller() {
            return this == LARGE ? MEDIUM : SMALL;
        }

        private String symbol(DType type) {
            return "grouped_gemm_mma_" + (type == DType.BF16 ? "bf16_" : "f16_") + rows;
        }
    }

    /** Columns of a tile on matrix units; gates and ups count both. */
    private static final int TILE_COLUMNS = 128;

    /** At least one in so many multiprocessors has a tile to work on, where that is possible. */
    private static final long MIN_SHARE = 4;

    /** What kernels take for no activation. */
    private static final int NO_ACTIVATION = -1;

    private final CudaContext context;
    private final CudaModule everyType;
    private final CudaModule matrixUnits;
    private final @Nullable Tile forcedTile;
    private final Map<Tile, CudaKernel> bf16Kernels = new EnumMap<>(Tile.class);
    private final Map<Tile, CudaKernel> f16Kernels = new EnumMap<>(Tile.class);

    /**
     * The product in a context.
     *
     * @param forcedTile what {@link #forcedTile} says
     */
    GroupedGemm(CudaContext context, @Nullable Tile forcedTile) {
        this.context = context;
        this.forcedTile = forcedTile;
        everyType = context.module("grouped_gemm");
        matrixUnits = context.module("grouped_gemm_mma");
    }

    /** The tile that {@link #TILE_PROPERTY} names, or null. */
    static @Nullable Tile forcedTile() {
        String rows = System.getProperty(TILE_PROPERTY);
        if (rows == null) {
            return null;
        }
        for (Tile tile : Tile.values()) {
            if (Integer.toString(tile.rows).equals(rows)) {
                return tile;
            }
        }
        throw new IllegalArgumentException(
                TILE_PROPERTY + ": expected 16, 64 or 128 rows, got " + rows);
    }

    /** Whether these types are multiplied on matrix units. */
    static boolean onMatrixUnits(DType x, DType weight) {
        return x == weight && (x == DType.BF16 || x == DType.F16);
    }

    /**
     * How the rows of a product come about and what becomes of the sums.
     *
     * @param rows how many there can be
     * @param rowToSlot where they come from, or null if x has them in order
     * @param slotWeights by slot, or null
     * @param topK slots of a token
     * @param activation of the sums, or null
     */
    private record Fusion(
            int rows,
            @Nullable Tensor rowToSlot,
            @Nullable Tensor slotWeights,
            int topK,
            @Nullable Activation activation) {}

    void queue(
            Operands on,
            Tensor x,
            Tensor weight,
            @Nullable Tensor bias,
            Tensor expertOffsets,
            Tensor y) {
        int rows = CudaKernels.int32("rows", x.dim(0));
        if (onMatrixUnits(x.dtype(), weight.dtype())) {
            Fusion none = new Fusion(rows, null, null, 1, null);
            multiply(on, x, weight, bias, expertOffsets, y, none);
            return;
        }
        int groups = CudaKernels.int32("groups", weight.dim(0));
        int outputs = CudaKernels.int32("outputs", weight.dim(1));
        CudaKernel kernel = everyType.kernel(x.dtype(), weight.dtype());
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
                .int32(CudaKernels.int32("inputs", weight.dim(2)))
                .int32(KernelCodes.of(y.dtype()))
                .run(tiles, kernel.blocks(outputs));
    }

    /** The first half of every expert, if x and weights are for matrix units. */
    void queueGateUpSwiglu(
            Operands on,
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor hidden) {
        Fusion fusion =
                new Fusion(
                        CudaKernels.int32("rows", hidden.dim(0)),
                        routing.rowToSlot(),
                        weights,
                        routing.topK(),
                        experts.activation());
        Tensor offsets = routing.expertOffsets();
        multiply(on, x, experts.gateUp(), experts.gateUpBias(), offsets, hidden, fusion);
    }

    private void multiply(
            Operands on,
            Tensor x,
            Tensor weight,
            @Nullable Tensor bias,
            Tensor expertOffsets,
            Tensor y,
            Fusion fusion) {
        int groups = CudaKernels.int32("groups", weight.dim(0));
        int outputs = CudaKernels.int32("outputs", y.dim(1));
        CudaKernel kernel = kernel(x.dtype(), tile(fusion.rows, groups, weight.dim(1)));
        Activation activation = fusion.activation;
        context.launch()
                .of(kernel)
                .pointer(on.in(x))
                .pointer(on.in(fusion.rowToSlot))
                .pointer(on.in(fusion.slotWeights))
                .pointer(on.in(weight))
                .pointer(on.in(bias))
                .pointer(on.in(expertOffsets))
                .pointer(on.rowsOut(y))
                .int32(fusion.rows)
                .int32(groups)
                .int32(outputs)
                .int32(CudaKernels.int32("inputs", weight.dim(2)))
                .int32(fusion.topK)
                .int32(KernelCodes.of(y.dtype()))
                .int32(activation == null ? NO_ACTIVATION : KernelCodes.of(activation.kind()))
                .float32(activation == null ? 0 : activation.limit())
                .run(blocks(kernel, fusion.rows, groups, weight.dim(1)));
    }

    /**
     * The tile for a product. Few rows per expert make the weights' way the limit, which small
     * tiles leave more room in shared memory; many need large tiles to reuse what is in it. Experts
     * are not equally loaded, so three quarters of a tile's rows on average are where the next size
     * begins. Products of few outputs, as a router's, take smaller tiles than that, so that more of
     * the device works. No GPU has measured these bounds yet; the bits do not depend on them.
     */
    private Tile tile(long rows, long groups, long columns) {
        if (forcedTile != null) {
            return forcedTile;
        }
        long active = Math.max(1, Math.min(rows, groups));
        long perGroup = rows / active;
        Tile tile = Tile.LARGE;
        while (tile != Tile.SMALL
                && (4 * perGroup <= 3L * tile.smaller().rows
                        || leavesMostIdle(active * tiles(tile, perGroup, columns)))) {
            tile = tile.smaller();
        }
        return tile;
    }

    private boolean leavesMostIdle(long tiles) {
        return MIN_SHARE * tiles < context.device().multiprocessors();
    }

    private static long tiles(Tile tile, long rows, long columns) {
        return Math.ceilDiv(rows, (long) tile.rows) * Math.ceilDiv(columns, (long) TILE_COLUMNS);
    }

    private CudaKernel kernel(DType type, Tile tile) {
        Map<Tile, CudaKernel> kernels = type == DType.BF16 ? bf16Kernels : f16Kernels;
        CudaKernel kernel = kernels.get(tile);
        if (kernel == null) {
            kernel = matrixUnits.kernel(tile.symbol(type));
            kernels.put(tile, kernel);
        }
        return kernel;
    }

    /** As many as run at once; fewer if there cannot be so many tiles. */
    private long blocks(CudaKernel kernel, long rows, long groups, long columns) {
        // Every group may end within a tile.
        long rowTiles = Math.min(rows, rows / kernel.itemsPerBlock() + groups);
        long tiles = rowTiles * Math.ceilDiv(columns, (long) TILE_COLUMNS);
        return Math.min(tiles, kernel.residentBlocks());
    }
}
