package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** What every operation says about arguments it cannot take: all operations, all parameters. */
interface ArgumentsContract extends Contract {
    /** No two dimensions are equal, so that no wrong shape is right by chance. */
    Case SMALL = new Case(4, 6, 3, 5, 7, Pattern.UNIFORM);

    @Test
    default void everyOperation_rejectsWrongType() {
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                invocation
                        .arguments()
                        .forEach((name, valid) -> {
                            for (DType dtype : wrongTypes(invocation.op(), name, valid)) {
                                Tensor wrong = Tensor.allocate(arena, dtype, valid.shape());
                                failures.check(() ->
                                        assertThatThrownBy(() -> call(invocation, name, wrong))
                                                .as("%s: %s %s", invocation.op(), name, wrong)
                                                .isInstanceOf(IllegalArgumentException.class)
                                                .hasMessageMatching(
                                                        name + ": expected .+, got .+"));
                            }
                        });
            }
            failures.assertNone();
        }
    }

    /** Only weights of experts and products may be quantised, and those of a bank together. */
    @Test
    default void everyOperation_rejectsScaleElsewhere() {
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                invocation
                        .arguments()
                        .forEach((name, valid) -> {
                            if (mayHaveScale(invocation.op(), name)) {
                                return;
                            }
                            Tensor wrong =
                                    Quantisation.allocate(
                                            (type, shape) -> Tensor.allocate(arena, type, shape),
                                            valid.shape());
                            failures.check(() ->
                                    assertThatThrownBy(() -> call(invocation, name, wrong))
                                            .as("%s: %s", invocation.op(), name)
                                            .isInstanceOf(IllegalArgumentException.class)
                                            .hasMessageMatching(
                                                    "(%s|down): expected .+, got .+"
                                                            .formatted(name)));
                        });
            }
            failures.assertNone();
        }
    }

    private static boolean mayHaveScale(String op, String name) {
        return op.equals("groupedGemm") && name.equals("weight")
                || op.equals("gateUpSwiglu") && name.equals("gateUp");
    }

    /** A map that was never filled, or of other ids, must not become a crash or another's row. */
    @Test
    default void permuteAndUnpermute_rejectMapsThatPointOutside() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Tensor.allocate(arena, DType.F32, SMALL.tokens(), SMALL.hidden());
            Tensor rows = Tensor.allocate(arena, DType.F32, SMALL.slots(), SMALL.hidden());
            for (int wrong : new int[] {-2, (int) SMALL.slots(), Integer.MAX_VALUE}) {
                Routing routing = Cases.routing(arena, SMALL);
                routing.rowToSlot().setInt(1, wrong);
                routing.slotToRow().setInt(2, wrong);
                assertThatThrownBy(() -> backend().permute(x, routing, null, rows))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageContaining("got " + wrong + " at 1; run sortByExpert first");
                assertThatThrownBy(() ->
                                backend().unpermute(rows, routing, null, Kernels.Residual.NONE, x))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageContaining("got " + wrong + " at 2; run sortByExpert first");
            }
        }
    }

    private static List<DType> wrongTypes(String op, String name, Tensor valid) {
        if (valid.dtype() == DType.I32) {
            return List.of(DType.I64, DType.F32, DType.U32);
        }
        boolean onlyF32 =
                List.of(
                                "weights",
                                "bias",
                                "gateUpBias",
                                "downBias",
                                "selectionBias",
                                "expertScale",
                                "topkWeights",
                                "mixing",
                                "vectors",
                                "logits")
                        .contains(name);
        return onlyF32
                ? List.of(DType.BF16, DType.F16, DType.I32, DType.I8)
                : List.of(DType.I32, DType.U16, DType.F8_E4M3, DType.I8);
    }

    @Test
    default void everyOperation_rejectsWrongShape() {
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                // A dimension that two arguments share may be blamed on either.
                String names = String.join("|", invocation.arguments().keySet());
                String any =
                        "("
                                + names
                                + "|topkIds|topkWeights|rowToSlot|slotToRow|expertOffsets|tokensPerExpert|x|rows|down):"
                                + " expected .+, got .+";
                invocation
                        .arguments()
                        .forEach((name, valid) -> {
                            for (long[] shape : wrongShapes(invocation.op(), name, valid)) {
                                Tensor wrong = Tensor.allocate(arena, valid.dtype(), shape);
                                failures.check(() ->
                                        assertThatThrownBy(() -> call(invocation, name, wrong))
                                                .as("%s: %s %s", invocation.op(), name, wrong)
                                                .isInstanceOf(IllegalArgumentException.class)
                                                .hasMessageMatching(any));
                            }
                        });
            }
            failures.assertNone();
        }
    }

    private static List<long[]> wrongShapes(String op, String name, Tensor valid) {
        List<long[]> shapes = new ArrayList<>();
        long[] shape = valid.shape();
        long[] deeper = new long[shape.length + 1];
        deeper[0] = 1;
        System.arraycopy(shape, 0, deeper, 1, shape.length);
        shapes.add(deeper);
        shapes.add(new long[] {valid.numElements() + 1});
        shapes.add(new long[0]);
        boolean anyLength = op.equals("swiglu") && name.equals("expertOffsets");
        if (anyLength) {
            shapes.remove(1);
            shapes.add(new long[] {0});
            return shapes;
        }
        for (int axis = 0; axis < shape.length; axis++) {
            for (int step : new int[] {-1, 1}) {
                long[] other = shape.clone();
                other[axis] += step;
                shapes.add(other);
            }
        }
        return shapes;
    }

    @Test
    default void everyOperation_rejectsReadOnlyOutput() {
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                invocation
                        .outputs()
                        .forEach((name, valid) -> {
                            MemorySegment data = valid.data().asReadOnly();
                            Tensor wrong = Tensor.of(data, valid.dtype(), valid.shape());
                            failures.check(() ->
                                    assertThatThrownBy(() -> call(invocation, name, wrong))
                                            .as("%s: %s", invocation.op(), name)
                                            .isInstanceOf(IllegalArgumentException.class)
                                            .hasMessageMatching(name + ": expected .+, got .+"));
                        });
            }
            failures.assertNone();
        }
    }

    /** Read-only inputs are fine: weights are mapped from files that way. */
    @Test
    default void everyOperation_takesReadOnlyInputs() {
        try (Arena arena = Arena.ofConfined()) {
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                invocation.run(backend());
                List<byte[]> want = invocation.outputBytes();
                invocation
                        .inputs()
                        .replaceAll((name, t) ->
                                Tensor.of(t.data().asReadOnly(), t.dtype(), t.shape()));
                invocation.run(backend());
                assertThat(invocation.outputBytes())
                        .as("%s", invocation.op())
                        .usingElementComparator(Arrays::compare)
                        .isEqualTo(want);
            }
        }
    }

    /** Every output against every other argument, overlapping by one element. */
    @Tag("arguments")
    @Test
    default void everyOperation_rejectsSharedOutput() {
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                for (String output : invocation.outputs().keySet()) {
                    for (String other : invocation.arguments().keySet()) {
                        if (!other.equals(output)) {
                            overlap(failures, invocation, output, other, arena);
                        }
                    }
                }
            }
            failures.assertNone();
        }
    }

    private void overlap(
            Failures failures,
            Invocation invocation,
            String outputName,
            String otherName,
            Arena arena) {
        Tensor output = invocation.arguments().get(outputName);
        Tensor other = invocation.arguments().get(otherName);
        long shared = Math.min(output.dtype().blockBytes(), other.dtype().blockBytes());
        MemorySegment both = arena.allocate(output.numBytes() + other.numBytes());
        MemorySegment head = both.asSlice(0, other.numBytes());
        head.copyFrom(other.data());
        Map<String, Tensor> arguments = invocation.arguments();
        arguments.put(otherName, Tensor.of(head, other.dtype(), other.shape()));
        Tensor overlapping =
                Tensor.of(
                        both.asSlice(other.numBytes() - shared, output.numBytes()),
                        output.dtype(),
                        output.shape());
        arguments.put(outputName, overlapping);
        failures.check(() ->
                assertThatThrownBy(() -> invocation.call().run(backend(), arguments))
                        .as("%s: %s overlaps %s", invocation.op(), outputName, otherName)
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageMatching(
                                "(%s|%s): expected .+, got .+".formatted(outputName, otherName)));
        head.copyFrom(other.data());
        Tensor neighbour =
                Tensor.of(
                        both.asSlice(other.numBytes(), output.numBytes()),
                        output.dtype(),
                        output.shape());
        arguments.put(outputName, neighbour);
        failures.check(() ->
                assertThatCode(() -> invocation.call().run(backend(), arguments))
                        .as("%s: %s right behind %s", invocation.op(), outputName, otherName)
                        .doesNotThrowAnyException());
    }

    @Test
    default void everyOperation_rejectsClosedMemory() {
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                invocation
                        .arguments()
                        .forEach((name, valid) -> {
                            Arena closed = Arena.ofConfined();
                            Tensor wrong = Tensor.allocate(closed, valid.dtype(), valid.shape());
                            closed.close();
                            failures.check(() ->
                                    assertThatThrownBy(() -> call(invocation, name, wrong))
                                            .as("%s: %s", invocation.op(), name)
                                            .isInstanceOf(IllegalStateException.class));
                        });
            }
            failures.assertNone();
        }
    }

    @Test
    default void everyOperation_rejectsMemoryOfAnotherThread() throws Exception {
        try (Arena arena = Arena.ofConfined();
                ExecutorService other = Executors.newSingleThreadExecutor()) {
            Arena confined = other.submit(Arena::ofConfined).get();
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                for (Map.Entry<String, Tensor> entry : invocation.arguments().entrySet()) {
                    Tensor valid = entry.getValue();
                    Tensor wrong =
                            other.submit(() ->
                                            Tensor.allocate(confined, valid.dtype(), valid.shape()))
                                    .get();
                    failures.check(() ->
                            assertThatThrownBy(() -> call(invocation, entry.getKey(), wrong))
                                    .as("%s: %s", invocation.op(), entry.getKey())
                                    .isInstanceOf(WrongThreadException.class));
                }
            }
            other.submit(confined::close).get();
            failures.assertNone();
        }
    }

    @Test
    default void everyOperation_rejectsDeviceMemory() {
        Assumptions.assumeTrue(computesOnHost());
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                invocation
                        .arguments()
                        .forEach((name, valid) -> {
                            Tensor wrong = Tensor.device(4096, valid.dtype(), valid.shape());
                            failures.check(() ->
                                    assertThatThrownBy(() -> call(invocation, name, wrong))
                                            .as("%s: %s", invocation.op(), name)
                                            .isInstanceOf(IllegalArgumentException.class)
                                            .hasMessageMatching(
                                                    within(name)
                                                            + ": expected host memory, got .+"));
                        });
            }
            failures.assertNone();
        }
    }

    /** A backend that does not fuse blames the parameter of the operation within. */
    private static String within(String name) {
        return switch (name) {
            case "gateUp" -> "(gateUp|weight)";
            case "gateUpBias" -> "(gateUpBias|bias)";
            case "down" -> "(down|weight)";
            case "downBias" -> "(downBias|bias)";
            case "sharedGate" -> "(sharedGate|weight)";
            case "logits" -> "(logits|y)";
            case "noiseWeight" -> "(noiseWeight|weight)";
            case "projection" -> "(projection|weight)";
            case "noiseStep" -> "(noiseStep|step)";
            default -> name;
        };
    }

    @Test
    default void everyOperation_computesDoubleOrSaysSo() {
        Assumptions.assumeFalse(computesDouble());
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                for (String name : List.of("x", "weight", "y", "gateUp", "hidden", "rows")) {
                    Tensor valid = invocation.arguments().get(name);
                    if (valid != null && !hasOneType(invocation.op(), name)) {
                        Tensor f64 = Tensor.allocate(arena, DType.F64, valid.shape());
                        failures.check(() ->
                                assertThatThrownBy(() -> call(invocation, name, f64))
                                        .as("%s: %s", invocation.op(), name)
                                        .isInstanceOf(UnsupportedOperationException.class)
                                        .hasMessageContaining("F64"));
                    }
                }
            }
            failures.assertNone();
        }
    }

    /**
     * Weights that belong together are refused as soon as one of them is F64; the other has one
     * type by definition.
     */
    private static boolean hasOneType(String op, String name) {
        return op.equals("experts") && name.equals("gateUp")
                || op.equals("router") && name.equals("weight")
                || op.equals("jitter") && name.equals("y");
    }

    @Test
    default void groupedGemmAndSwiglu_rejectOffsetsThatDoNotRiseWithinRows() {
        try (Arena arena = Arena.ofConfined()) {
            Failures failures = new Failures();
            int rows = (int) SMALL.slots();
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                if (!List.of("groupedGemm", "swiglu").contains(invocation.op())) {
                    continue;
                }
                int[][] wrong = {
                    {1, 0, 0, 0, 0, 0},
                    {0, 3, -1, 0, 0, 0},
                    {0, 0, 0, 0, 0, rows + 1},
                    {0, Integer.MAX_VALUE, 0, 0, 0, 0},
                    {0, Integer.MIN_VALUE, 0, 0, 0, 0}
                };
                for (int[] steps : wrong) {
                    Tensor offsets = Cases.offsets(arena, steps);
                    if (steps[0] == 1) {
                        offsets.setInt(0, -1);
                    }
                    failures.check(() ->
                            assertThatThrownBy(() -> call(invocation, "expertOffsets", offsets))
                                    .as("%s: %s", invocation.op(), Arrays.toString(steps))
                                    .isInstanceOf(IllegalArgumentException.class)
                                    .hasMessageMatching("expertOffsets: expected .+, got .+"));
                }
            }
            failures.assertNone();
        }
    }

    @Test
    default void route_withTokenTypeButNoTypes_isRejected() {
        try (Arena arena = Arena.ofConfined()) {
            Invocation route = Invocation.all(SMALL, arena).getFirst();
            Map<String, Tensor> arguments = route.arguments();
            arguments.remove("tokenTypes");
            assertThatThrownBy(() -> route.call().run(backend(), arguments))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageMatching("tokenTypes: expected .+, got .+");
        }
    }

    @Test
    default void everyOperation_afterClose_isRefused() {
        Assumptions.assumeTrue(refusesCallsAfterClose());
        Kernels closed = another();
        closed.close();
        closed.close();
        try (Arena arena = Arena.ofConfined()) {
            for (Invocation invocation : Invocation.all(SMALL, arena)) {
                assertThatThrownBy(() -> invocation.run(closed))
                        .as("%s", invocation.op())
                        .isInstanceOf(IllegalStateException.class);
            }
        }
    }

    private void call(Invocation invocation, String parameter, Tensor replacement) {
        invocation.runWith(backend(), parameter, replacement);
    }
}
