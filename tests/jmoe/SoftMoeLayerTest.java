package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Cases;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.SoftMoeWeights;
import jmoe.ops.Tolerance;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.stream.Stream;

/** The layer against its equations. */
final class SoftMoeLayerTest {
    private static final int HIDDEN = 22;
    private static final int INTERMEDIATE = 13;

    static Stream<Backend> backends() {
        return Stream.of(Backend.values()).filter(b -> b.unavailable().isEmpty());
    }

    @ParameterizedTest
    @MethodSource("backends")
    void forward_isWhatTheEquationsSay(Backend backend) {
        // Experts, slots of each, most tokens.
        int[][] sizes = {{1, 1, 4}, {3, 2, 9}, {4, 5, 40}};
        try (Kernels kernels = backend.open();
                Arena arena = Arena.ofShared()) {
            for (int[] size : sizes) {
                SoftMoeWeights weights = weights(arena, size[0], size[1], DType.F32);
                try (SoftMoeLayer layer = new SoftMoeLayer(weights, kernels, size[2], DType.F32)) {
                    for (int tokens : new int[] {size[2], 0, 1, 3}) {
                        Tensor x = Cases.normal(arena, DType.F32, 9, tokens, HIDDEN);
                        Tensor y = Tensor.allocate(arena, DType.F32, tokens, HIDDEN);
                        layer.forward(x, y);
                        String name = "%s, %d tokens on %s";
                        Tolerance.assertClose(
                                "Soft-MoE",
                                name.formatted(Arrays.toString(size), tokens, backend),
                                y,
                                layer(arena, weights, x),
                                2 * HIDDEN + INTERMEDIATE + tokens + weights.numSlots(),
                                DType.F32,
                                DType.F32);
                    }
                }
            }
        }
    }

    private static SoftMoeWeights weights(
            Arena arena, int experts, int slotsPerExpert, DType type) {
        ExpertWeights bank =
                new ExpertWeights(
                        Cases.normal(arena, type, 1, experts, 2 * INTERMEDIATE, HIDDEN),
                        Cases.normal(arena, type, 2, experts, HIDDEN, INTERMEDIATE),
                        null,
                        null,
                        Activation.SWIGLU);
        int numSlots = experts * slotsPerExpert;
        return new SoftMoeWeights(Cases.normal(arena, type, 3, numSlots, HIDDEN), 3.5, bank);
    }

    private static Tensor layer(Arena arena, SoftMoeWeights weights, Tensor x) {
        int tokens = (int) x.dim(0);
        int slots = weights.numSlots();
        double[][] xs = rows(x);
        double[][] phi = rows(weights.slots());
        double[][] e = new double[tokens][slots];
        for (int t = 0; t < tokens; t++) {
            for (int s = 0; s < slots; s++) {
                double lengths =
                        (Math.sqrt(dot(xs[t], xs[t])) + 1e-6)
                                * (Math.sqrt(dot(phi[s], phi[s])) + 1e-6);
                e[t][s] = Math.exp(weights.factor() * dot(xs[t], phi[s]) / lengths);
            }
        }
        double[][] results = new double[slots][];
        for (int s = 0; s < slots; s++) {
            double column = 0;
            double[] mixture = new double[HIDDEN];
            for (int t = 0; t < tokens; t++) {
                column += e[t][s];
            }
            for (int t = 0; t < tokens; t++) {
                add(e[t][s] / column, xs[t], mixture);
            }
            int expert = s / (slots / weights.experts().numExperts());
            results[s] = swiglu(weights.experts(), expert, mixture);
        }
        Tensor y = Tensor.allocate(arena, DType.F64, tokens, HIDDEN);
        for (int t = 0; t < tokens; t++) {
            double total = Arrays.stream(e[t]).sum();
            double[] mixture = new double[HIDDEN];
            for (int s = 0; s < slots; s++) {
                add(e[t][s] / total, results[s], mixture);
            }
            for (int h = 0; h < HIDDEN; h++) {
                y.setDouble((long) t * HIDDEN + h, mixture[h]);
            }
        }
        return y;
    }

