package jmoe.nativecpu;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases;
import jmoe.ops.GuardedMemory;
import jmoe.ops.Kernels;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.vector.VectorKernels;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;

/** Random products: which bits they have, and that they touch nothing but their operands. */
class NativeBitsTest {
    /** A product of every activation, and without any. */
    private static List<@Nullable Kind> kinds() {
        List<@Nullable Kind> kinds = new ArrayList<>(Arrays.asList(Kind.values()));
        kinds.addFirst(null);
        return kinds;
    }

    /** Every combination of types, several of each. */
    private static List<ProductCase> cases(SplittableRandom random, int ofEach) {
        List<ProductCase> cases = new ArrayList<>();
        for (DType x : Cases.FLOATING) {
            for (DType weight : Cases.FLOATING) {
                for (DType y : Cases.FLOATING) {
                    for (int i = 0; i < ofEach; i++) {
                        Kind kind = kinds().get(random.nextInt(kinds().size()));
                        cases.add(ProductCase.random(random, x, weight, y, kind));
                    }
                }
            }
        }
        for (Kind kind : kinds()) {
            for (int i = 0; i < ofEach; i++) {
                DType type = Cases.FLOATING.get(random.nextInt(3));
                cases.add(ProductCase.random(random, type, type, DType.F32, kind));
            }
        }
        return cases;
    }

    private static byte[] run(ProductCase product, Kernels kernels, boolean prepared) {
        try (Arena arena = Arena.ofConfined()) {
            return product.run(
                    kernels, prepared, (dtype, shape) -> Tensor.allocate(arena, dtype, shape));
        }
    }

    @ParameterizedTest
    @EnumSource
    void products_withoutTilesHaveTheBitsOfTheVectorBackend(Tier tier) {
        NativeLibrary library = BuiltLibrary.EMULATED.open(tier);
        try (Kernels kernels = NativeKernelsTest.kernels(library, 2);
                Kernels vector = new VectorKernels(1)) {
            for (ProductCase product : cases(new SplittableRandom(5), 12)) {
                if (tier == Tier.AMX && product.usesTiles()) {
                    continue;
                }
                byte[] want = run(product, vector, false);
                assertThat(run(product, kernels, false)).as("%s", product).isEqualTo(want);
                assertThat(run(product, kernels, true)).as("prepared %s", product).isEqualTo(want);
            }
        }
    }

    /** The library of the jar, on whatever this machine has. */
    @ParameterizedTest
    @EnumSource
    void products_ofTheRealLibraryHaveTheBitsOfTheEmulatedOne(Tier tier) {
        try (Kernels kernels = NativeKernelsTest.kernels(BuiltLibrary.REAL.open(tier), 2);
                Kernels emulated = NativeKernelsTest.kernels(BuiltLibrary.EMULATED.open(tier), 1)) {
            for (ProductCase product : cases(new SplittableRandom(7), 6)) {
                assertThat(run(product, kernels, true))
                        .as("%s", product)
                        .isEqualTo(run(product, emulated, true));
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void products_haveTheSameBitsForAnyThreadsAndPreparedOrNot(Tier tier) {
        NativeLibrary library = BuiltLibrary.EMULATED.open(tier);
        try (Kernels one = NativeKernelsTest.kernels(library, 1);
                Kernels two = NativeKernelsTest.kernels(library, 2);
                Kernels five = NativeKernelsTest.kernels(library, 5)) {
            for (ProductCase product : cases(new SplittableRandom(11), 3)) {
                byte[] want = run(product, one, true);
                assertThat(run(product, one, false)).as("%s", product).isEqualTo(want);
                assertThat(run(product, two, true)).as("%s", product).isEqualTo(want);
                assertThat(run(product, five, false)).as("%s", product).isEqualTo(want);
                assertThat(run(product, five, true)).as("%s", product).isEqualTo(want);
            }
        }
    }

    /** A guard page directly behind the last byte of every operand, then before the first. */
    @ParameterizedTest
    @EnumSource
    void products_stayWithinTheirOperands(Tier tier) {
        staysWithin(BuiltLibrary.EMULATED.open(tier));
    }

    @ParameterizedTest
    @EnumSource
    void products_ofTheRealLibraryStayWithinTheirOperands(Tier tier) {
        staysWithin(BuiltLibrary.REAL.open(tier));
    }

    private static void staysWithin(NativeLibrary library) {
        Assumptions.assumeTrue(GuardedMemory.available());
        try (Kernels kernels = NativeKernelsTest.kernels(library, 2)) {
            for (ProductCase product : cases(new SplittableRandom(13), 3)) {
                byte[] want = run(product, kernels, true);
                for (boolean prepared : new boolean[] {false, true}) {
                    try (GuardedMemory guarded = new GuardedMemory()) {
                        Allocator before =
                                (dtype, shape) ->
                                        Tensor.of(
                                                guarded.before(bytes(dtype, shape)), dtype, shape);
                        assertThat(product.run(kernels, prepared, before))
                                .as("guard page behind the last byte, %s", product)
                                .isEqualTo(want);
                        Allocator behind =
                                (dtype, shape) ->
                                        Tensor.of(
                                                guarded.behind(bytes(dtype, shape)), dtype, shape);
                        assertThat(product.run(kernels, prepared, behind))
                                .as("guard page before the first byte, %s", product)
                                .isEqualTo(want);
                    }
                }
            }
        }
    }

    private static long bytes(DType dtype, long... shape) {
        return dtype.numBytes(Arrays.stream(shape).reduce(1, (a, b) -> a * b));
    }
}
