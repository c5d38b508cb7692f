package jmoe.vector;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.KernelsContract;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicReference;

/** What is particular to this backend: threads, arenas, missing types. */
@Timeout(120)
class VectorKernelsTest {
    @Nested
    class OneThread extends KernelsContract {
        @Override
        protected Kernels kernels() {
            return new VectorKernels(1);
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
    class FiveThreads extends KernelsContract {
        @Override
        protected Kernels kernels() {
            return new VectorKernels(5);
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
        kernels.route(logits, config, null, null, routing);
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
    void groupedGemm_findsWeightsBeyond31Bits(@TempDir Path folder) throws IOException {
        int groups = (1 << 22) + 3;
        int outputs = 4;
        int inputs = 256;
        try (Arena arena = Arena.ofShared();
                VectorKernels kernels = new VectorKernels(2)) {
            // A file with holes: only the last expert's page takes any room.
            MemorySegment sparse = map(folder, arena, 2L * groups * outputs * inputs);
            Tensor weight = Tensor.of(sparse, DType.BF16, groups, outputs, inputs);
            assertThat(weight.numElements()).isGreaterThan(1L << 32);
            weight.setDouble(weight.numElements() - 1, 3);
            Tensor offsets = Tensor.allocate(arena, DType.I32, groups + 1);
            offsets.setInt(groups, 1);
            Tensor x = Tensor.allocate(arena, DType.F32, 1, inputs);
            x.setDouble(inputs - 1, 2);
            Tensor y = Tensor.allocate(arena, DType.F32, 1, outputs);
            kernels.groupedGemm(x, weight, null, offsets, y);
            assertThat(y.getFloat(outputs - 1)).isEqualTo(6f);
            assertThat(y.getFloat(0)).isZero();
        }
    }

    @Test
    void permute_findsRowsBeyond31Bits(@TempDir Path folder) throws IOException {
        int tokens = (1 << 21) + 1;
        int hidden = 1024;
        try (Arena arena = Arena.ofShared();
                VectorKernels kernels = new VectorKernels(2)) {
            MemorySegment sparse = map(folder, arena, 2L * tokens * hidden);
            Tensor x = Tensor.of(sparse, DType.BF16, tokens, hidden);
            x.setDouble(x.numElements() - 1, 7);
            Routing routing = Routing.allocate(arena, tokens, 1, 1);
            for (int token = 0; token < tokens - 1; token++) {
                routing.topkIds().setInt(token, -1);
            }
            kernels.sortByExpert(routing);
            MemorySegment sparseRows = map(folder.resolve("rows"), arena, 4L * tokens * hidden);
            Tensor rows = Tensor.of(sparseRows, DType.F32, tokens, hidden);
            kernels.permute(x, routing, null, rows);
            assertThat(rows.getFloat(hidden - 1)).isEqualTo(7f);
        }
    }

    private static MemorySegment map(Path path, Arena arena, long bytes) throws IOException {
        Path file = path.toFile().isDirectory() ? path.resolve("sparse") : path;
        try (FileChannel channel =
                FileChannel.open(
                        file,
                        StandardOpenOption.CREATE_NEW,
                        StandardOpenOption.SPARSE,
                        StandardOpenOption.READ,
                        StandardOpenOption.WRITE)) {
            return channel.map(FileChannel.MapMode.READ_WRITE, 0, bytes, arena);
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
                closer.join();
                Tensor other = random(arena, random, DType.F32, 1, 256, 256);
                kernels.groupedGemm(x, other, null, offsets, y);
            }
        }
    }

    @Test
    void operations_mayBeCalledFromManyThreads() throws InterruptedException {
        try (VectorKernels kernels = new VectorKernels(2)) {
            byte[] want;
            try (Arena arena = Arena.ofConfined()) {
                want = layer(kernels, arena, DType.BF16, 33);
            }
            AtomicReference<Throwable> failure = new AtomicReference<>();
            List<Thread> callers = new ArrayList<>();
            for (int c = 0; c < 6; c++) {
                Thread caller =
                        new Thread(() -> {
                            for (int repeat = 0; repeat < 10; repeat++) {
                                try (Arena arena = Arena.ofConfined()) {
                                    assertThat(layer(kernels, arena, DType.BF16, 33))
                                            .isEqualTo(want);
                                }
                            }
                        });
                caller.setUncaughtExceptionHandler((t, e) -> failure.set(e));
                callers.add(caller);
                caller.start();
            }
            for (Thread caller : callers) {
                caller.join();
            }
            assertThat(failure.get()).isNull();
        }
    }

    @Test
    void operations_refuseF64() {
        try (Arena arena = Arena.ofConfined();
                VectorKernels kernels = new VectorKernels(1)) {
            Tensor f32 = Tensor.allocate(arena, DType.F32, 1, 4);
            Tensor f64 = Tensor.allocate(arena, DType.F64, 1, 4);
            Tensor offsets = ints(arena, 0, 1);
            Routing routing = Routing.allocate(arena, 1, 1, 1);
            RouterConfig config = RouterConfig.softmaxTopK(4, 1, true);
            Tensor weight = Tensor.allocate(arena, DType.F64, 1, 4, 4);
            Activation silu = Activation.of(Activation.Kind.SILU);
            refused("route: logits", () -> kernels.route(f64, config, null, null, routing));
            refused("permute: x", () -> kernels.permute(f64, routing, null, f32));
            refused("permute: rows", () -> kernels.permute(f32, routing, null, f64));
            refused(
                    "groupedGemm: weight",
                    () -> kernels.groupedGemm(f32.slice(0, 1), weight, null, offsets, other(f32)));
            refused("swiglu: gateUp", () -> kernels.swiglu(f64, silu, offsets, f32));
            refused("swiglu: hidden", () -> kernels.swiglu(f32, silu, offsets, f64));
            refused(
                    "unpermute: rows",
                    () -> kernels.unpermute(f64, routing, null, Residual.NONE, f32));
            refused(
                    "unpermute: addend",
                    () -> kernels.unpermute(f32, routing, null, Residual.of(f64), other(f32)));
        }
    }

    private static Tensor other(Tensor tensor) {
        return Tensor.allocate(Arena.ofAuto(), tensor.dtype(), tensor.shape());
    }

    private static void refused(String argument, Runnable call) {
        assertThatThrownBy(call::run)
                .isInstanceOf(UnsupportedOperationException.class)
                .hasMessageStartingWith(argument + " of type F64");
    }

    @Test
    void operations_refuseDeviceMemory() {
        try (Arena arena = Arena.ofConfined();
                VectorKernels kernels = new VectorKernels(1)) {
            Tensor x = Tensor.allocate(arena, DType.F32, 1, 4);
            Tensor y = Tensor.allocate(arena, DType.F32, 1, 4);
            Tensor weight = Tensor.device(4096, DType.F32, 1, 4, 4);
            Tensor offsets = ints(arena, 0, 1);
            assertThatThrownBy(() -> kernels.groupedGemm(x, weight, null, offsets, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("weight: expected host memory");
        }
    }

    @Test
    void close_makesEveryOperationFail() {
        VectorKernels kernels = new VectorKernels(2);
        kernels.close();
        kernels.close();
        try (Arena arena = Arena.ofConfined()) {
            Tensor none = Tensor.allocate(arena, DType.F32, 0, 4);
            Routing routing = Routing.allocate(arena, 0, 1, 4);
            RouterConfig config = RouterConfig.softmaxTopK(4, 1, true);
            Tensor weight = Tensor.allocate(arena, DType.F32, 1, 4, 4);
            Activation silu = Activation.of(Activation.Kind.SILU);
            closed(() -> kernels.route(none, config, null, null, routing));
            closed(() -> kernels.sortByExpert(routing));
            closed(() -> kernels.permute(none, routing, null, none));
            closed(() -> kernels.groupedGemm(none, weight, null, ints(arena, 0, 0), none));
            closed(() -> kernels.swiglu(none, silu, ints(arena, 0, 0), none));
            closed(() -> kernels.unpermute(none, routing, null, Residual.NONE, none));
        }
    }

    private static void closed(Runnable call) {
        assertThatThrownBy(call::run)
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("closed");
    }
}
