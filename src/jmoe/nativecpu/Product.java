package jmoe.nativecpu;

import static java.lang.foreign.MemoryLayout.PathElement.groupElement;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.ops.Activation;
import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;

/**
 * What is the same for all items of a product: {@code jmoe_cpu_product}.
 *
 * @param inputs of a row of x and of the weight
 * @param columns outputs of a part
 * @param slots entries of rowToSlot; 0 without it
 * @param topK slots of a token; 1 without rowToSlot
 * @param parts 2 if the outputs are gate rows before up rows, else 1
 * @param packed whether the weight is in panels
 * @param x type of x
 * @param weight type of the weight
 * @param y type of the result
 * @param activation of the parts, or null to write them as they are
 * @param weighted whether x is multiplied by slot weights
 */
record Product(
        long inputs,
        long columns,
        long slots,
        int topK,
        int parts,
        boolean packed,
        DType x,
        DType weight,
        DType y,
        @Nullable Activation activation,
        boolean weighted) {
    static final StructLayout LAYOUT =
            MemoryLayout.structLayout(
                    JAVA_LONG.withName("inputs"),
                    JAVA_LONG.withName("columns"),
                    JAVA_LONG.withName("slots"),
                    JAVA_INT.withName("top_k"),
                    JAVA_INT.withName("parts"),
                    JAVA_INT.withName("packed"),
                    JAVA_INT.withName("x_type"),
                    JAVA_INT.withName("weight_type"),
                    JAVA_INT.withName("y_type"),
                    JAVA_INT.withName("activation"),
                    JAVA_FLOAT.withName("limit"),
                    JAVA_INT.withName("tier"),
                    JAVA_INT.withName("weighted"));

    private static final long INPUTS = offset("inputs");
    private static final long COLUMNS = offset("columns");
    private static final long SLOTS = offset("slots");
    private static final long TOP_K = offset("top_k");
    private static final long PARTS = offset("parts");
    private static final long PACKED = offset("packed");
    private static final long X_TYPE = offset("x_type");
    private static final long WEIGHT_TYPE = offset("weight_type");
    private static final long Y_TYPE = offset("y_type");
    private static final long ACTIVATION = offset("activation");
    private static final long LIMIT = offset("limit");
    private static final long TIER = offset("tier");
    private static final long WEIGHTED = offset("weighted");

    private static long offset(String name) {
        return LAYOUT.byteOffset(groupElement(name));
    }

    /** A weight to be packed, whatever it will be multiplied by. */
    static Product packing(long inputs, long columns, int parts, DType weight) {
        DType any = DType.F32;
        return new Product(inputs, columns, 0, 1, parts, true, any, weight, any, null, false);
    }

    /** Rows of one type by a weight of another, of no size. */
    static Product multiplying(DType x, DType weight) {
        return new Product(0, 0, 0, 1, 1, true, x, weight, DType.F32, null, false);
    }

    /** Writes the structure for a tier. */
    void write(Tier tier, MemorySegment to) {
        to.set(JAVA_LONG, INPUTS, inputs);
        to.set(JAVA_LONG, COLUMNS, columns);
        to.set(JAVA_LONG, SLOTS, slots);
        to.set(JAVA_INT, TOP_K, topK);
        to.set(JAVA_INT, PARTS, parts);
        to.set(JAVA_INT, PACKED, packed ? 1 : 0);
        to.set(JAVA_INT, X_TYPE, code(x));
        to.set(JAVA_INT, WEIGHT_TYPE, code(weight));
        to.set(JAVA_INT, Y_TYPE, code(y));
        to.set(JAVA_INT, ACTIVATION, code(activation));
        to.set(JAVA_FLOAT, LIMIT, activation == null ? 0 : activation.limit());
        to.set(JAVA_INT, TIER, tier.code());
        to.set(JAVA_INT, WEIGHTED, weighted ? 1 : 0);
    }

    private static int code(DType type) {
        return switch (type) {
            case F32 -> 0;
            case F16 -> 1;
            case BF16 -> 2;
            case I8 -> 3;
            default -> throw new UnsupportedOperationException(type + " is not computed with here");
        };
    }

    private static int code(@Nullable Activation activation) {
        if (activation == null) {
            return 0;
        }
        return switch (activation.kind()) {
            case SWIGLU -> 1;
            case CLAMPED_SWIGLU -> 2;
            case SILU -> 3;
            case RELU -> 4;
            case SQUARED_RELU -> 5;
            case GELU -> 6;
            case GELU_TANH -> 7;
            case LINEAR -> 8;
            case GEGLU -> 9;
            case GEGLU_TANH -> 10;
            case REGLU -> 11;
            case GLU -> 12;
            case BILINEAR -> 13;
        };
    }
}
