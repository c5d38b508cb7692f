package jmoe.cuda;

import jmoe.ops.Bank;
import jmoe.ops.ExpertWeights;

import org.jspecify.annotations.Nullable;

/**
 * Sizes of the experts of a layer, and how the kernels for few tokens cut them: into column tiles
 * of {@link #TILE} rows of a weight and slices of at most 512 of its inputs.
 *
 * @param tokens T
 * @param topK K
 * @param experts E, those with weights
 * @param hidden H
 * @param intermediate I
 * @param gated whether there are gates
 * @param sharedIntermediate I of the shared expert, 0 if there is none
 * @param sharedWeighted whether the shared expert's rows have weights
 */
record DecodeWork(
        long tokens,
        int topK,
        long experts,
        long hidden,
        long intermediate,
        boolean gated,
        long sharedIntermediate,
        boolean sharedWeighted) {
    /** Rows of a weight that a block multiplies at once, and most of x. */
    static final int TILE = 64;

    private static final int STAGE_INPUTS = 64;
    private static final int SLICE_STAGES = 8;

    static DecodeWork of(Bank routed, @Nullable Bank shared) {
        ExpertWeights experts = routed.experts();
        return new DecodeWork(
                routed.routing().tokens(),
                routed.routing().topK(),
                experts.numExperts(),
                experts.hidden(),
                experts.intermediate(),
                experts.activation().gated(),
                shared == null ? 0 : shared.experts().intermediate(),
                shared != null && shared.outputWeights() != null);
    }

    DecodeWork withTokens(long some) {
        return new DecodeWork(
                some,
                topK,
                experts,
                hidden,
                intermediate,
                gated,
                sharedIntermediate,
                sharedWeighted);
    }

    long slots() {
        return tokens * topK;
    }

    /** Experts that are expected to have rows, if tokens choose independently. */
    double activeExperts() {
        double share = Math.min(1, (double) topK / experts);
        return experts * (1 - Math.pow(1 - share, (double) tokens));
    }

    /** Slices of a row; a property of the sums, on which their bits depend. */
    static int slices(long inputs) {
        long stages = Math.ceilDiv(inputs, (long) STAGE_INPUTS);
        return Math.toIntExact(Math.ceilDiv(stages, (long) SLICE_STAGES));
    }

    /** Column tiles of outputs, each of which takes a gate and an up if they are gated. */
    static long columnTiles(long outputs, boolean gated) {
        return Math.ceilDiv(outputs, (long) (gated ? TILE / 2 : TILE));
    }

    /**
     * The weights of a bank in one of the two products.
     *
     * @param groups experts with rows, as expected
     * @param rowTiles of all of them, as expected
     * @param rows most there can be
     * @param columnTiles of each row tile
     * @param inputs of a row
     */
    record Weights(double groups, double rowTiles, long rows, long columnTiles, long inputs) {
        private static final Weights NONE = new Weights(0, 0, 0, 0, 0);

        /** Rows of equally many for each group. */
        static Weights of(double groups, long rows, long columnTiles, long inputs) {
            double pieces = rows / Math.max(1, groups) / TILE;
            double rowTiles = groups == 1 ? Math.ceil(pieces) : pieces <= 0.5 ? 1 : pieces + 0.5;
            return new Weights(groups, groups * rowTiles, rows, columnTiles, inputs);
        }

        int slices() {
            return DecodeWork.slices(inputs);
        }

        /** Units of a column tile of a row tile. */
        int unitsPerTile(int slicesPerUnit) {
            return Math.max(1, Math.ceilDiv(slices(), Math.max(1, slicesPerUnit)));
        }

        /** Sums that are stored of every row: of each slice where they are split. */
        long parts(int slicesPerUnit, long partsIfWhole) {
            return unitsPerTile(slicesPerUnit) > 1 ? slices() : partsIfWhole;
        }

        /** Most units that there can be. */
        long mostUnits(long groups, int slicesPerUnit) {
            long most = Math.min(rows, groups + rows / TILE);
            return most * columnTiles * unitsPerTile(slicesPerUnit);
        }

        double units(int slicesPerUnit) {
            return rowTiles * columnTiles * unitsPerTile(slicesPerUnit);
        }

        /** Of 16 bits, whether or not a column tile is full. */
        double unitBytes(int slicesPerUnit) {
            return 2.0 * TILE * inputs / unitsPerTile(slicesPerUnit);
        }

        /** Of the groups; those of several row tiles come from memory once, and then from L2. */
        double bytes() {
            return 2.0 * TILE * inputs * groups * columnTiles;
        }

        /** Bytes of the sums of so many parts. */
        long partBytes(long parts) {
            return Float.BYTES * parts * rows * columnTiles * TILE;
        }
    }

    /**
     * One of the two products.
     *
     * @param routed weights of the routed experts
     * @param shared weights of the shared expert
     */
    record Product(Weights routed, Weights shared) {}

    Product gateUp() {
        long columnTiles = columnTiles(intermediate, gated);
        long sharedTiles = columnTiles(sharedIntermediate, gated);
        return new Product(
                Weights.of(activeExperts(), slots(), columnTiles, hidden),
                sharedIntermediate == 0
                        ? Weights.NONE
                        : Weights.of(1, tokens, sharedTiles, hidden));
    }

    Product down() {
        long columnTiles = columnTiles(hidden, false);
        return new Product(
                Weights.of(activeExperts(), slots(), columnTiles, intermediate),
                sharedIntermediate == 0
                        ? Weights.NONE
                        : Weights.of(1, tokens, columnTiles, sharedIntermediate));
    }
}
