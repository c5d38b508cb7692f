package jmoe.cuda;

import jmoe.checkpoint.Json;
import jmoe.ops.Activation;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.RouteInputs;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.function.IntConsumer;

/**
 * Times every kernel on the device, at sizes of models: {@code [--smallest] [FILE]}. A short table
 * goes to stdout, everything to the JSON file. With {@code --smallest} each runs once on few
 * elements, for tools that look for errors.
 */
final class KernelTimings {
    private static final int[] TOKENS = {1, 8, 64, 512, 4096};
    private static final int[] FEW_TOKENS = {1, 33};

    /** Tokens at which every combination of element types is timed. */
    private static final int TYPES_TOKENS = 512;

    private static final List<DType> TYPES = List.of(DType.F32, DType.F16, DType.BF16);

    /** A few rounds of one multiplication must fit the time of the whole. */
    private static final double MAX_FLOPS = 3e11;

    private static final long COPY_BYTES = 2L << 30;
    private static final long SMALL_COPY_BYTES = 1 << 16;

    private final CudaKernels kernels;
    private final DeviceTimer timer;
    private final boolean smallest;
    private final long seed = new SplittableRandom().nextLong();
    private final TimingLog log = new TimingLog();

    private KernelTimings(CudaKernels kernels, DeviceTimer timer, boolean smallest) {
        this.kernels = kernels;
        this.timer = timer;
        this.smallest = smallest;
    }

