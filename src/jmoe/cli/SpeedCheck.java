package jmoe.cli;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.vector.Ceilings;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Compares the rate of every kernel with what the machine can do in the same minute. A kernel that
 * Java left half compiled is twenty to a hundred times slower than it should be; the floors catch
 * that and nothing less, so that neighbours cannot fail the check.
 */
final class SpeedCheck {
    private static final long INPUTS = 2048;
    private static final long OUTPUTS = 1024;
    private static final int[] ROWS = {1, 2, 4, 64};

    /** Up to here the weights' way through memory is all that counts. */
    private static final int MAX_STREAMED_ROWS = 2;

    private static final int[] FUSED_ROWS = {1, 64};

    /** With more rows than these, a few experts are work enough. */
    private static final int MAX_LARGE_ROWS = 4;

    private static final int FEW_EXPERTS = 8;
    private static final long MIN_WEIGHT_BYTES = 64L << 20;
    private static final long MAX_WEIGHT_BYTES = 256L << 20;

    private static final int TOKENS = 1024;
    private static final int TOP_K = 8;
    private static final int NUM_EXPERTS = 64;

    /** Shares of a ceiling. */
    private static final double GEMM_FLOOR = 0.05;

    private static final double ROUTE_FLOOR = 0.001;
    private static final double SORT_FLOOR = 0.01;
    private static final double MOVE_FLOOR = 0.02;

    private static final int REPEATS = 7;
    private static final int MIN_CALLS = 3;
    private static final int WARM_UPS_PER_REPEAT = 20;

    private final Screen screen;
    private final OpenBackend backend;
    private final Kernels kernels;
    private final long warmUpNanos;
    private final double strictness;
    private final List<Result> results = new ArrayList<>();

    /**
     * The check.
     *
     * @param screen where it writes
     * @param backend what is checked
     * @param warmUpNanos how long each kernel is warmed up
     * @param strictness multiplies the floors
     */
    SpeedCheck(Screen screen, OpenBackend backend, long warmUpNanos, double strictness) {
        this.screen = screen;
        this.backend = backend;
        this.warmUpNanos = warmUpNanos;
        this.strictness = strictness;
        kernels = backend.kernels();
    }

    /**
     * One kernel on one shape.
     *
     * @param name of the operation
     * @param shape in words
     * @param flops of a call, or 0 if only bytes count
     * @param bytes that a call must touch
     * @param floor least share of a ceiling
     */
    private record Kernel(String name, String shape, double flops, double bytes, double floor) {}

    /**
     * What a kernel reached.
     *
     * @param kernel which
     * @param nanos of the fastest repeat, for one call
     * @param computed share of the multiply-add ceiling
     * @param streamed share of the stream ceiling
     */
    private record Result(Kernel kernel, double nanos, double computed, double streamed) {
        double share() {
            return Math.max(computed, streamed);
        }

        String rate() {
            return computed > streamed
                    ? Units.significant(kernel.flops / nanos) + " GFLOP/s"
                    : Units.significant(kernel.bytes / nanos) + " GB/s";
        }
    }

    /**
     * Measures and reports.
     *
     * @param json whether as one object
     * @return exit status
     */
    int run(boolean json) {
        Ceilings ceilings = Ceilings.measure(backend.threads());
        for (DType type : new DType[] {DType.F32, DType.BF16, DType.F16}) {
            for (int rows : ROWS) {
                gemm(type, rows, ceilings);
            }
            for (int rows : FUSED_ROWS) {
                gateUpSwiglu(type, rows, ceilings);
            }
        }
        rest(ceilings);
        if (json) {
            screen.json(json(ceilings));
        } else {
            print(ceilings);
        }
        return results.stream().allMatch(this::fast) ? Main.OK : Main.OUT_OF_TOLERANCE;
    }

    private boolean fast(Result result) {
        return result.share() >= strictness * result.kernel.floor;
    }

    private static int experts(DType type, int rows) {
        long bytes =
                Math.clamp(2 * Ceilings.lastLevelCacheBytes(), MIN_WEIGHT_BYTES, MAX_WEIGHT_BYTES);
        return rows > MAX_LARGE_ROWS
                ? FEW_EXPERTS
                : (int) Math.ceilDiv(bytes, type.numBytes(INPUTS * OUTPUTS));
    }

