package jmoe.cuda;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * What a kernel of the grouped product is given: addresses on the device, 0 for none, and sizes.
 *
 * @param type of x and the weight, unless the types are told apart before
 * @param x [xRows, inputs]
 * @param rowToSlot by which rows of x are gathered, or 0 if they are in order
 * @param slotWeights by slot, or 0
 * @param weight [groups, columns, inputs]
 * @param bias [groups, columns], or 0
 * @param expertOffsets [groups + 1]
 * @param y [rows, outputs]
 * @param xRows rows or tokens
 * @param rows how many there can be
 * @param groups matrices
 * @param columns rows of a matrix: outputs, or with a gated activation gates and ups
 * @param outputs of a row
 * @param inputs of a row
 * @param topK slots of a token
 * @param yType F32, F16 or BF16
 * @param activation of the sums, or null
 */
record GemmArguments(
        DType type,
        long x,
        long rowToSlot,
        long slotWeights,
        long weight,
        long bias,
        long expertOffsets,
        long y,
        int xRows,
        int rows,
        int groups,
        int columns,
        int outputs,
        int inputs,
        int topK,
        DType yType,
        @Nullable Activation activation) {
    /** What kernels take for no activation. */
    static final int NO_ACTIVATION = -1;

    /** Rows in order, sums as they are. */
    static GemmArguments of(
            Operands on,
            Tensor x,
            Tensor weight,
            @Nullable Tensor bias,
            Tensor expertOffsets,
            Tensor y) {
        int rows = Launch.int32("rows", x.dim(0));
        int groups = Launch.int32("groups", weight.dim(0));
        int outputs = Launch.int32("outputs", weight.dim(1));
        int inputs = Launch.int32("inputs", weight.dim(2));
        return new GemmArguments(
                x.dtype(),
                on.in(x),
                0,
                0,
                on.in(weight),
                on.in(bias),
                on.in(expertOffsets),
                on.rowsOut(y),
                rows,
                rows,
                groups,
                outputs,
                outputs,
                inputs,
                1,
                y.dtype(),
                null);
    }

    /** Rows of tokens, and the activation. */
    static GemmArguments gateUpSwiglu(
            Operands on,
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor hidden) {
        Tensor gateUp = experts.gateUp();
        int tokens = Launch.int32("tokens", x.dim(0));
        int rows = Launch.int32("rows", hidden.dim(0));
        int groups = Launch.int32("groups", gateUp.dim(0));
        int columns = Launch.int32("columns", gateUp.dim(1));
        int inputs = Launch.int32("inputs", gateUp.dim(2));
        return new GemmArguments(
                x.dtype(),
                on.in(x),
                on.in(routing.rowToSlot()),
                on.in(weights),
                on.in(gateUp),
                on.in(experts.gateUpBias()),
                on.in(routing.expertOffsets()),
                on.rowsOut(hidden),
                tokens,
                rows,
                groups,
                columns,
                Launch.int32("outputs", hidden.dim(1)),
                inputs,
                routing.topK(),
                hidden.dtype(),
                experts.activation());
    }

    boolean gathers() {
        return rowToSlot != 0;
    }

    TileCost.Work work() {
        boolean gated = activation != null && activation.gated();
        return new TileCost.Work(rows, groups, columns, inputs, gated);
    }

    /**
     * How many tiles there can be: every group may end within one, and of an odd number of columns
     * a block of the last cluster has none.
     */
    long maxTiles(Tile tile) {
        long rowTiles = Math.min(rows, rows / tile.rows() + (long) groups);
        long clusterColumns = (long) tile.cluster() * tile.columns();
        return rowTiles * Math.ceilDiv((long) columns, clusterColumns) * tile.cluster();
    }

    /** Puts what all kernels on matrix units take behind their operands. */
    void passRest(Launch launch) {
        launch.pointer(bias)
                .pointer(expertOffsets)
                .pointer(y)
                .int32(rows)
                .int32(groups)
                .int32(outputs)
                .int32(inputs)
                .int32(topK)
                .int32(KernelCodes.of(yType))
                .int32(activation == null ? NO_ACTIVATION : KernelCodes.of(activation.kind()))
                .float32(activation == null ? 0 : activation.limit());
    }
}
