package jmoe.cuda;

import jmoe.cuda.DecodeCost.Deal;
import jmoe.cuda.DecodeWork.Weights;

/**
 * How the experts of a layer are dealt to blocks for some number of tokens, and where what lies
 * between the two kernels is kept, in bytes of scratch: hidden of both banks, then parts of both.
 *
 * @param work the sizes
 * @param gateUp slices of the first product's units
 * @param down slices of the second product's units
 * @param sharedHidden where hidden of the shared expert begins
 * @param parts where the routed experts' parts begin
 * @param sharedParts where the shared expert's parts begin
 * @param bytes of all
 */
record DecodePlan(
        DecodeWork work,
        Deal gateUp,
        Deal down,
        long sharedHidden,
        long parts,
        long sharedParts,
        long bytes) {
    /** Where pieces begin, relative to an address that is a multiple of it. */
    static final long ALIGNMENT_BYTES = 256;

    private static final int ELEMENT_BYTES = 2;

    static DecodePlan of(DecodeWork work, DecodeCost cost) {
        Deal gateUp = cost.gateUpDeal(work);
        Deal down = cost.downDeal(work);
        DecodeWork.Product first = work.gateUp();
        DecodeWork.Product second = work.down();
        long sharedHidden = aligned(ELEMENT_BYTES * work.slots() * work.intermediate());
        long ofShared = ELEMENT_BYTES * work.tokens() * work.sharedIntermediate();
        long parts = sharedHidden + aligned(ofShared);
        // The kernels follow each other, so that they share the memory of their parts.
        long ofRouted =
                Math.max(
                        gateUpParts(first.routed(), gateUp.routed()),
                        downParts(second.routed(), down.routed()));
        long sharedParts = parts + aligned(ofRouted);
        long partsOfShared =
                Math.max(
                        gateUpParts(first.shared(), gateUp.shared()),
                        downParts(second.shared(), down.shared()));
        long bytes = sharedParts + aligned(partsOfShared);
        return new DecodePlan(work, gateUp, down, sharedHidden, parts, sharedParts, bytes);
    }

    private static long aligned(long bytes) {
        return Math.ceilDiv(bytes, ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    }

    private static long gateUpParts(Weights weights, int slicesPerUnit) {
        return weights.partBytes(weights.parts(slicesPerUnit, 0));
    }

    private static long downParts(Weights weights, int slicesPerUnit) {
        return weights.partBytes(weights.parts(slicesPerUnit, 1));
    }

    /** Counters of the first kernel's tiles that several blocks share; of the routed experts. */
    long gateUpArrivals() {
        return arrivals(work.gateUp().routed(), gateUp.routed());
    }

    /** The same of the shared expert. */
    long sharedGateUpArrivals() {
        return arrivals(work.gateUp().shared(), gateUp.shared());
    }

    private static long arrivals(Weights weights, int slicesPerUnit) {
        boolean split = weights.unitsPerTile(slicesPerUnit) > 1;
        return split ? weights.rows() * weights.columnTiles() : 0;
    }

    /** Counters of the second kernel. */
    long downArrivals() {
        return work.down().routed().columnTiles();
    }

    /** F32 elements of scratch, whatever its address. */
    long scratchElements() {
        return (bytes + ALIGNMENT_BYTES) / Float.BYTES;
    }
}
