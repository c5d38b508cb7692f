package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.Combinators;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;

import java.lang.foreign.Arena;
import java.util.List;

/** What holds for products of any sizes, besides what holds for permutations. */
public abstract class KernelsProperties extends PermutationProperties {
    /** Rows of each group, and the sizes and types of a product. */
    record Product(
            List<Integer> counts,
            int inputs,
            int outputs,
            DType x,
            DType weight,
            boolean prepared) {
        int rows() {
            return counts.stream().mapToInt(Integer::intValue).sum();
        }

        int[] groups() {
            return counts.stream().mapToInt(Integer::intValue).toArray();
        }
    }

    @Provide
    Arbitrary<Product> products() {
        Arbitrary<List<Integer>> counts =
                Arbitraries.integers().between(0, 35).list().ofMinSize(1).ofMaxSize(4);
        Arbitrary<DType> types = Arbitraries.of(Cases.FLOATING);
        return Combinators.combine(
                        counts,
                        Arbitraries.integers().between(1, 300),
                        Arbitraries.integers().between(8, 70),
                        types,
                        types,
                        Arbitraries.of(true, false))
                .as(Product::new);
    }

    private static Tensor x(Arena arena, Product of, double factor, boolean reversed) {
        Tensor x = Tensor.allocate(arena, of.x, of.rows(), of.inputs);
        Tensor random = Cases.normal(arena, of.x, of.inputs, of.rows(), of.inputs);
        int first = 0;
        for (int count : of.counts) {
            for (int i = 0; i < count; i++) {
                long to = first + (reversed ? count - 1 - i : i);
                for (int k = 0; k < of.inputs; k++) {
                    double value = random.getDouble((long) (first + i) * of.inputs + k);
                    x.setDouble(to * of.inputs + k, factor * value);
                }
            }
            first += count;
        }
        return x;
    }

    private Tensor product(Arena arena, Product of, Tensor x, DType y) {
        int groups = of.counts.size();
        Tensor weight = Cases.normal(arena, of.weight, 7, groups, of.outputs, of.inputs);
        Tensor used = of.prepared ? backend().prepare(weight, arena) : weight;
        Tensor result = Tensor.allocate(arena, y, of.rows(), of.outputs);
        backend().groupedGemm(x, used, null, Cases.offsets(arena, of.groups()), result);
        return result;
    }

    private static byte[] row(Tensor y, long row) {
        return y.slice(row, 1).data().toArray(JAVA_BYTE);
    }

    @Property(tries = 100)
    void groupedGemm_ofAnySizes_agreesWithReference(@ForAll("products") Product of) {
        try (Arena arena = Arena.ofShared();
                Kernels reference = new ReferenceKernels()) {
            Tensor x = x(arena, of, 1, false);
            Tensor got = product(arena, of, x, DType.F32);
            int groups = of.counts.size();
            Tensor weight = Cases.normal(arena, of.weight, 7, groups, of.outputs, of.inputs);
            Tensor want = Tensor.allocate(arena, DType.F64, of.rows(), of.outputs);
            reference.groupedGemm(x, weight, null, Cases.offsets(arena, of.groups()), want);
            Tolerance.assertClose("groupedGemm", of.toString(), got, want, of.inputs);
        }
    }

    /** A power of two changes no rounding. */
    @Property(tries = 50)
    void groupedGemm_ofTwiceX_isTwiceY(@ForAll("products") Product of) {
        try (Arena arena = Arena.ofShared()) {
            Tensor y = product(arena, of, x(arena, of, 1, false), DType.BF16);
            Tensor twice = product(arena, of, x(arena, of, 2, false), DType.BF16);
            for (long i = 0; i < y.numElements(); i++) {
                assertThat(twice.getDouble(i)).isEqualTo(2 * y.getDouble(i));
            }
        }
    }

    @Property(tries = 50)
    void groupedGemm_ofRowsInAnotherOrder_isInThatOrder(@ForAll("products") Product of) {
        try (Arena arena = Arena.ofShared()) {
            Tensor y = product(arena, of, x(arena, of, 1, false), DType.F32);
            Tensor reversed = product(arena, of, x(arena, of, 1, true), DType.F32);
            int first = 0;
            for (int count : of.counts) {
                for (int i = 0; i < count; i++) {
                    assertThat(row(reversed, first + count - 1L - i))
                            .isEqualTo(row(y, first + (long) i));
                }
                first += count;
            }
        }
    }
}
