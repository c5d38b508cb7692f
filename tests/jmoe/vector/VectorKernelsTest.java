package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.KernelsContract;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;

/** The contract with several numbers of threads, and what is particular to threads. */
class VectorKernelsTest {
    @Nested
    class OneThread extends KernelsContract {
        @Override
        protected Kernels kernels() {
            return new VectorKernels(1);
        }

        @Override
        public boolean worksThroughGigabytes() {
            return false;
        }
    }

    @Nested
    class TwoThreads extends KernelsContract {
        @Override
        protected Kernels kernels() {
            return new VectorKernels(2);
        }
    }

    @Nested
    class ThreeThreads extends KernelsContract {
        @Override
        protected Kernels kernels() {
            return new VectorKernels(3);
        }

        @Override
        public boolean worksThroughGigabytes() {
            return false;
        }
    }

    private static Tensor random(Arena arena, Random random, DType dtype, long... shape) {
        Tensor tensor = Tensor.allocate(arena, dtype, shape);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, random.nextGaussian());
        }
        return tensor;
    }

    private static Tensor ints(Arena arena, int... values) {
        Tensor tensor = Tensor.allocate(arena, DType.I32, values.length);
        for (int i = 0; i < values.length; i++) {
            tensor.setInt(i, values[i]);
        }
        return tensor;
    }

    private static byte[] bytes(Tensor tensor) {
        return tensor.data().toArray(ValueLayout.JAVA_BYTE);
    }

    /** All operations after each other; returns the bytes of all outputs. */
    private static byte[] layer(VectorKernels kernels, Arena arena, DType dtype, int tokens) {
        Random random = new Random(11);
        int hidden = 70;
        int intermediate = 37;
        int experts = 6;
        RouterConfig config = RouterConfig.softmaxTopK(experts, 3, true);
        Tensor x = random(arena, random, dtype, tokens, hidden);
        Tensor gateUp = random(arena, random, dtype, experts, 2 * intermediate, hidden);
        Tensor down = random(arena, random, dtype, experts, hidden, intermediate);
        Tensor bias = random(arena, random, DType.F32, experts, hidden);
        Tensor logits = random(arena, random, DType.F32, tokens, experts);
        Routing routing = Routing.allocate(arena, tokens, config.topK(), experts);
        kernels.route(logits, config, RouteInputs.NONE, routing);
        kernels.sortByExpert(routing);
        long rows = 3L * tokens;
        Tensor sorted = Tensor.allocate(arena, dtype, rows, hidden);
        kernels.permute(x, routing, null, sorted);
        Tensor inner = Tensor.allocate(arena, dtype, rows, 2 * intermediate);
        kernels.groupedGemm(sorted, gateUp, null, routing.expertOffsets(), inner);
        Tensor activated = Tensor.allocate(arena, dtype, rows, intermediate);
        kernels.swiglu(inner, Activation.SWIGLU, routing.expertOffsets(), activated);
        Tensor outer = Tensor.allocate(arena, dtype, rows, hidden);
        kernels.groupedGemm(activated, down, bias, routing.expertOffsets(), outer);
        Tensor y = Tensor.allocate(arena, dtype, tokens, hidden);
        kernels.unpermute(outer, routing, routing.topkWeights(), Residual.of(x), y);
        return bytes(y);
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "BF16"})
    void operations_giveTheSameBitsForAnyThreadsAndColdOrWarm(DType dtype) {
        byte[] want;
        try (Arena arena = Arena.ofConfined();
                VectorKernels kernels = new VectorKernels(1)) {
            want = layer(kernels, arena, dtype, 50);
        }
        for (int threads : new int[] {1, 2, 5}) {
            try (VectorKernels kernels = new VectorKernels(threads)) {
                for (int repeat = 0; repeat < 15; repeat++) {
                    try (Arena arena = Arena.ofConfined()) {
                        assertThat(layer(kernels, arena, dtype, 50)).isEqualTo(want);
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "F16", "BF16"})
    void groupedGemm_rowDoesNotDependOnTheRowsAroundIt(DType dtype) {
        Random random = new Random(13);
        try (Arena arena = Arena.ofConfined();
                VectorKernels kernels = new VectorKernels(2)) {
            for (int inputs : new int[] {1, 8, 77, 2000}) {
                int rows = 71;
                int outputs = 67;
                Tensor x = random(arena, random, dtype, rows, inputs);
                Tensor weight = random(arena, random, dtype, 1, outputs, inputs);
                Tensor all = Tensor.allocate(arena, DType.F32, rows, outputs);
                kernels.groupedGemm(x, weight, null, ints(arena, 0, rows), all);
                for (int first = 0; first < rows; first += 9) {
                    int some = Math.min(1 + first % 6, rows - first);
                    Tensor part = Tensor.allocate(arena, DType.F32, some, outputs);
                    kernels.groupedGemm(
                            x.slice(first, some), weight, null, ints(arena, 0, some), part);
                    assertThat(bytes(part)).isEqualTo(bytes(all.slice(first, some)));
                }
                Tensor column = weight.row(0).slice(5, 1).reshape(1, 1, inputs);
                Tensor one = Tensor.allocate(arena, DType.F32, rows, 1);
                kernels.groupedGemm(x, column, null, ints(arena, 0, rows), one);
                for (int row = 0; row < rows; row++) {
                    assertThat(one.getFloat(row)).isEqualTo(all.getFloat(row * outputs + 5L));
                }
            }
        }
    }

    @Test
    void operations_noticeAnArenaThatIsClosedMeanwhile() throws InterruptedException {
        try (VectorKernels kernels = new VectorKernels(3);
                Arena arena = Arena.ofConfined()) {
            for (int repeat = 0; repeat < 5; repeat++) {
                Arena shared = Arena.ofShared();
                Random random = new Random(17);
                Tensor x = random(arena, random, DType.F32, 64, 256);
                Tensor weight = random(shared, random, DType.BF16, 1, 256, 256);
                Tensor y = Tensor.allocate(arena, DType.F32, 64, 256);
                Tensor offsets = ints(arena, 0, 64);
                Thread closer = new Thread(shared::close);
                assertThatThrownBy(
                                () -> {
                                    for (int call = 0; ; call++) {
                                        kernels.groupedGemm(x, weight, null, offsets, y);
                                        if (call == 1) {
                                            closer.start();
                                        }
                                    }
                                })
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessageContaining("losed");
                // The JVM also interrupts a thread that it stops from reading such memory.
                Thread.interrupted();
                closer.join();
                Tensor other = random(arena, random, DType.F32, 1, 256, 256);
                kernels.groupedGemm(x, other, null, offsets, y);
            }
        }
    }

    /** Its last line says what became of confined and of shared memory. */
    static final class Permutes {
        private Permutes() {}

        public static void main(String[] args) {
            try (VectorKernels kernels = new VectorKernels(2);
                    Arena shared = Arena.ofShared();
                    Arena confined = Arena.ofConfined()) {
                Routing routing = Routing.allocate(shared, 1, 1, 1);
                kernels.sortByExpert(routing);
                Tensor rows = Tensor.allocate(shared, DType.F32, 1, 4);
                kernels.permute(Tensor.allocate(shared, DType.F32, 1, 4), routing, null, rows);
                System.out.println("shared memory works");
                kernels.permute(Tensor.allocate(confined, DType.F32, 1, 4), routing, null, rows);
                System.out.println("confined memory works");
            } catch (UnsupportedOperationException e) {
                System.out.println(e.getMessage());
            }
        }
    }

    /** Its last line says how many threads outlive a constructor that ran out of memory. */
    static final class Hungry {
        private Hungry() {}

        public static void main(String[] args) {
            try {
                new VectorKernels(1500).close();
                System.out.println("enough memory");
            } catch (OutOfMemoryError e) {
                Thread[] threads = new Thread[4000];
                int left = 0;
                for (int i = Thread.enumerate(threads); --i >= 0; ) {
                    left += threads[i].getName().startsWith("jmoe-vector-") ? 1 : 0;
                }
                System.out.println("threads left: " + left);
            }
        }
    }

    private static List<String> lines(Class<?> program, String... options) throws Exception {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(List.of("--add-modules", "jdk.incubator.vector"));
        command.addAll(List.of(options));
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), program.getName()));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        List<String> lines = process.inputReader().readAllLines();
        assertThat(process.waitFor(2, TimeUnit.MINUTES)).as("the JVM ends").isTrue();
        return lines;
    }

    @Test
    void operations_withoutNativeAccessRefuseConfinedMemory() throws Exception {
        List<String> refused = lines(Permutes.class, "--illegal-native-access=deny");
        assertThat(refused).contains("shared memory works");
        assertThat(refused.getLast())
                .startsWith("x: belongs to a confined arena")
                .contains("--enable-native-access=ALL-UNNAMED", "Arena.ofShared()");
        assertThat(lines(Permutes.class, "--enable-native-access=ALL-UNNAMED").getLast())
                .isEqualTo("confined memory works");
    }

    @Test
    void constructor_outOfMemoryEndsItsThreads() throws Exception {
        assertThat(lines(Hungry.class, "-Xmx16m", "-Xss256k").getLast())
                .isEqualTo("threads left: 0");
    }
}
