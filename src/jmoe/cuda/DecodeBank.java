package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.ops.Activation;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;

/**
 * A bank of experts as a kernel of the decode path reads it: addresses on the device, 0 for none,
 * and sizes. See kernels/common/decode_bank.cuh.
 *
 * @param weight [groups, columns, inputs]; columns are outputs, or gates and then ups
 * @param bias [groups, columns], or 0
 * @param expertOffsets [groups + 1]
 * @param rowToSlot by which rows of x are gathered, or 0 if row r is token r
 * @param slotWeights factor of x by slot, or 0
 * @param x [tokens, inputs], or hidden [rows, inputs]
 * @param y hidden [rows, outputs], or 0
 * @param parts sums of slices
 * @param arrivals counters, or 0
 * @param rows how many there can be
 * @param groups experts; 0 for no bank
 * @param outputs of a row
 * @param inputs of a row
 * @param topK slots of a token
 * @param slicesPerUnit that a block takes at once
 * @param activation of the sums, or null
 */
record DecodeBank(
        long weight,
        long bias,
        long expertOffsets,
        long rowToSlot,
        long slotWeights,
        long x,
        long y,
        long parts,
        long arrivals,
        int rows,
        int groups,
        int outputs,
        int inputs,
        int topK,
        int slicesPerUnit,
        @Nullable Activation activation) {
    static final StructLayout LAYOUT =
            MemoryLayout.structLayout(
                    JAVA_LONG.withName("weight"),
                    JAVA_LONG.withName("bias"),
                    JAVA_LONG.withName("expert_offsets"),
                    JAVA_LONG.withName("row_to_slot"),
                    JAVA_LONG.withName("slot_weights"),
                    JAVA_LONG.withName("x"),
                    JAVA_LONG.withName("y"),
                    JAVA_LONG.withName("parts"),
                    JAVA_LONG.withName("arrivals"),
                    JAVA_INT.withName("rows"),
                    JAVA_INT.withName("groups"),
                    JAVA_INT.withName("outputs"),
                    JAVA_INT.withName("inputs"),
                    JAVA_INT.withName("top_k"),
                    JAVA_INT.withName("slices_per_unit"),
                    JAVA_INT.withName("kind"),
                    JAVA_FLOAT.withName("limit"));

    /** Of all structures of the decode path. */
    static final long ALIGNMENT = 8;

    /** No bank. */
    static final DecodeBank NONE =
            new DecodeBank(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, null);

    private static final long INTS =
            LAYOUT.byteOffset(MemoryLayout.PathElement.groupElement("rows"));

    boolean gated() {
        return activation != null && activation.gated();
    }

    int columns() {
        return gated() ? 2 * outputs : outputs;
    }

    /** Passes the structure. */
    void pass(Launch launch, MemorySegment struct) {
        long[] addresses = {
            weight, bias, expertOffsets, rowToSlot, slotWeights, x, y, parts, arrivals
        };
        int[] sizes = {
            rows,
            groups,
            outputs,
            inputs,
            topK,
            slicesPerUnit,
            activation == null ? GemmArguments.NO_ACTIVATION : KernelCodes.of(activation.kind())
        };
        MemorySegment.copy(addresses, 0, struct, JAVA_LONG, 0, addresses.length);
        MemorySegment.copy(sizes, 0, struct, JAVA_INT, INTS, sizes.length);
        float limit = activation == null ? 0 : activation.limit();
        struct.set(JAVA_FLOAT, INTS + Integer.BYTES * (long) sizes.length, limit);
        launch.struct(struct, ALIGNMENT);
    }
}
