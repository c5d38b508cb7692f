package jmoe.tensor;

import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** The messages are part of the API: name, expected, actual, remedy. */
final class CheckTest {
    private final Arena arena = Arena.ofAuto();

    private Tensor tensor(DType dtype, long... shape) {
        return Tensor.allocate(arena, dtype, shape);
    }

    private static void assertRejected(ThrowingCallable check, String message) {
        assertThatThrownBy(check).isInstanceOf(IllegalArgumentException.class).hasMessage(message);
    }

    @Test
    void vector_namesTypeAndLength() {
        Check.vector("counts", tensor(DType.I32, 8), DType.I32, "numExperts", 8);
        String expected = "counts: expected I32 [numExperts=8], got ";
        for (Tensor wrong :
                new Tensor[] {
                    tensor(DType.I64, 8), tensor(DType.I32, 9), tensor(DType.I32, 1, 8)
                }) {
            assertRejected(
                    () -> Check.vector("counts", wrong, DType.I32, "numExperts", 8),
                    expected + wrong.describe());
        }
        assertRejected(
                () -> Check.vector("counts", tensor(DType.I32), DType.I32, "numExperts", 8),
                expected + "I32 []");
    }

    @Test
    void matrix_namesTypeAndShape() {
        Check.matrix("topkIds", tensor(DType.I32, 7, 2), DType.I32, "tokens", 7, "topK", 2);
        for (Tensor wrong :
                new Tensor[] {
                    tensor(DType.F32, 7, 2),
                    tensor(DType.I32, 8, 2),
                    tensor(DType.I32, 7, 3),
                    tensor(DType.I32, 14),
                    tensor(DType.I32, 7, 2, 1)
                }) {
            assertRejected(
                    () -> Check.matrix("topkIds", wrong, DType.I32, "tokens", 7, "topK", 2),
                    "topkIds: expected I32 [tokens=7, topK=2], got " + wrong.describe());
        }
    }

    @Test
    void floatMatrix_takesEveryFloatingType() {
        for (DType dtype : new DType[] {DType.F64, DType.F32, DType.F16, DType.BF16}) {
            Check.floatMatrix("x", tensor(dtype, 7, 5), "tokens", 7, "hidden", 5);
        }
        for (Tensor wrong : new Tensor[] {tensor(DType.F8_E4M3, 7, 5), tensor(DType.F32, 5, 7)}) {
            assertRejected(
                    () -> Check.floatMatrix("x", wrong, "tokens", 7, "hidden", 5),
                    "x: expected F32, F16, BF16 or F64 [tokens=7, hidden=5], got "
                            + wrong.describe());
        }
    }

    @Test
    void floating_checksTypeAndRank() {
        Check.floating("x", tensor(DType.BF16, 7, 5), "[tokens, hidden]", 2);
        assertRejected(
                () -> Check.floating("x", tensor(DType.F32, 7), "[tokens, hidden]", 2),
                "x: expected F32, F16, BF16 or F64 [tokens, hidden], got F32 [7]");
        assertRejected(
                () -> Check.floating("x", tensor(DType.I32, 7, 5), "[tokens, hidden]", 2),
                "x: expected F32, F16, BF16 or F64 [tokens, hidden], got I32 [7, 5]");
    }

    @Test
    void weight_takesFloatingTypesAndCodesWithAScale() {
        String dims = "[groups, outputs, inputs]";
        for (DType dtype : new DType[] {DType.F64, DType.F32, DType.F16, DType.BF16}) {
            Check.weight("weight", tensor(dtype, 2, 3, 5), dims);
        }
        Tensor codes = tensor(DType.I8, 2, 3, 5);
        Tensor scaled = Tensor.scaled(codes, tensor(DType.F32, 2, 3));
        Check.weight("weight", scaled, dims);
        String expected = "weight: expected F32, F16, BF16, F64 or scaled I8 " + dims + ", got ";
        assertRejected(
                () -> Check.weight("weight", codes, dims),
                expected
                        + "I8 [2, 3, 5]; give the codes their factors by Tensor.scaled, or numbers"
                        + " codes by Quantisation.of");
        assertRejected(
                () -> Check.weight("weight", scaled.row(0), dims), expected + "scaled I8 [3, 5]");
        assertRejected(
                () -> Check.weight("weight", tensor(DType.U8, 2, 3, 5), dims),
                expected + "U8 [2, 3, 5]");
        assertRejected(
                () -> Check.floating("x", scaled.row(0), "[rows, inputs]", 2),
                "x: expected F32, F16, BF16 or F64 [rows, inputs], got scaled I8 [3, 5]");
    }

