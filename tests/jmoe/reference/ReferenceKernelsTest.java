package jmoe.reference;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Activation;
import jmoe.ops.Kernels;
import jmoe.ops.KernelsContract;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;

/** Of the contract, the invariants, hazards and independent checks say something here. */
final class ReferenceKernelsTest extends KernelsContract {
    @Override
    protected Kernels kernels() {
        return new ReferenceKernels();
    }

    @Override
    public boolean computesDouble() {
        return true;
    }

    @Override
    public boolean computesQuantised() {
        return true;
    }

    @Override
    public boolean refusesCallsAfterClose() {
        return false;
    }

    @Override
    public boolean worksThroughGigabytes() {
        return false;
    }

    /** Compiled code may add in another order than interpreted code, and so keep another NaN. */
    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "BF16", "F64"})
    void operations_giveOneNanOnly(DType dtype) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = nans(arena, 1, 2);
            Tensor offsets = Tensor.allocate(arena, DType.I32, 2);
            offsets.setInt(1, 1);
            Tensor ones = Tensor.allocate(arena, DType.F32, 1, 1, 2);
            ones.setDouble(0, 1);
            ones.setDouble(1, 1);
            Tensor canonical = Tensor.allocate(arena, dtype, 1, 1);
            canonical.setDouble(0, Double.NaN);
            Tensor y = Tensor.allocate(arena, dtype, 1, 1);
            for (int repeat = 0; repeat < 60_000; repeat++) {
                kernels().groupedGemm(x, ones, null, offsets, y);
                assertThat(y.data().mismatch(canonical.data())).isEqualTo(-1);
            }
            kernels().swiglu(x, Activation.SWIGLU, offsets, y);
            assertThat(y.data().mismatch(canonical.data())).isEqualTo(-1);
            Routing routing = Routing.allocate(arena, 1, 1, 1);
            kernels().sortByExpert(routing);
            kernels().unpermute(nans(arena, 1, 1), routing, null, Kernels.Residual.NONE, y);
            assertThat(y.data().mismatch(canonical.data())).isEqualTo(-1);
        }
    }

    @Test
    void permute_copiesBitsWhereItDoesNotCompute() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = nans(arena, 1, 2);
            Routing routing = Routing.allocate(arena, 1, 1, 1);
            kernels().sortByExpert(routing);
            Tensor rows = Tensor.allocate(arena, DType.F32, 1, 2);
            kernels().permute(x, routing, null, rows);
            assertThat(rows.data().mismatch(x.data())).isEqualTo(-1);
        }
    }

    /** Each NaN has a sign and payload of its own. */
    private static Tensor nans(Arena arena, long rows, long columns) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, rows, columns);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.data().set(ValueLayout.JAVA_INT_UNALIGNED, i * 4, 0xffd2_4001 + (int) i);
        }
        return tensor;
    }
}
