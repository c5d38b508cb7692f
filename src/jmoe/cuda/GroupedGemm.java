package jmoe.cuda;

import jmoe.cuda.Tile.Family;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.stream.Collectors;

/**
 * The grouped product, by the fastest kernels that suit it. These are wgmma's on a device of
 * compute capability 9.0, if x and weight have the same 16-bit type, their rows a multiple of 8
 * elements, both begin at a multiple of 16 bytes, and y has 16 bits or there is no activation,
 * which is none of the gelus; mma.sync's for the same type otherwise; and those without matrix
 * units for different types and F32. Which of the three it is does not depend on the batch. The
 * tile does, as {@link TileCost} says: it changes no bit.
 */
final class GroupedGemm {
    /** System property: label of the {@link Tile} to use wherever its family suits. */
    static final String TILE_PROPERTY = "jmoe.cuda.tile";

    private final SimtGemm simt;
    private final MmaGemm mma;
    private final WgmmaGemm wgmma;
    private final TileCost cost;
    private final @Nullable Tile forcedTile;

    /**
     * The product in a context.
     *
     * @param forcedTile what {@link #forcedTile} says
     */
    GroupedGemm(CudaContext context, @Nullable Tile forcedTile) {
        this.forcedTile = forcedTile;
        simt = new SimtGemm(context);
        mma = new MmaGemm(context);
        wgmma = new WgmmaGemm(context);
        cost = new TileCost(context.device());
    }

    /** The tile that {@link #TILE_PROPERTY} names, or null. */
    static @Nullable Tile forcedTile() {
        String label = System.getProperty(TILE_PROPERTY);
        if (label == null) {
            return null;
        }
        Tile tile = Tile.labelled(label);
        if (tile == null) {
            throw new IllegalArgumentException(
                    TILE_PROPERTY
                            + ": expected one of "
                            + labels(Family.MMA)
                            + " (mma) and "
                            + labels(Family.SM90)
                            + " (sm_90), got "
                            + label);
        }
        return tile;
    }

    private static String labels(Family family) {
        return Tile.of(family).stream().map(Tile::label).collect(Collectors.joining(", "));
    }

    /** Whether these types are multiplied on matrix units. */
    static boolean onMatrixUnits(DType x, DType weight) {
        return x == weight && (x == DType.BF16 || x == DType.F16);
    }

    void queue(
            Operands on,
            Tensor x,
            Tensor weight,
            @Nullable Tensor bias,
            Tensor expertOffsets,
            Tensor y) {
        if (onMatrixUnits(x.dtype(), weight.dtype())) {
            queue(GemmArguments.of(on, x, weight, bias, expertOffsets, y));
        } else {
            simt.queue(on, x, weight, bias, expertOffsets, y);
        }
    }

    /** The first half of every expert, if x and weights are for matrix units. */
    void queueGateUpSwiglu(
            Operands on,
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor hidden) {
        queue(GemmArguments.gateUpSwiglu(on, x, routing, weights, experts, hidden));
    }

    private void queue(GemmArguments arguments) {
        boolean wantsMma = forcedTile != null && forcedTile.family() == Family.MMA;
        if (!wantsMma && wgmma.suits(arguments)) {
            wgmma.queue(arguments, tile(Family.SM90, arguments));
        } else {
            mma.queue(arguments, tile(Family.MMA, arguments));
        }
    }

    private Tile tile(Family family, GemmArguments arguments) {
        return forcedTile != null && forcedTile.family() == family
                ? forcedTile
                : cost.cheapest(family, arguments.work());
    }
}
