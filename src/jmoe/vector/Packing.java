package jmoe.vector;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import jmoe.tensor.DType;
import jmoe.vector.Panels.Format;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/** Rearranges parts of a row-major weight into panels; owned by one worker. */
final class Packing {
    /** Exponents of F16 from 2^7 up, infinities and NaN among them: they cannot be raised by 10. */
    private static final int UNRAISABLE = 22 << 10;

    private static final int RAISE = 10 << 10;
    private static final int FRACTION_BITS = 10;

    private final float[] rows = new float[Panels.COLUMNS * Rows.STRIDE];
    private final float[] panel = new float[Panels.COLUMNS * Rows.MAX_INPUTS];
    private final short[] codeRows = new short[Panels.COLUMNS * Rows.MAX_INPUTS];
    private final int[] codePanel = new int[Lanes.COUNT * Rows.MAX_INPUTS];

    /**
     * A row-major weight.
     *
     * @param elements [groups, parts * columns, inputs]
     * @param parts as of {@link Panels}
     * @param columns as of {@link Panels}
     * @param inputs as of {@link Panels}
     */
    record Source(Elements elements, int parts, long columns, int inputs) {
        /** The panel's columns that exist. */
        int width(long block, int panel) {
            return Math.clamp(columns - firstColumn(block, panel), 0, Panels.COLUMNS);
        }

        private long firstColumn(long block, int panel) {
            int panelsOfPart = Panels.BLOCK_PANELS / parts;
            return (block * panelsOfPart + panel % panelsOfPart) * Panels.COLUMNS;
        }

        /** First element of a panel's first column. */
        long element(long group, long block, int panel) {
            int part = panel / (Panels.BLOCK_PANELS / parts);
            return ((group * parts + part) * columns + firstColumn(block, panel)) * inputs;
        }
    }

    /**
     * Packs all inputs of a block.
     *
     * @param source the weight
     * @param to where to
     * @param group which group
     * @param block which block
     */
    void pack(Source source, Panels to, long group, long block) {
        int stepBytes = to.format().stepBytes();
        for (int input = 0; input < source.inputs; input += Rows.MAX_INPUTS) {
            int count = Math.min(Rows.MAX_INPUTS, source.inputs - input);
            for (int p = 0; p < Panels.BLOCK_PANELS; p++) {
                long at = to.offsetBytes(group, block) + p * to.panelBytes();
                at += (long) input * stepBytes;
                int width = source.width(block, p);
                long element = source.element(group, block, p) + input;
                if (to.format() == Format.F32) {
                    widen(source, element, width, count, to.memory(), at);
                } else {
                    pair(source, element, width, count, to.memory(), at);
                }
            }
        }
    }

    /**
     * Packs some inputs of a block as F32 panels, one after the other.
     *
     * @param source the weight
     * @param group which group
     * @param block which block
     * @param input first input
     * @param count inputs, at most {@link Rows#MAX_INPUTS}
     * @param to receives the panels from its first byte on
     */
    void widen(Source source, long group, long block, int input, int count, MemorySegment to) {
        long panelBytes = (long) count * Format.F32.stepBytes();
        for (int p = 0; p < Panels.BLOCK_PANELS; p++) {
            long element = source.element(group, block, p) + input;
            widen(source, element, source.width(block, p), count, to, p * panelBytes);
        }
    }

    private void widen(
            Source source, long element, int width, int count, MemorySegment to, long at) {
        for (int c = 0; c < width; c++) {
            long first = element + (long) c * source.inputs;
            source.elements.read(first, count, rows, c * Rows.STRIDE);
        }
        Arrays.fill(rows, width * Rows.STRIDE, rows.length, 0);
        for (int k = 0; k < count; k++) {
            for (int c = 0; c < Panels.COLUMNS; c++) {
                panel[k * Panels.COLUMNS + c] = rows[c * Rows.STRIDE + k];
            }
        }
        MemorySegment.copy(panel, 0, to, JAVA_FLOAT_UNALIGNED, at, count * Panels.COLUMNS);
    }

    private void pair(
            Source source, long element, int width, int count, MemorySegment to, long at) {
        for (int c = 0; c < width; c++) {
            long offset = (element + (long) c * source.inputs) * Short.BYTES;
            MemorySegment data = source.elements.data();
            MemorySegment.copy(
                    data, JAVA_SHORT_UNALIGNED, offset, codeRows, c * Rows.MAX_INPUTS, count);
        }
        Arrays.fill(codeRows, width * Rows.MAX_INPUTS, codeRows.length, (short) 0);
        if (source.elements.dtype() == DType.F16) {
            for (int i = 0; i < codeRows.length; i++) {
                codeRows[i] = raise(codeRows[i]);
            }
        }
        int upper = Lanes.COUNT * Rows.MAX_INPUTS;
        for (int k = 0; k < count; k++) {
            for (int c = 0; c < Lanes.COUNT; c++) {
                int low = codeRows[c * Rows.MAX_INPUTS + k];
                int high = codeRows[upper + c * Rows.MAX_INPUTS + k];
                codePanel[k * Lanes.COUNT + c] = (high << 16) | (low & 0xffff);
            }
        }
        MemorySegment.copy(codePanel, 0, to, JAVA_INT_UNALIGNED, at, count * Lanes.COUNT);
    }

    /** Whether all F16 codes of a range can be raised. */
    static boolean canRaise(Elements elements, long from, long to) {
        for (long i = from; i < to; i++) {
            int code = elements.data().get(JAVA_SHORT_UNALIGNED, i * Short.BYTES);
            if ((code & 0x7fff) >= UNRAISABLE) {
                return false;
            }
        }
        return true;
    }

    /** The F16 code with its exponent raised by 10; a subnormal number becomes a normal one. */
    static short raise(short code) {
        int sign = code & 0x8000;
        int magnitude = code & 0x7fff;
        if (magnitude >= 1 << FRACTION_BITS) {
            return (short) (sign | (magnitude + RAISE));
        }
        if (magnitude == 0) {
            return code;
        }
        int leading = Integer.SIZE - 1 - Integer.numberOfLeadingZeros(magnitude);
        int fraction = (magnitude << (FRACTION_BITS - leading)) & ((1 << FRACTION_BITS) - 1);
        return (short) (sign | ((leading + 1) << FRACTION_BITS) | fraction);
    }
}
