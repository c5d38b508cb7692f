package jmoe.nativecpu;

import jmoe.tensor.Layout;

import java.lang.foreign.MemorySegment;

/**
 * A weight [groups, outputs, inputs] as the library reads it: in panels of {@link #COLUMNS}
 * outputs, side by side, input by input. Two panels are a block, which with two parts (gate and up)
 * holds the same columns of both.
 *
 * @param memory all panels
 * @param parts 1, or 2 if the outputs are gate rows before up rows
 * @param columns outputs of a part
 * @param groups groups
 * @param blocks blocks of one group
 * @param blockBytes bytes of a block
 */
record Panels(
        MemorySegment memory, int parts, long columns, long groups, long blocks, long blockBytes)
        implements Layout {
    static final int COLUMNS = 16;

    @Override
    public String describe() {
        return "panels of " + COLUMNS + " columns";
    }
}
