package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Selection;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** A {@link RouterConfig} as the routing kernels read it: twelve I32, then three F64. */
final class RouteRule {
    static final long BYTES = 12 * 4 + 3 * 8;

    static final long ALIGNMENT = 8;

    private final MemorySegment struct;

    RouteRule(Arena arena) {
        struct = arena.allocate(BYTES, ALIGNMENT);
    }

    /** The structure for a rule; valid until the next call. */
    MemorySegment of(RouterConfig config) {
        set(0, config.numExperts());
        set(1, config.topK());
        set(2, config.numLogits());
        set(3, KernelCodes.of(config.score()));
        select(config.selection());
        normalise(config.normalisation());
        boolean later = config.capacity() != null && config.capacity().normaliseAfter();
        set(9, later ? 1 : 0);
        set(10, config.tokenType());
        setDouble(2, config.factor());
        return struct;
    }

    private void select(Selection selection) {
        set(5, 0);
        set(6, 0);
        set(7, 0);
        set(11, 0);
        setDouble(0, 0);
        switch (selection) {
            case Selection.TopK topK -> set(4, 0);
            case Selection.GroupLimited limited -> {
                set(4, 1);
                set(5, limited.numGroups());
                set(6, limited.topGroups());
                set(7, KernelCodes.of(limited.groupScore()));
            }
            case Selection.SparseMixer mixer -> {
                set(4, 2);
                setDouble(0, mixer.jitter());
            }
            case Selection.ProductKeys keys -> {
                set(4, 3);
                set(11, keys.numKeys());
            }
            // The batch has chosen when a rule with one of these is applied to tokens.
            case Selection.ExpertChoice choice -> set(4, 4);
            case Selection.Sinkhorn sinkhorn -> set(4, 4);
            case Selection.BalancedAssignment assignment -> set(4, 4);
        }
    }

    private void normalise(Normalisation normalisation) {
        int code = 0;
        double parameter = 0;
        switch (normalisation) {
            case Normalisation.None none -> {}
            case Normalisation.Sum sum -> {
                code = 1;
                parameter = sum.epsilon();
            }
            case Normalisation.ClampedSum sum -> {
                code = 2;
                parameter = sum.min();
            }
            case Normalisation.PNorm norm -> {
                code = 3;
                parameter = norm.p();
            }
        }
        set(8, code);
        setDouble(1, parameter);
    }

    private void set(int index, int value) {
        struct.setAtIndex(JAVA_INT, index, value);
    }

    private void setDouble(int index, double value) {
        struct.set(JAVA_DOUBLE, 12 * 4 + 8L * index, value);
    }
}
