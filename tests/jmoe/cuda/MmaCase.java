package jmoe.cuda;

import tools.jackson.databind.JsonNode;

import java.util.function.DoubleSupplier;
import java.util.function.ToIntFunction;

/** Operands of one mma.sync as the tables deal them to lanes, and what must come out. */
final class MmaCase {
    /** Accumulators of a lane. */
    static final int RESULTS = 4;

    private static final int LANES = 32;
    private static final int ROWS = 16;
    private static final int COLUMNS = 8;

    private final Element element;
    private final int depth;
    private final Operand a;
    private final Operand b;
    private final int[] rows;
    private final int[] columns;
    private final double[] accumulators = new double[ROWS * COLUMNS];

    /** A matrix of codes, and the element that each value of each lane holds. */
    private record Operand(int[] codes, int perLane, int[] mn, int[] k) {}

    /**
     * Draws both matrices.
     *
     * @param shape as in a symbol, for example {@code m16n8k16_bf16}
     * @param code draws an element
     */
    MmaCase(String shape, ToIntFunction<Element> code) {
        JsonNode table = Table.of("mma_sync").get(shape);
        element = Element.in(shape);
        depth = Integer.parseInt(shape.substring(shape.indexOf('k') + 1, shape.indexOf('_')));
        a = draw(table.get("A"), "m", ROWS, code);
        b = draw(table.get("B"), "n", COLUMNS, code);
        rows = Table.ints(table.get("C").get("m"));
        columns = Table.ints(table.get("C").get("n"));
    }

    private Operand draw(JsonNode table, String axis, int extent, ToIntFunction<Element> code) {
        int[] codes = new int[extent * depth];
        for (int i = 0; i < codes.length; i++) {
            codes[i] = code.applyAsInt(element);
        }
        return new Operand(
                codes,
                table.get("values").asInt(),
                Table.ints(table.get(axis)),
                Table.ints(table.get("k")));
    }

    void drawAccumulators(DoubleSupplier number) {
        for (int i = 0; i < accumulators.length; i++) {
            accumulators[i] = number.getAsDouble();
        }
    }

    /** Each lane's registers of a, b and c. */
    byte[] in() {
        int aBytes = a.perLane * element.bytes();
        int bBytes = b.perLane * element.bytes();
        int laneBytes = aBytes + bBytes + 4 * RESULTS;
        byte[] in = new byte[LANES * laneBytes];
        for (int lane = 0; lane < LANES; lane++) {
            deal(a, lane, in, lane * laneBytes);
            deal(b, lane, in, lane * laneBytes + aBytes);
            for (int v = 0; v < RESULTS; v++) {
                int at = place(lane, v);
                Words.set(
                        in, lane * laneBytes + aBytes + bBytes + 4 * v, 4, bits(accumulators[at]));
            }
        }
        return in;
    }

    private void deal(Operand operand, int lane, byte[] in, int offset) {
        for (int v = 0; v < operand.perLane; v++) {
            int i = lane * operand.perLane + v;
            int code = operand.codes[operand.mn[i] * depth + operand.k[i]];
            Words.set(in, offset + v * element.bytes(), element.bytes(), code);
        }
    }

    private int place(int lane, int v) {
        return rows[lane * RESULTS + v] * COLUMNS + columns[lane * RESULTS + v];
    }

    private int bits(double number) {
        return element == Element.S8 ? (int) number : Float.floatToRawIntBits((float) number);
    }

    int outBytes() {
        return 4 * LANES * RESULTS;
    }

    /** The results of sums that no rounding touches. */
    byte[] expected() {
        byte[] expected = new byte[outBytes()];
        for (int i = 0; i < LANES * RESULTS; i++) {
            Words.set(expected, 4 * i, 4, bits(sum(place(i / RESULTS, i % RESULTS), false)));
        }
        return expected;
    }

    /** The largest error, each relative to the magnitudes that were added. */
    double largestError(byte[] got) {
        double largest = 0;
        for (int i = 0; i < LANES * RESULTS; i++) {
            int at = place(i / RESULTS, i % RESULTS);
            double have = Float.intBitsToFloat((int) Words.at(got, 4, i));
            double error = Math.abs(have - sum(at, false)) / sum(at, true);
            // Math.max keeps NaN.
            largest = Math.max(largest, error);
        }
        return largest;
    }

    private double sum(int at, boolean magnitudes) {
        double sum = magnitudes ? Math.abs(accumulators[at]) : accumulators[at];
        for (int k = 0; k < depth; k++) {
            double product =
                    element.value(a.codes[at / COLUMNS * depth + k])
                            * element.value(b.codes[at % COLUMNS * depth + k]);
            sum += magnitudes ? Math.abs(product) : product;
        }
        return sum;
    }
}
