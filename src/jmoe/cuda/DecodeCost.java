package jmoe.cuda;

import jmoe.cuda.DecodeWork.Product;
import jmoe.cuda.DecodeWork.Weights;
import jmoe.cuda.Tile.Family;

/**
 * What the experts of a layer should take on the decode path and on the large path: a model, so
 * that the path can be chosen before anything runs, by sizes and the device alone. With {@link
 * TileCost}, which it asks for the large path, it says which is faster.
 *
 * <p>The decode path streams the weights of the experts that have rows, E (1 - (1 - K/E)^T) of
 * them, in units of {@link DecodeWork#TILE} rows of a weight and some slices of its inputs. Blocks,
 * two for each multiprocessor, take the units in turn:
 *
 * <ul>
 *   <li>so many blocks fetch at 85 % of what the pins can move, or, if they are few, at what they
 *       ask for: each has its stages on the way, 1.1 us long. So full turns take the bytes by the
 *       bandwidth, the last one perhaps longer, and 0.2 us each for what a unit does besides;
 *   <li>nothing is faster than one block with the largest unit;
 *   <li>where the slices of a tile are dealt to several blocks, their sums go to L2 and back, and
 *       the last block to arrive adds them: 1 us for the first product;
 *   <li>of the second product the last column tile is summed over experts by one block, when all
 *       others are done: 32 KB on the way, 0.8 us long;
 *   <li>each kernel takes 1.5 us to come up to speed where it may start early, else 2.2 us.
 * </ul>
 *
 * <p>The large path has a kernel for each operation, 2.2 us besides what {@link TileCost} says of
 * the products, and stores the rows between them.
 */
final class DecodeCost {
    /**
     * How many slices a unit has; all of them means that nothing is split. Bits do not depend on
     * it.
     *
     * @param routed of the routed experts
     * @param shared of the shared expert
     */
    record Deal(int routed, int shared) {}

    private static final double LAUNCH_SECONDS = 2.2e-6;
    private static final double EARLY_LAUNCH_SECONDS = 1.5e-6;
    private static final double UNIT_SECONDS = 0.2e-6;
    private static final double ARRIVAL_SECONDS = 1e-6;

    private static final double REACHED_BANDWIDTH = 0.85;
    private static final double MEMORY_SECONDS = 1.1e-6;
    private static final double L2_SECONDS = 0.8e-6;
    private static final double L2_BYTES_PER_CYCLE = 46.6;

    private static final int STAGE_BYTES = 8 << 10;
    private static final int WGMMA_STAGES = 6;
    private static final int MMA_STAGES = 3;
    private static final int BLOCKS = 2;

    /** What the threads of a block that sums have on the way: sixteen times 16 bytes each. */
    private static final double SUMMED_BYTES = 128 * 16 * 16;

    /** More parts must win so much. */
    private static final double GAIN_OF_PARTS = 0.98;

    /** The large path must win so much: between the sizes that the model knows it jumps. */
    private static final double GAIN_OF_LARGE = 0.97;

    /** Route in front of it, and what every token adds: its one warp has more than one to do. */
    private static final double ROUTE_SECONDS = 5e-6;

    private static final double ROUTE_TOKEN_SECONDS = 0.02e-6;

    private static final int CAPABILITY_OF_EARLY_LAUNCH = 90;
    private static final int ALIGNED_ELEMENTS = 8;

    private final CudaDevice device;
    private final TileCost tiles;
    private final int blocks;
    private final double reached;
    private final double blockBandwidth;
    private final double l2Bandwidth;

    DecodeCost(CudaDevice device) {
        this.device = device;
        tiles = new TileCost(device);
        blocks = BLOCKS * device.multiprocessors();
        reached = REACHED_BANDWIDTH * tiles.memoryBytesPerSecond();
        int stages = device.capability() == WgmmaGemm.CAPABILITY ? WGMMA_STAGES : MMA_STAGES;
        blockBandwidth = stages * STAGE_BYTES / MEMORY_SECONDS;
        l2Bandwidth = L2_BYTES_PER_CYCLE * tiles.hertz() * device.multiprocessors();
    }

    /** Whether the experts should take the decode path. */
    boolean decodes(DecodeWork work) {
        return largeNanos(work) >= GAIN_OF_LARGE * decodeNanos(work);
    }

    /** What the router should take on the decode path. */
    static double routeNanos(long tokens) {
        return 1e9 * (ROUTE_SECONDS + ROUTE_TOKEN_SECONDS * tokens);
    }

    /** What the experts should take on the decode path. */
    double decodeNanos(DecodeWork work) {
        boolean early = device.capability() >= CAPABILITY_OF_EARLY_LAUNCH;
        double start = early ? EARLY_LAUNCH_SECONDS : LAUNCH_SECONDS;
        Product gateUp = work.gateUp();
        Product down = work.down();
        return 1e9
                * (2 * start
                        + gateUpSeconds(gateUp, gateUpDeal(work))
                        + downSeconds(down, downDeal(work)));
    }

