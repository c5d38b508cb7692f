package jmoe.cuda;

import org.jspecify.annotations.Nullable;

import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/**
 * The tiles of the grouped product on matrix units, and what one of them takes of a multiprocessor.
 * The tiles of a family give the same bits.
 */
enum Tile {
    MMA_16(Family.MMA, "16", 16, 128, 3, 1, 3, 400, false),
    MMA_64(Family.MMA, "64", 64, 128, 2, 1, 3, 600, false),
    MMA_128(Family.MMA, "128", 128, 128, 2, 1, 2, 1000, false),
    SM90_64X128(Family.SM90, "64x128", 64, 128, 2, 1, 4, 500, false),
    SM90_64X256(Family.SM90, "64x256", 64, 256, 1, 2, 5, 1300, true),
    SM90_128X256(Family.SM90, "128x256", 128, 256, 1, 2, 4, 1300, false);

    /** Kernels that round alike. */
    enum Family {
        /** mma.sync, on every device. */
        MMA(16),
        /** wgmma and the tensor memory accelerator, of compute capability 9.0 alone. */
        SM90(64);

        private final int rowStep;

        Family(int rowStep) {
            this.rowStep = rowStep;
        }

        /** Rows that are multiplied together or not at all, if a tile lacks them. */
        int rowStep() {
            return rowStep;
        }
    }

    private static final Map<Family, List<Tile>> OF_FAMILY = new EnumMap<>(Family.class);

    static {
        for (Family family : Family.values()) {
            OF_FAMILY.put(
                    family,
                    List.of(values()).stream().filter(tile -> tile.family == family).toList());
        }
    }

    private final Family family;
    private final String label;
    private final int rows;
    private final int columns;
    private final int blocks;
    private final int cluster;
    private final int stages;
    private final int epilogueCycles;
    private final boolean hidesEpilogue;

    /**
     * A tile.
     *
     * @param blocks that a multiprocessor of sm_90 runs at once
     * @param cluster blocks that fetch the weight together, if they need the same
     * @param stages of 64 inputs that a block has on the way at once
     * @param epilogueCycles from the last sum to the next tile
     * @param hidesEpilogue whether the next tile is multiplied meanwhile
     */
    Tile(
            Family family,
            String label,
            int rows,
            int columns,
            int blocks,
            int cluster,
            int stages,
            int epilogueCycles,
            boolean hidesEpilogue) {
        this.family = family;
        this.label = label;
        this.rows = rows;
        this.columns = columns;
        this.blocks = blocks;
        this.cluster = cluster;
        this.stages = stages;
        this.epilogueCycles = epilogueCycles;
        this.hidesEpilogue = hidesEpilogue;
    }

    /** From small to large. */
    static List<Tile> of(Family family) {
        return OF_FAMILY.get(family);
    }

    /** The tile of that {@link #label}, or null. */
    static @Nullable Tile labelled(String label) {
        for (Tile tile : values()) {
            if (tile.label.equals(label)) {
                return tile;
            }
        }
        return null;
    }

    Family family() {
        return family;
    }

    /** What kernels and users call it. */
    String label() {
        return label;
    }

    int rows() {
        return rows;
    }

    /** Outputs; gates and ups count both. */
    int columns() {
        return columns;
    }

    int blocks() {
        return blocks;
    }

    int cluster() {
        return cluster;
    }

    int stages() {
        return stages;
    }

    int epilogueCycles() {
        return epilogueCycles;
    }

    boolean hidesEpilogue() {
        return hidesEpilogue;
    }
}