    @Test
    void unscaled_namesOperationTypeBackendAndRemedy() {
        Tensor codes = tensor(DType.I8, 3, 5);
        Check.unscaled("groupedGemm", "weight", codes, "the vector backend");
        Tensor scaled = Tensor.scaled(codes, tensor(DType.F32, 3));
        assertThatThrownBy(
                        () -> Check.unscaled("groupedGemm", "weight", scaled, "the vector backend"))
                .isInstanceOf(UnsupportedOperationException.class)
                .hasMessage(
                        "groupedGemm: weight of type scaled I8 is not supported by the vector"
                                + " backend; quantised weights run on the native and reference"
                                + " backends; load them as BF16");
    }

    @Test
    void checks_seeTheScaleToo() {
        Tensor codes = tensor(DType.I8, 3, 5);
        Tensor scale = tensor(DType.F32, 3);
        assertRejected(
                () -> Check.disjoint("y", scale, "weight", Tensor.scaled(codes, scale)),
                "y: expected memory of its own, got memory shared with weight");
        Arena closed = Arena.ofConfined();
        Tensor scaled = Tensor.scaled(codes, Tensor.allocate(closed, DType.F32, 3));
        closed.close();
        assertThatThrownBy(() -> Check.accessible("weight", scaled))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageStartingWith("weight: its arena is closed");
    }

    @Test
    void disjoint_seesOneSharedByte() {
        Tensor all = tensor(DType.U8, 100);
        Check.disjoint("y", all.slice(0, 50), "x", all.slice(50, 50));
        Check.disjoint("y", all.slice(50, 50), "x", all.slice(0, 50));
        Check.disjoint("y", all.slice(20, 0), "x", all);
        Check.disjoint("y", all, "x", all.slice(20, 0));
        String message = "y: expected memory of its own, got memory shared with x";
        assertRejected(
                () -> Check.disjoint("y", all.slice(0, 51), "x", all.slice(50, 50)), message);
        assertRejected(
                () -> Check.disjoint("y", all.slice(49, 51), "x", all.slice(0, 50)), message);
        assertRejected(() -> Check.disjoint("y", all, "x", all.slice(30, 1)), message);
        assertRejected(() -> Check.disjoint("y", all.slice(30, 1), "x", all), message);
        assertRejected(() -> Check.disjoint("y", all, "x", all), message);
        Tensor device = Tensor.device(4096, DType.F32, 10);
        assertRejected(
                () -> Check.disjoint("y", device, "x", Tensor.device(4132, DType.F32, 10)),
                message);
        Check.disjoint("y", device, "x", Tensor.device(4136, DType.F32, 10));
    }

    @Test
    void writable_rejectsReadOnlyMemory() {
        Tensor tensor = tensor(DType.F32, 2);
        Check.writable("y", tensor);
        Tensor readOnly = Tensor.of(tensor.data().asReadOnly(), DType.F32, 2);
        assertRejected(
                () -> Check.writable("y", readOnly),
                "y: expected writable memory, got a read-only segment");
    }

    @Test
    void host_rejectsDeviceMemory() {
        Check.host("x", tensor(DType.F32, 2));
        assertRejected(
                () -> Check.host("x", Tensor.device(4096, DType.F32, 2)),
                "x: expected host memory, got F32 [2] on a device; copy it to the host first");
    }

    @Test
    void checks_ofClosedMemory_sayWhichArgument() {
        Arena closed = Arena.ofConfined();
        Tensor tensor = Tensor.allocate(closed, DType.F32, 7, 5);
        Tensor vector = Tensor.allocate(closed, DType.I32, 7);
        closed.close();
        ThrowingCallable[] checks = {
            () -> Check.floatMatrix("x", tensor, "tokens", 7, "hidden", 5),
            () -> Check.matrix("x", tensor, DType.F32, "tokens", 7, "hidden", 5),
            () -> Check.floating("x", tensor, "[tokens, hidden]", 2),
            () -> Check.vector("x", vector, DType.I32, "tokens", 7)
        };
        for (ThrowingCallable check : checks) {
            assertThatThrownBy(check)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageMatching("x: its arena is closed; .+");
        }
    }

    @Test
    void checks_ofMemoryOfAnotherThread_sayWhichArgument() throws Exception {
        try (ExecutorService other = Executors.newSingleThreadExecutor()) {
            Arena confined = other.submit(Arena::ofConfined).get();
            Tensor tensor = other.submit(() -> Tensor.allocate(confined, DType.F32, 7, 5)).get();
            assertThatThrownBy(() -> Check.floating("x", tensor, "[tokens, hidden]", 2))
                    .isInstanceOf(WrongThreadException.class)
                    .hasMessageMatching("x: belongs to the confined arena of another thread; .+");
            other.submit(() ->
                            assertThatCode(() -> Check.floating("x", tensor, "[]", 2))
                                    .doesNotThrowAnyException())
                    .get();
            other.submit(confined::close).get();
        }
    }
}