    /** The slices of the units of the first product. */
    Deal gateUpDeal(DecodeWork work) {
        Product product = work.gateUp();
        int slices = product.routed().slices();
        Deal best = new Deal(slices, slices);
        double least = gateUpSeconds(product, best);
        for (int units = 2; units <= slices; units++) {
            // The banks have the same inputs.
            int each = Math.ceilDiv(slices, units);
            Deal deal = new Deal(each, each);
            double seconds = gateUpSeconds(product, deal);
            if (seconds < GAIN_OF_PARTS * least) {
                best = deal;
                least = seconds;
            }
        }
        return best;
    }

    /** The slices of the units of the second product. */
    Deal downDeal(DecodeWork work) {
        Product product = work.down();
        int slices = product.routed().slices();
        int sharedSlices = Math.max(1, product.shared().slices());
        Deal best = new Deal(slices, sharedSlices);
        double least = downSeconds(product, best);
        for (int units = 1; units <= slices; units++) {
            for (int sharedUnits = 1; sharedUnits <= sharedSlices; sharedUnits++) {
                Deal deal =
                        new Deal(
                                Math.ceilDiv(slices, units),
                                Math.ceilDiv(sharedSlices, sharedUnits));
                double seconds = downSeconds(product, deal);
                if (seconds < GAIN_OF_PARTS * least) {
                    best = deal;
                    least = seconds;
                }
            }
        }
        return best;
    }

    private double gateUpSeconds(Product product, Deal deal) {
        double seconds = streamSeconds(product, deal);
        long parts = partBytes(product.routed(), deal.routed, 0);
        parts += partBytes(product.shared(), deal.shared, 0);
        return parts == 0 ? seconds : seconds + 2 * parts / l2Bandwidth + ARRIVAL_SECONDS;
    }

    private double downSeconds(Product product, Deal deal) {
        long parts = partBytes(product.routed(), deal.routed, 1);
        parts += partBytes(product.shared(), deal.shared, 1);
        double lastTile = (double) parts / Math.max(1, product.routed().columnTiles());
        double summed = lastTile / (SUMMED_BYTES / L2_SECONDS);
        return streamSeconds(product, deal) + 2 * parts / l2Bandwidth + summed;
    }

    private static long partBytes(Weights weights, int slicesPerUnit, long partsIfWhole) {
        return weights.partBytes(weights.parts(slicesPerUnit, partsIfWhole));
    }

    private double streamSeconds(Product product, Deal deal) {
        Weights routed = product.routed();
        Weights shared = product.shared();
        double units = routed.units(deal.routed) + shared.units(deal.shared);
        if (units == 0) {
            return 0;
        }
        double unitBytes = (routed.bytes() + shared.bytes()) / units;
        double fullTurns = Math.floor(units / blocks);
        double rest = units - fullTurns * blocks;
        double seconds = fullTurns * blocks * unitBytes / bandwidth(blocks);
        double turns = fullTurns;
        if (rest > 0) {
            seconds += rest * unitBytes / bandwidth(Math.max(1, rest));
            turns++;
        }
        double largest = Math.max(routed.unitBytes(deal.routed), shared.unitBytes(deal.shared));
        return Math.max(seconds, largest / blockBandwidth) + turns * UNIT_SECONDS;
    }

    private double bandwidth(double fetchingBlocks) {
        return Math.min(reached, fetchingBlocks * blockBandwidth);
    }

    /** What the experts should take on the large path. */
    double largeNanos(DecodeWork work) {
        double seconds = 0;
        int launches = 3;
        long rows = work.slots();
        seconds += productSeconds(work, rows, work.activeExperts(), work.intermediate());
        seconds += moveSeconds(work, rows + work.tokens());
        if (work.sharedIntermediate() > 0) {
            launches += 2;
            seconds += productSeconds(work, work.tokens(), 1L, work.sharedIntermediate());
            if (work.sharedWeighted()) {
                launches++;
                seconds += moveSeconds(work, 3 * work.tokens());
            }
        }
        return 1e9 * (launches * LAUNCH_SECONDS + seconds);
    }

    /** Both products of a bank; between whole numbers of groups, in proportion. */
    private double productSeconds(DecodeWork work, long rows, double groups, long intermediate) {
        long fewer = Math.max(1, (long) groups);
        double share = Math.max(0, groups - fewer);
        return (1 - share) * productSeconds(work, rows, fewer, intermediate)
                + share * productSeconds(work, rows, fewer + 1, intermediate);
    }

    private double productSeconds(DecodeWork work, long rows, long groups, long intermediate) {
        long columns = (work.gated() ? 2 : 1) * intermediate;
        long hidden = work.hidden();
        return nanos(new TileCost.Work(rows, groups, columns, hidden, work.gated())) / 1e9
                + nanos(new TileCost.Work(rows, groups, hidden, intermediate, false)) / 1e9;
    }

    private double nanos(TileCost.Work work) {
        boolean wgmma =
                device.capability() == WgmmaGemm.CAPABILITY
                        && work.inputs() % ALIGNED_ELEMENTS == 0;
        Family family = wgmma ? Family.SM90 : Family.MMA;
        return tiles.nanos(tiles.cheapest(family, work), work);
    }

    private double moveSeconds(DecodeWork work, long rows) {
        return 2.0 * rows * work.hidden() / reached;
    }
}
