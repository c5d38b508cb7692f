package jmoe.vector;

import jmoe.tensor.Layout;

import java.lang.foreign.MemorySegment;

/**
 * A weight [groups, outputs, inputs] rearranged so that a product streams through it: a panel holds
 * {@link #COLUMNS} outputs, input by input, and {@link #BLOCK_PANELS} panels form a block, which is
 * what a worker multiplies by at a time. Missing columns are zeros.
 *
 * <p>With two parts (gate and up), a block holds the same columns of both, so that the activation
 * finds them side by side: first the panels of the gate, then those of up.
 *
 * <p>A 16-bit element shares an integer with the one half a panel further: the low half belongs to
 * the first vector of the panel, the high half to the second.
 *
 * @param memory all panels
 * @param format how an element is stored
 * @param parts 1, or 2 if the outputs are gate rows before up rows
 * @param columns outputs of a part
 * @param inputs inputs
 * @param blocks blocks of one group
 */
record Panels(MemorySegment memory, Format format, int parts, long columns, int inputs, long blocks)
        implements Layout {
    /** Outputs of a panel: two vectors, which a 16-bit element pair fills. */
    static final int COLUMNS = 2 * Lanes.COUNT;

    /**
     * Panels of a block; a single row multiplies by all of them at once to keep loads in flight.
     */
    static final int BLOCK_PANELS = 4;

    /** Outputs of a block, of all parts. */
    static final int BLOCK_COLUMNS = BLOCK_PANELS * COLUMNS;

    /** How elements are stored. */
    enum Format {
        /** As they are. */
        F32(4),
        /** As they are. */
        BF16(2),
        /**
         * F16 with exponents raised by 10, so that subnormal numbers become normal ones and decode
         * without penalty; infinities, NaN and numbers from 128 up do not fit.
         */
        RAISED_F16(2);

        private final int elementBytes;

        Format(int elementBytes) {
            this.elementBytes = elementBytes;
        }

        /** Bytes of a panel's elements for one input. */
        int stepBytes() {
            return COLUMNS * elementBytes;
        }
    }

    /** Blocks that hold some columns of each part. */
    static long blocks(int parts, long columns) {
        return Math.ceilDiv(columns, (long) BLOCK_COLUMNS / parts);
    }

    /** Bytes of one panel, and so from one panel of a block to the next. */
    long panelBytes() {
        return (long) inputs * format.stepBytes();
    }

    /** The same panels seen through another segment of the same memory. */
    Panels at(MemorySegment view) {
        return new Panels(view, format, parts, columns, inputs, blocks);
    }

    /** Where the block's first panel begins. */
    long offsetBytes(long group, long block) {
        return (group * blocks + block) * BLOCK_PANELS * panelBytes();
    }

    @Override
    public String describe() {
        return "panels of " + COLUMNS + " columns";
    }
}
