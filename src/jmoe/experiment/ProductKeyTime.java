package jmoe.experiment;

import jmoe.experiment.Report.Line;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.Allocator;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Choosing by two halves of a key against multiplying by all keys; the same experts either way. */
final class ProductKeyTime implements Experiment {
    private static final int TOP_K = 16;
    private static final int HALF = 64;

    /** Sums of 128 products of such integers are exact in F32: both ways see the same numbers. */
    private static final int MAX_INTEGER = 255;

    private static final String EXPERTS = "experts";
    private static final String PRODUCT = "us/token, product keys";
    private static final String BRUTE = "us/token, all keys";
    private static final String ALONE = "times faster, one token";
    private static final List<String> COLUMNS =
            List.of(
                    EXPERTS,
                    PRODUCT,
                    BRUTE,
                    "times faster",
                    ALONE,
                    "FLOP ratio",
                    "tokens that differ");

    @Override
    public String name() {
        return "product-keys";
    }

    @Override
    public String claim() {
        return "Product keys choose K of N experts with sqrt(N) + K^2 comparisons instead of N, and"
                + " find the same ones (He 2024, Mixture of A Million Experts).";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        int tokens = effort.of(64, 4);
        Stopwatch stopwatch = new Stopwatch(kernels, effort);
        // Java compiles what the first row needs.
        compare(kernels, stopwatch, effort.of(256, 8), tokens);
        List<double[]> rows = new ArrayList<>();
        for (int keys : effort.of(new int[] {32, 64, 128, 256, 512, 1024}, new int[] {8, 16})) {
            rows.add(row(kernels, stopwatch, keys, tokens));
        }
        List<Line> lines =
                List.of(
                        Report.line("all keys", COLUMNS, rows, EXPERTS, BRUTE),
                        Report.line("product keys", COLUMNS, rows, EXPERTS, PRODUCT));
        Plot plot = new Plot("Time to choose 16 experts", EXPERTS, "us per token", true, lines);
        return new Report(COLUMNS, rows, List.of(plot), findings(rows, tokens));
    }

    private static double[] row(Kernels kernels, Stopwatch stopwatch, int n, int tokens) {
        Times batch = compare(kernels, stopwatch, n, tokens);
        Times alone = compare(kernels, stopwatch, n, 1);
        double experts = (double) n * n;
        double flops = experts / (n + (double) TOP_K * TOP_K);
        return new double[] {
            experts,
            batch.product / tokens,
            batch.brute / tokens,
            batch.brute / batch.product,
            alone.brute / alone.product,
            flops,
            batch.different + alone.different
        };
    }

    /** Microseconds of a batch, and the tokens that got other experts. */
    private record Times(double product, double brute, int different) {}

    private static Times compare(Kernels kernels, Stopwatch stopwatch, int n, int tokens) {
        try (Arena arena = Arena.ofShared()) {
            Tensor offsets = offsets(kernels, arena, tokens);
            Tensor[] queries = new Tensor[2];
            Tensor[] keys = new Tensor[2];
            for (int half = 0; half < 2; half++) {
                queries[half] = Numbers.integers(kernels, arena, half, MAX_INTEGER, tokens, HALF);
                keys[half] = Numbers.integers(kernels, arena, 2 + half, MAX_INTEGER, 1, n, HALF);
            }
            Routing byHalves = Routing.allocate(on(kernels, arena), tokens, TOP_K, n * n);
            Routing byAll = Routing.allocate(on(kernels, arena), tokens, TOP_K, n * n);
            double product =
                    stopwatch.micros(byHalves(kernels, arena, queries, keys, offsets, byHalves));
            double brute = stopwatch.micros(byAll(kernels, arena, queries, keys, offsets, byAll));
            return new Times(product, brute, different(kernels, arena, byHalves, byAll));
        }
    }

    private static Allocator on(Kernels kernels, Arena arena) {
        return (dtype, shape) -> kernels.allocate(arena, dtype, shape);
    }

    private static Tensor offsets(Kernels kernels, Arena arena, int tokens) {
        Tensor host = Tensor.allocate(arena, DType.I32, 2);
        host.setInt(1, tokens);
        return Numbers.placed(kernels, arena, host);
    }