    private void gemm(DType type, int rows, Ceilings ceilings) {
        int experts = experts(type, rows);
        try (Arena arena = Arena.ofShared()) {
            Tensor weight = prepared(type, experts, arena);
            Tensor x = random(arena, DType.F32, (long) experts * rows, INPUTS);
            Tensor y = Tensor.allocate(arena, DType.F32, (long) experts * rows, OUTPUTS);
            Tensor offsets = Tensor.allocate(arena, DType.I32, experts + 1L);
            for (int expert = 0; expert <= experts; expert++) {
                offsets.setInt(expert, expert * rows);
            }
            measure(
                    product("groupedGemm", type, experts, rows),
                    ceilings,
                    () -> kernels.groupedGemm(x, weight, null, offsets, y));
        }
    }

    private Tensor prepared(DType type, int experts, Arena arena) {
        try (Arena raw = Arena.ofShared()) {
            Tensor weight = random(raw, type, experts, OUTPUTS, INPUTS);
            Tensor prepared = kernels.prepare(weight, arena);
            return prepared.equals(weight) ? weight.copy(arena) : prepared;
        }
    }

    /** The first half of an expert, with as many columns as the product above. */
    private void gateUpSwiglu(DType type, int rows, Ceilings ceilings) {
        int experts = experts(type, rows);
        int tokens = experts * rows;
        try (Arena arena = Arena.ofShared()) {
            ExpertWeights raw =
                    new ExpertWeights(
                            random(arena, type, experts, OUTPUTS, INPUTS),
                            random(arena, type, experts, INPUTS, OUTPUTS / 2),
                            null,
                            null,
                            Activation.SWIGLU);
            ExpertWeights weights = kernels.prepare(raw, arena);
            Routing routing = Routing.allocate(arena, tokens, 1, experts);
            for (int token = 0; token < tokens; token++) {
                routing.topkIds().setInt(token, token % experts);
            }
            kernels.sortByExpert(routing);
            Tensor x = random(arena, DType.F32, tokens, INPUTS);
            Tensor hidden = Tensor.allocate(arena, DType.F32, tokens, OUTPUTS / 2);
            long scratchElements = kernels.gateUpSwigluScratch(x.dtype(), tokens, weights);
            Tensor scratch = Tensor.allocate(arena, DType.F32, scratchElements);
            measure(
                    product("gateUpSwiglu", type, experts, rows),
                    ceilings,
                    () -> kernels.gateUpSwiglu(x, routing, null, weights, scratch, hidden));
        }
    }

    private static Kernel product(String name, DType type, int experts, int rows) {
        double elements = (double) experts * INPUTS * OUTPUTS;
        return new Kernel(
                name,
                BenchSeries.id(type) + ", " + Units.plural(rows, "row", "rows") + " per expert",
                rows <= MAX_STREAMED_ROWS ? 0 : 2 * rows * elements,
                type.numBytes((long) elements),
                GEMM_FLOOR);
    }

    /** The operations between the products, whose bytes are their cost. */
    private void rest(Ceilings ceilings) {
        RouterConfig router = RouterConfig.softmaxTopK(NUM_EXPERTS, TOP_K, false);
        long slots = (long) TOKENS * TOP_K;
        try (Arena arena = Arena.ofShared()) {
            Tensor logits = random(arena, DType.F32, TOKENS, NUM_EXPERTS);
            Routing routing = Routing.allocate(arena, TOKENS, TOP_K, NUM_EXPERTS);
            double mapBytes = (double) slots * Integer.BYTES;
            measure(
                    moves("route", logits.numBytes() + 2 * mapBytes, ROUTE_FLOOR),
                    ceilings,
                    () -> kernels.route(logits, router, RouteInputs.NONE, routing));
            measure(
                    moves("sortByExpert", 3 * mapBytes, SORT_FLOOR),
                    ceilings,
                    () -> kernels.sortByExpert(routing));
            Tensor x = random(arena, DType.F32, TOKENS, INPUTS);
            Tensor rows = random(arena, DType.F32, slots, INPUTS);
            double rowBytes = (double) x.numBytes() + rows.numBytes() + mapBytes;
            measure(
                    moves("permute", rowBytes, MOVE_FLOOR),
                    ceilings,
                    () -> kernels.permute(x, routing, null, rows));
            Tensor hidden = Tensor.allocate(arena, DType.F32, slots, INPUTS / 2);
            Tensor offsets = routing.expertOffsets();
            measure(
                    moves("swiglu", (double) rows.numBytes() + hidden.numBytes(), MOVE_FLOOR),
                    ceilings,
                    () -> kernels.swiglu(rows, Activation.SWIGLU, offsets, hidden));
            Tensor weights = routing.topkWeights();
            measure(
                    moves("unpermute", rowBytes + mapBytes, MOVE_FLOOR),
                    ceilings,
                    () -> kernels.unpermute(rows, routing, weights, Residual.NONE, x));
        }
    }

