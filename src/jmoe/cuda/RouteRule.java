package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.Selection;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** A {@link RouterConfig} as the routing kernels read it: 14 I32, then four F64. */
final class RouteRule {
    private static final int INTEGERS = 14;

    static final long BYTES = INTEGERS * 4 + 4 * 8;

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
        select(config);
        normalise(config.normalisation());
        boolean later = config.capacity() != null && config.capacity().normaliseAfter();
        set(9, later ? 1 : 0);
        set(10, config.tokenType());
        setDouble(2, config.factor());
        return struct;
    }

    private void select(RouterConfig config) {
        set(5, 0);
        set(6, 0);
        set(7, 0);
        set(11, 0);
        set(12, 0);
        set(13, config.judgedPerGroup());
        setDouble(0, 0);
        setDouble(3, 0);
        set(4, KernelCodes.of(config.selection()));
        switch (config.selection()) {
            case Selection.TopK topK -> {}
            case Selection.GroupLimited limited -> {
                set(5, limited.numGroups());
                set(6, limited.topGroups());
                set(7, KernelCodes.of(limited.groupScore()));
            }
            case Selection.SparseMixer mixer -> setDouble(0, mixer.jitter());
            case Selection.ProductKeys keys -> set(11, keys.numKeys());
            case Selection.OnePerGroup one -> set(5, one.numGroups());
            case Selection.TopP topP -> {
                set(12, topP.minExperts());
                setDouble(3, topP.p());
            }
            case Selection.EntropyK entropyK -> {
                set(12, entropyK.minExperts());
                setDouble(3, entropyK.alpha());
            }
            case Selection.TwoLevel two -> {
                set(5, two.numGroups());
                set(6, two.topGroups());
                set(12, two.perGroup());
            }
            case Selection.Hash hash -> {}
            case Selection.ExpertChoice choice -> {}
            case Selection.Sinkhorn sinkhorn -> {}
            case Selection.BalancedAssignment assignment -> {}
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
                parameter = sum.minSum();
            }
            case Normalisation.PNorm norm -> {
                code = 3;
                parameter = norm.p();
            }
            case Normalisation.Count count -> code = 4;
        }
        set(8, code);
        setDouble(1, parameter);
    }

    private void set(int index, int value) {
        struct.setAtIndex(JAVA_INT, index, value);
    }

    private void setDouble(int index, double value) {
        struct.set(JAVA_DOUBLE, INTEGERS * 4 + 8L * index, value);
    }
}