    private static double[] swiglu(ExpertWeights experts, int expert, double[] x) {
        double[][] gateUp =
                rows(experts.gateUp().slice(expert, 1).reshape(2L * INTERMEDIATE, HIDDEN));
        double[][] down = rows(experts.down().slice(expert, 1).reshape(HIDDEN, INTERMEDIATE));
        double[] hidden = new double[INTERMEDIATE];
        for (int i = 0; i < INTERMEDIATE; i++) {
            double gate = dot(gateUp[i], x);
            hidden[i] = gate / (1 + Math.exp(-gate)) * dot(gateUp[INTERMEDIATE + i], x);
        }
        return Arrays.stream(down).mapToDouble(row -> dot(row, hidden)).toArray();
    }

    private static double[][] rows(Tensor matrix) {
        double[][] rows = new double[(int) matrix.dim(0)][(int) matrix.dim(1)];
        for (int i = 0; i < matrix.numElements(); i++) {
            rows[i / (int) matrix.dim(1)][i % (int) matrix.dim(1)] = matrix.getDouble(i);
        }
        return rows;
    }

    private static double dot(double[] a, double[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += a[i] * b[i];
        }
        return sum;
    }

    private static void add(double weight, double[] row, double[] sum) {
        for (int i = 0; i < row.length; i++) {
            sum[i] += weight * row[i];
        }
    }

    /** 16-bit weights, tokens and rows, twice the same bits; on a device where there is one. */
    @ParameterizedTest
    @MethodSource("backends")
    void forward_repeatsItsBits(Backend backend) {
        try (Kernels kernels = backend.open();
                Arena arena = Arena.ofShared()) {
            SoftMoeWeights weights = weights(arena, 3, 2, DType.BF16);
            try (SoftMoeLayer layer = new SoftMoeLayer(weights, kernels, 9, DType.BF16)) {
                Tensor host = Cases.normal(arena, DType.BF16, 9, 9, HIDDEN);
                Tensor x = kernels.allocate(arena, DType.BF16, 9, HIDDEN);
                kernels.copy(host, x);
                Tensor there = kernels.allocate(arena, DType.F32, 9, HIDDEN);
                Tensor first = Tensor.allocate(arena, DType.F32, 9, HIDDEN);
                Tensor second = Tensor.allocate(arena, DType.F32, 9, HIDDEN);
                layer.forward(host, first);
                layer.forward(x, there);
                kernels.copy(there, second);
                assertThat(second.data().mismatch(first.data())).isEqualTo(-1);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"5, 22", "0, 22", "6, 21"})
    void weights_areCheckedAgainstEachOther(long numSlots, long hidden) {
        try (Arena arena = Arena.ofConfined()) {
            ExpertWeights bank = weights(arena, 3, 1, DType.F32).experts();
            Tensor slots = Tensor.allocate(arena, DType.F32, numSlots, hidden);
            assertThatThrownBy(() -> new SoftMoeWeights(slots, 1, bank))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "slots: expected [a multiple of numExperts=3, hidden=22], got F32 [%d,"
                                            .formatted(numSlots)
                                    + " "
                                    + hidden
                                    + "]");
        }
    }

    @Test
    void layer_refusesWhatItCannotDo() {
        try (Kernels kernels = Backend.REFERENCE.open();
                Arena arena = Arena.ofShared()) {
            SoftMoeWeights weights = weights(arena, 3, 1, DType.F32);
            assertThatThrownBy(() -> new SoftMoeLayer(weights, kernels, 2, DType.F64))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("rowType: expected F32, F16 or BF16, got F64");
            assertThatThrownBy(
                            () -> new SoftMoeWeights(weights.slots(), 0 / 0.0, weights.experts()))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("factor: expected a finite number, got NaN");
            SoftMoeLayer layer = new SoftMoeLayer(weights, kernels, 2, DType.F32);
            Tensor x = Tensor.allocate(arena, DType.F32, 2, HIDDEN);
            assertThatThrownBy(() -> layer.forward(x, x))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("y: expected memory of its own, got memory shared with x");
            layer.close();
            layer.close();
        }
    }
}