    private static Kernel moves(String name, double bytes, double floor) {
        return new Kernel(name, Units.exact(TOKENS) + " tokens, top-" + TOP_K, 0, bytes, floor);
    }

    private static Tensor random(Arena arena, DType type, long... shape) {
        Tensor tensor = Tensor.allocate(arena, type, shape);
        RandomLayer.fill(tensor, 1, 1);
        return tensor;
    }

    /** The best of several repeats: a kernel that is slow for good is slow in each of them. */
    private void measure(Kernel kernel, Ceilings ceilings, Runnable call) {
        // Interpreted, the first calls can last as long as the whole warm-up: they do not count.
        repeat(call, 0);
        repeat(call, warmUpNanos);
        double nanos = Double.POSITIVE_INFINITY;
        for (int repeat = 0; repeat < REPEATS; repeat++) {
            nanos = Math.min(nanos, repeat(call, warmUpNanos / WARM_UPS_PER_REPEAT));
        }
        results.add(
                new Result(
                        kernel,
                        nanos,
                        kernel.flops / nanos / ceilings.fmaGflops(),
                        kernel.bytes / nanos / ceilings.streamGbps()));
    }

    /** Returns the mean time of a call. */
    private static double repeat(Runnable call, long nanos) {
        long calls = 0;
        long elapsed = 0;
        long start = System.nanoTime();
        while (calls < MIN_CALLS || elapsed < nanos) {
            call.run();
            calls++;
            elapsed = System.nanoTime() - start;
        }
        return (double) elapsed / calls;
    }

    private void print(Ceilings ceilings) {
        screen.line(screen.bold("Kernels against the ceilings of this machine"));
        screen.field("backend", backend.description());
        screen.field("ceilings", BenchSeries.text(ceilings));
        screen.line();
        TextTable table =
                new TextTable("llrrrl", "kernel", "shape", "rate", "of ceiling", "floor", "");
        for (Result result : results) {
            table.row(
                    result.kernel.name,
                    result.kernel.shape,
                    result.rate(),
                    BenchSeries.percent(result.share()),
                    BenchSeries.percent(strictness * result.kernel.floor),
                    fast(result) ? screen.good("ok") : screen.bad("TOO SLOW"));
        }
        table.print(screen);
        screen.line();
        long slow = results.stream().filter(result -> !fast(result)).count();
        screen.line(
                slow == 0
                        ? screen.good("every kernel is above its floor")
                        : screen.bad(
                                slow
                                        + " of "
                                        + results.size()
                                        + " are below their floors; a busy machine does not do"
                                        + " that: please report it"));
    }

    private Map<String, Object> json(Ceilings ceilings) {
        List<Map<String, Object>> list = new ArrayList<>();
        for (Result result : results) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("kernel", result.kernel.name);
            json.put("shape", result.kernel.shape);
            json.put("ms", result.nanos / 1e6);
            json.put("gflops", result.kernel.flops / result.nanos);
            json.put("gbps", result.kernel.bytes / result.nanos);
            json.put("share", result.share());
            json.put("floor", strictness * result.kernel.floor);
            json.put("ok", fast(result));
            list.add(json);
        }
        Map<String, Object> object = new LinkedHashMap<>();
        object.put("ceilings", BenchSeries.json(ceilings));
        object.put("backend", backend.json());
        object.put("kernels", list);
        object.put("failed", results.stream().filter(result -> !fast(result)).count());
        return object;
    }
}