    private static Runnable byHalves(
            Kernels kernels,
            Arena arena,
            Tensor[] queries,
            Tensor[] keys,
            Tensor offsets,
            Routing routing) {
        long n = keys[0].dim(1);
        long tokens = routing.tokens();
        Tensor logits = kernels.allocate(arena, DType.F32, tokens, 2 * n);
        Tensor all = logits.reshape(2 * tokens, n);
        Tensor[] prepared = {kernels.prepare(keys[0], arena), kernels.prepare(keys[1], arena)};
        RouterConfig rule = rule(new Selection.ProductKeys((int) n), (int) (n * n));
        return () -> {
            for (int half = 0; half < 2; half++) {
                Tensor scores = all.slice(half * tokens, tokens);
                kernels.groupedGemm(queries[half], prepared[half], null, offsets, scores);
            }
            kernels.route(logits, rule, RouteInputs.NONE, routing);
        };
    }

    /** Expert i n + j has the key that begins with the i-th of one half and ends with the j-th. */
    private static Runnable byAll(
            Kernels kernels,
            Arena arena,
            Tensor[] queries,
            Tensor[] keys,
            Tensor offsets,
            Routing routing) {
        int n = (int) keys[0].dim(1);
        long tokens = routing.tokens();
        Tensor prepared;
        Tensor query;
        try (Arena host = Arena.ofShared()) {
            Tensor first = Numbers.fetched(kernels, host, keys[0]);
            Tensor second = Numbers.fetched(kernels, host, keys[1]);
            Tensor weight = Tensor.allocate(host, DType.F32, 1, (long) n * n, 2 * HALF);
            for (int expert = 0; expert < n * n; expert++) {
                long to = (long) expert * 2 * HALF;
                copy(first, (long) (expert / n) * HALF, weight, to);
                copy(second, (long) (expert % n) * HALF, weight, to + HALF);
            }
            prepared = kernels.prepare(Numbers.placed(kernels, arena, weight), arena);
            Tensor whole = Tensor.allocate(host, DType.F32, tokens, 2 * HALF);
            for (int half = 0; half < 2; half++) {
                Tensor part = Numbers.fetched(kernels, host, queries[half]);
                for (long token = 0; token < tokens; token++) {
                    copy(part, token * HALF, whole, (2 * token + half) * HALF);
                }
            }
            query = Numbers.placed(kernels, arena, whole);
        }
        Tensor logits = kernels.allocate(arena, DType.F32, tokens, (long) n * n);
        RouterConfig rule = rule(new Selection.TopK(), n * n);
        return () -> {
            kernels.groupedGemm(query, prepared, null, offsets, logits);
            kernels.route(logits, rule, RouteInputs.NONE, routing);
        };
    }

    private static void copy(Tensor from, long fromIndex, Tensor to, long toIndex) {
        for (int i = 0; i < HALF; i++) {
            to.setDouble(toIndex + i, from.getDouble(fromIndex + i));
        }
    }

    private static RouterConfig rule(Selection selection, int experts) {
        return new RouterConfig(
                experts,
                TOP_K,
                Score.SIGMOID,
                selection,
                new Normalisation.None(),
                1,
                false,
                null,
                RouterConfig.ALL_TOKENS);
    }

    /** Tokens for which the two ways differ in any expert. */
    private static int different(Kernels kernels, Arena arena, Routing a, Routing b) {
        Tensor first = Numbers.fetched(kernels, arena, a.topkIds());
        Tensor second = Numbers.fetched(kernels, arena, b.topkIds());
        int different = 0;
        for (long token = 0; token < a.tokens(); token++) {
            boolean same = true;
            for (int k = 0; k < TOP_K; k++) {
                long slot = token * TOP_K + k;
                same &= first.getInt(slot) == second.getInt(slot);
            }
            different += same ? 0 : 1;
        }
        return different;
    }

    private static List<String> findings(List<double[]> rows, int tokens) {
        double[] last = rows.getLast();
        double different = rows.stream().mapToDouble(row -> row[6]).sum();
        return List.of(
                String.format(
                        Locale.ROOT,
                        "At %,.0f experts product keys are %,.0f times faster than all keys in"
                                + " batches of %d tokens, %,.0f times for a token by itself.",
                        last[0],
                        last[3],
                        tokens,
                        last[4]),
                different == 0
                        ? "Every token got the same experts in the same order either way."
                        : String.format(
                                Locale.ROOT, "%.0f tokens got different experts.", different));
    }
}
