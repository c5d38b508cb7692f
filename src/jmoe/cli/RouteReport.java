package jmoe.cli;

import jmoe.cli.RoutedTokens.OfType;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.train.ExpertLoad;
import jmoe.train.ExpertLoad.Counts;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * What {@code jmoe route} tells.
 *
 * @param name of the layer
 * @param source where routers and tokens come from, for programs
 * @param config of the layer
 * @param selectionBias whether it has one
 * @param routers one per token type
 * @param input in words
 * @param routed what was decided
 * @param grid of a heat map, or null
 * @param backend that decided
 */
record RouteReport(
        String name,
        Map<String, Object> source,
        MoeConfig config,
        boolean selectionBias,
        List<RouterWeights> routers,
        String input,
        RoutedTokens routed,
        @Nullable RoutingGrid grid,
        OpenBackend backend) {
    private static final int LABEL_COLUMNS = 26;

    /** Experts at either end that are named. */
    private static final int MAX_NAMED = 8;

    /** What pictures are called. */
    String title() {
        return Units.plural(routed.tokens(), "token", "tokens") + " routed by " + name;
    }

    void print(Screen screen) {
        screen.line(screen.bold(name));
        screen.field("sizes", LayerText.sizes(config));
        screen.field("routing", LayerText.rule(config, selectionBias));
        screen.field("input", input);
        screen.field(
                "router",
                routerType() + ", " + Units.bytes(routerBytes()) + "; experts are not read");
        screen.field("backend", backend.description());
        screen.field("why", backend.why());
        LoadChart chart = chart();
        for (int type = 0; type < routed.types().size(); type++) {
            chart.printBars(screen, type);
            screen.line();
            print(screen, routed.types().get(type));
        }
    }

    private static void print(Screen screen, OfType routes) {
        Counts counts = routes.load().assigned();
        if (counts.sum() == 0) {
            screen.line("  no tokens");
            return;
        }
        long[] perExpert = counts.perExpert();
        List<Integer> falling = byLoad(perExpert, -1);
        List<Integer> rising = byLoad(perExpert, 1);
        field(
                screen,
                "least, mean, most",
                Units.exact(perExpert[rising.getFirst()])
                        + ", "
                        + Units.significant(mean(counts))
                        + ", "
                        + Units.plural(perExpert[falling.getFirst()], "slot", "slots"));
        field(screen, "coefficient of variation", Units.significant(counts.variation()));
        field(screen, "largest violation", Units.significant(counts.maxViolation()));
        field(
                screen,
                "idle experts",
                Units.exact(counts.idle()) + " of " + Units.exact(perExpert.length));
        field(
                screen,
                "entropy",
                Units.significant(counts.entropy())
                        + " of at most "
                        + Units.significant(Math.log(perExpert.length))
                        + " nats");
        field(screen, "dropped", dropped(routes));
        field(screen, "most loaded", named(falling, perExpert));
        field(screen, "least loaded", named(rising, perExpert));
        if (routes.notFinite() > 0) {
            field(screen, "not finite", Units.plural(routes.notFinite(), "weight", "weights"));
        }
    }

    private static void field(Screen screen, String label, String value) {
        screen.field(label, LABEL_COLUMNS, value);
    }

    private static String dropped(OfType routes) {
        ExpertLoad load = routes.load();
        long slots = load.assigned().sum();
        String share =
                Units.exact(slots - load.kept().sum())
                        + " of "
                        + Units.plural(slots, "slot", "slots")
                        + " ("
                        + Units.significant(100 * load.dropRate())
                        + " %)";
        return routes.rule().capacity() == null ? share + ", no capacity" : share;
    }

    private static String named(List<Integer> order, long[] perExpert) {
        return order.stream()
                .map(expert -> expert + " (" + Units.exact(perExpert[expert]) + ")")
                .collect(Collectors.joining(", "));
    }

    /** The first experts by load, rising or falling; of equal ones the lowest first. */
    private static List<Integer> byLoad(long[] perExpert, int direction) {
        return IntStream.range(0, perExpert.length)
                .boxed()
                .sorted(Comparator.comparingLong(expert -> direction * perExpert[expert]))
                .limit(MAX_NAMED)
                .toList();
    }

    private static double mean(Counts counts) {
        return (double) counts.sum() / counts.perExpert().length;
    }

    private DType routerType() {
        return routers.getFirst().weight().dtype();
    }

    private long routerBytes() {
        long bytes = 0;
        for (RouterWeights router : routers) {
            bytes += router.weight().numBytes() + numBytes(router.bias());
            bytes += numBytes(router.selectionBias());
        }
        return bytes;
    }

    private static long numBytes(@Nullable Tensor tensor) {
        return tensor == null ? 0 : tensor.numBytes();
    }

    private LoadChart chart() {
        int experts = routed.types().getFirst().rule().numExperts();
        try (Arena arena = Arena.ofConfined()) {
            Tensor load = Tensor.allocate(arena, DType.I32, (long) routed.types().size() * experts);
            long at = 0;
            for (OfType type : routed.types()) {
                for (long count : type.load().assigned().perExpert()) {
                    load.setInt(at++, (int) count);
                }
            }
            return new LoadChart(config, load);
        }
    }

    /** The same for programs. */
    Map<String, Object> json() {
        Map<String, Object> json = new LinkedHashMap<>(source);
        json.putAll(LayerText.json(config, selectionBias));
        json.put("tokens", routed.tokens());
        json.put("router_type", routerType().name());
        json.put("router_bytes", routerBytes());
        json.put("backend", backend.json());
        List<Map<String, Object>> loads = chart().json();
        for (int type = 0; type < loads.size(); type++) {
            putLoad(loads.get(type), routed.types().get(type));
        }
        json.put("load", loads);
        if (grid != null) {
            json.put("heat_map", grid.json());
        }
        return json;
    }

    private static void putLoad(Map<String, Object> json, OfType routes) {
        ExpertLoad load = routes.load();
        Counts counts = load.assigned();
        long[] perExpert = counts.perExpert();
        List<Integer> falling = byLoad(perExpert, -1);
        List<Integer> rising = byLoad(perExpert, 1);
        json.put("kept_per_expert", list(load.kept().perExpert()));
        json.put("tokens", load.tokens());
        json.put("min", perExpert[rising.getFirst()]);
        json.put("mean", mean(counts));
        json.put("max", perExpert[falling.getFirst()]);
        json.put("largest_violation", counts.maxViolation());
        json.put("entropy", counts.entropy());
        json.put("max_entropy", Math.log(perExpert.length));
        json.put("dropped_slots", counts.sum() - load.kept().sum());
        json.put("drop_rate", load.dropRate());
        json.put("most_loaded", falling);
        json.put("least_loaded", rising);
        json.put("not_finite_weights", routes.notFinite());
    }

    private static List<Long> list(long[] values) {
        List<Long> list = new ArrayList<>();
        for (long value : values) {
            list.add(value);
        }
        return list;
    }
}
