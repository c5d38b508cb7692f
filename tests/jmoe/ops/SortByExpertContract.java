package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Cases.Case;
import jmoe.tensor.DType;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.BitSet;

/** {@link Kernels#sortByExpert}: integers, so everything is exact. */
interface SortByExpertContract extends Contract {
    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void sortByExpert_equalsDefinition(Case c) {
        try (Arena arena = Arena.ofConfined()) {
            Routing want = Cases.routing(arena, c);
            Routing got = sorted(arena, c);
            int rows = Cases.rows(want.expertOffsets());
            for (int e = 0; e < c.numExperts(); e++) {
                assertThat(got.tokensPerExpert().getInt(e))
                        .as("tokensPerExpert[%d], %s", e, c)
                        .isEqualTo(want.tokensPerExpert().getInt(e));
            }
            for (int e = 0; e <= c.numExperts(); e++) {
                assertThat(got.expertOffsets().getInt(e))
                        .as("expertOffsets[%d], %s", e, c)
                        .isEqualTo(want.expertOffsets().getInt(e));
            }
            for (int row = 0; row < rows; row++) {
                assertThat(got.rowToSlot().getInt(row))
                        .as("rowToSlot[%d], %s", row, c)
                        .isEqualTo(want.rowToSlot().getInt(row));
            }
            for (int slot = 0; slot < c.slots(); slot++) {
                assertThat(got.slotToRow().getInt(slot))
                        .as("slotToRow[%d], %s", slot, c)
                        .isEqualTo(want.slotToRow().getInt(slot));
            }
        }
    }

    @ParameterizedTest
    @MethodSource("jmoe.ops.Cases#all")
    default void sortByExpert_isStableBijection(Case c) {
        try (Arena arena = Arena.ofConfined()) {
            Routing got = sorted(arena, c);
            BitSet seen = new BitSet();
            for (int e = 0; e < c.numExperts(); e++) {
                int previous = -1;
                int end = got.expertOffsets().getInt(e + 1);
                for (int row = got.expertOffsets().getInt(e); row < end; row++) {
                    int slot = got.rowToSlot().getInt(row);
                    assertThat(slot)
                            .as("row %d keeps slot order, %s", row, c)
                            .isGreaterThan(previous);
                    assertThat(got.topkIds().getInt(slot)).as("row %d, %s", row, c).isEqualTo(e);
                    assertThat(got.slotToRow().getInt(slot)).as("inverse, %s", c).isEqualTo(row);
                    seen.set(slot);
                    previous = slot;
                }
            }
            for (int slot = 0; slot < c.slots(); slot++) {
                int id = got.topkIds().getInt(slot);
                assertThat(seen.get(slot))
                        .as("slot %d with id %d has a row, %s", slot, id, c)
                        .isEqualTo(id >= 0 && id < c.numExperts());
            }
        }
    }

    /** Sorts into poisoned outputs and checks that nothing beside them was written. */
    private Routing sorted(Arena arena, Case c) {
        Poisoned counts = Poisoned.allocate(arena, DType.I32, c.numExperts());
        Poisoned offsets = Poisoned.allocate(arena, DType.I32, c.numExperts() + 1L);
        Poisoned rowToSlot = Poisoned.allocate(arena, DType.I32, c.slots());
        Poisoned slotToRow = Poisoned.allocate(arena, DType.I32, c.tokens(), c.topK());
        Routing given = Cases.routing(arena, c);
        Routing routing =
                new Routing(
                        given.topkIds(),
                        given.topkWeights(),
                        counts.tensor(),
                        offsets.tensor(),
                        rowToSlot.tensor(),
                        slotToRow.tensor());
        backend().sortByExpert(routing);
        counts.assertUntouchedFrom("sortByExpert", c + " tokensPerExpert", c.numExperts());
        offsets.assertUntouchedFrom("sortByExpert", c + " expertOffsets", c.numExperts() + 1L);
        rowToSlot.assertUntouchedFrom("sortByExpert", c + " rowToSlot", c.slots());
        slotToRow.assertUntouchedFrom("sortByExpert", c + " slotToRow", c.tokens());
        return routing;
    }
}