    /**
     * Times everything.
     *
     * @param args {@code [--smallest] [FILE]}
     * @throws IOException if the file cannot be written
     */
    public static void main(String[] args) throws IOException {
        boolean smallest = args.length > 0 && args[0].equals("--smallest");
        int rest = smallest ? 1 : 0;
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofShared();
                DeviceTimer timer =
                        new DeviceTimer(
                                kernels,
                                arena,
                                smallest ? SMALL_COPY_BYTES : COPY_BYTES,
                                smallest)) {
            KernelTimings timings = new KernelTimings(kernels, timer, smallest);
            timings.run();
            if (args.length > rest) {
                Files.writeString(Path.of(args[rest]), Json.text(timings.json()) + "\n");
            }
            timings.print();
            if (!timings.log.failures().isEmpty()) {
                System.exit(1);
            }
        }
    }

    private void run() {
        List<TimedShape> shapes = smallest ? List.of(TimedShape.SMALLEST) : TimedShape.MODELS;
        for (TimedShape shape : shapes) {
            for (int tokens : smallest ? FEW_TOKENS : TOKENS) {
                time(shape, tokens, DType.BF16, DType.BF16);
            }
        }
        TimedShape shape = smallest ? TimedShape.SMALLEST : TimedShape.QWEN3;
        int tokens = smallest ? FEW_TOKENS[1] : TYPES_TOKENS;
        for (DType from : TYPES) {
            for (DType to : TYPES) {
                if (from != DType.BF16 || to != DType.BF16) {
                    time(shape, tokens, from, to);
                }
            }
        }
        new ProductTimings(kernels, timer, log, seed, smallest).run();
    }

    /** All operations at one size: those that have types, from one to another. */
    private void time(TimedShape shape, int tokens, DType from, DType to) {
        try (Arena arena = Arena.ofShared()) {
            Operations operations =
                    new Operations(
                            shape,
                            tokens,
                            from,
                            to,
                            new TimedOperands(kernels, arena, seed, !smallest));
            if (from == to && to == DType.BF16) {
                operations.route();
                operations.sortByExpert();
                operations.permuteCopy();
            }
            operations.permute();
            operations.swiglu();
            operations.unpermute();
            if (!GroupedGemm.onMatrixUnits(from, to)) {
                operations.groupedGemm();
            }
            kernels.synchronise();
        }
    }

    /** The operations on operands of one size. */
    private final class Operations {
        private final TimedShape shape;
        private final int tokens;
        private final DType from;
        private final DType to;
        private final TimedOperands operands;
        private final long rows;
        private final List<Routing> routing;

        Operations(TimedShape shape, int tokens, DType from, DType to, TimedOperands operands) {
            this.shape = shape;
            this.tokens = tokens;
            this.from = from;
            this.to = to;
            this.operands = operands;
            rows = (long) tokens * shape.topK();
            routing = operands.routings(1, shape, tokens);
        }

        private String typed(String operation) {
            return operation + "_" + suffix(from) + "_" + suffix(to);
        }

        private static String suffix(DType dtype) {
            return dtype.name().toLowerCase(Locale.ROOT);
        }

        private void add(String kernel, int sets, long bytes, double flops, IntConsumer operation) {
            log.time(
                    timer,
                    new TimedWork(kernel, shape, tokens, null, sets, bytes, flops),
                    operation);
        }

        void route() {
            long bytes = 4L * tokens * shape.numExperts() + 8 * rows;
            int sets = operands.sets(bytes);
            List<Tensor> logits = operands.random(sets, DType.F32, tokens, shape.numExperts());
            List<Routing> results = operands.routings(sets, shape, tokens);
            add(
                    "route",
                    sets,
                    bytes,
                    0,
                    set -> {
                        kernels.route(
                                logits.get(set),
                                shape.router(),
                                RouteInputs.NONE,
                                results.get(set));
                    });
        }

        void sortByExpert() {
            long bytes = 12 * rows + 8L * shape.numExperts();
            int sets = operands.sets(bytes);
            List<Routing> routings = operands.routings(sets, shape, tokens);
            add("sort_by_expert", sets, bytes, 0, set -> kernels.sortByExpert(routings.get(set)));
        }

        void permuteCopy() {
            permute("permute_copy", false);
        }

        void permute() {
            permute(typed("permute"), true);
        }

        private void permute(String kernel, boolean weighted) {
            long read = from.numBytes((long) tokens * shape.hidden());
            long bytes = read + to.numBytes(rows * shape.hidden()) + 4 * rows;
            int sets = operands.sets(bytes);
            List<Tensor> x = operands.random(sets, from, tokens, shape.hidden());
            List<Tensor> y = operands.random(sets, to, rows, shape.hidden());
            Routing by = routing.getFirst();
            Tensor weights = weighted ? by.topkWeights() : null;
            add(
                    kernel,
                    sets,
                    bytes,
                    0,
                    set -> {
                        kernels.permute(x.get(set), by, weights, y.get(set));
                    });
        }

        void swiglu() {
            long read = from.numBytes(rows * 2 * shape.intermediate());
            long bytes = read + to.numBytes(rows * shape.intermediate());
            int sets = operands.sets(bytes);
            List<Tensor> gateUp = operands.random(sets, from, rows, 2L * shape.intermediate());
            List<Tensor> hidden = operands.random(sets, to, rows, shape.intermediate());
            Tensor offsets = routing.getFirst().expertOffsets();
            add(
                    typed("swiglu"),
                    sets,
                    bytes,
                    0,
                    set -> {
                        kernels.swiglu(
                                gateUp.get(set), Activation.SWIGLU, offsets, hidden.get(set));
                    });
        }

        void unpermute() {
            long read = from.numBytes(rows * shape.hidden()) + 8 * rows;
            long bytes = read + to.numBytes((long) tokens * shape.hidden());
            int sets = operands.sets(bytes);
            List<Tensor> in = operands.random(sets, from, rows, shape.hidden());
            List<Tensor> y = operands.random(sets, to, tokens, shape.hidden());
            Routing by = routing.getFirst();
            add(
                    typed("unpermute"),
                    sets,
                    bytes,
                    0,
                    set -> {
                        kernels.unpermute(
                                in.get(set), by, by.topkWeights(), Residual.NONE, y.get(set));
                    });
        }

        /**
         * The first multiplication of an expert by the kernel for every type, left out where it
         * takes too long or much.
         */
        void groupedGemm() {
            long outputs = 2L * shape.intermediate();
            double flops = 2.0 * rows * outputs * shape.hidden();
            long experts = Math.min(rows, shape.numExperts());
            long weightBytes = to.numBytes(shape.numExperts() * outputs * shape.hidden());
            long bytes =
                    weightBytes / shape.numExperts() * experts
                            + from.numBytes(rows * (outputs + shape.hidden()));
            if (flops > MAX_FLOPS || 3 * weightBytes > kernels.device().memoryBytes()) {
                return;
            }
            int sets = weightBytes > kernels.device().l2Bytes() ? 1 : operands.sets(bytes);
            List<Tensor> x = operands.random(sets, from, rows, shape.hidden());
            List<Tensor> weight =
                    operands.random(sets, to, shape.numExperts(), outputs, shape.hidden());
            List<Tensor> y = operands.random(sets, from, rows, outputs);
            Tensor offsets = routing.getFirst().expertOffsets();
            add(
                    typed("grouped_gemm"),
                    sets,
                    bytes,
                    flops,
                    set -> {
                        kernels.groupedGemm(x.get(set), weight.get(set), null, offsets, y.get(set));
                    });
        }
    }

    private void print() {
        boolean timed = timed();
        if (timed) {
            printTable();
            new ProductTable(log.timings(), timer.copyGigabytesPerSecond()).print();
        }
        for (String leftOut : log.leftOut()) {
            System.out.println("left out " + leftOut);
        }
        List<String> failures = log.failures();
        for (String failure : failures) {
            System.out.println("FAILED " + failure);
        }
        String what = failures.isEmpty() ? "ran" : "ran, " + failures.size() + " failed";
        String times =
                timed
                        ? String.format(
                                Locale.ROOT,
                                "a copy within the device moves %.0f GB/s",
                                timer.copyGigabytesPerSecond())
                        : "not timed";
        System.out.println(log.timings().size() + " kernels and sizes " + what + ", " + times);
    }

    private boolean timed() {
        return !smallest && !kernels.device().emulated();
    }

    /** One model, without what the tables of products have. */
    private void printTable() {
        System.out.printf(
                "  %-26s %6s %10s %8s %7s %9s %8s%n",
                TimedShape.QWEN3.model(), "tokens", "us", "GB/s", "% copy", "TFLOP/s", "host us");
        for (Timing timing : log.timings()) {
            TimedWork work = timing.work();
            if (work.shape() == TimedShape.QWEN3
                    && work.tokens() != 8
                    && !ProductTable.has(work.kernel())) {
                System.out.printf(
                        Locale.ROOT,
                        "  %-26s %6d %s %8.2f%n",
                        work.kernel(),
                        work.tokens(),
                        timing.text(timer.copyGigabytesPerSecond()),
                        timing.time().hostMicros());
            }
        }
    }

    private Map<String, Object> json() {
        CudaDevice device = kernels.device();
        double copy = timer.copyGigabytesPerSecond();
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("device", device.name());
        json.put("emulated", device.emulated());
        json.put("timed", timed());
        json.put("java", Runtime.version().toString());
        json.put("copy_gigabytes_per_second", copy);
        json.put(
                "timings",
                log.timings().stream().map(timing -> timing.json(!smallest, copy)).toList());
        json.put("left_out", log.leftOut());
        json.put("failures", log.failures());
        return json;
    }
}
