package jmoe.cuda;

import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;

/** The times of the products in BF16: what the kernels choose, and what each tile takes. */
final class ProductTable {
    private static final String GATE_UP = typed(Products.GATE_UP, DType.BF16);
    private static final String DOWN = typed(Products.DOWN, DType.BF16);
    private static final String ROUTER = typed(ProductTimings.ROUTER, DType.BF16);
    private static final String ROUTER_F32 = typed(ProductTimings.ROUTER, DType.F32);
    private static final String DENSE = typed(ProductTimings.DENSE, DType.BF16);

    private static final String NAMES = "%n  %-24s | %-28s | %-28s | %s%n";
    private static final String ROW = "  %-15s %8d | %s | %s | %s%n";
    private static final String PRODUCT = "%10s %8s %8s";

    private final List<Timing> timings;
    private final double copyGigabytesPerSecond;

    /**
     * Nothing is printed yet.
     *
     * @param timings among others, of the products
     * @param copyGigabytesPerSecond of the same device
     */
    ProductTable(List<Timing> timings, double copyGigabytesPerSecond) {
        this.timings = timings;
        this.copyGigabytesPerSecond = copyGigabytesPerSecond;
    }

    private static String typed(String kernel, DType weight) {
        return Products.typed(kernel, DType.BF16, weight);
    }

    /** Whether it has the times of a kernel. */
    static boolean has(String kernel) {
        return List.of(GATE_UP, DOWN, ROUTER, ROUTER_F32, DENSE).contains(kernel);
    }

    private @Nullable Timing find(
            String kernel, TimedShape shape, int tokens, @Nullable Tile tile) {
        for (Timing timing : timings) {
            TimedWork work = timing.work();
            if (work.kernel().equals(kernel)
                    && work.shape().equals(shape)
                    && work.tokens() == tokens
                    && Objects.equals(work.tile(), tile)) {
                return timing;
            }
        }
        return null;
    }

    void print() {
        print(NAMES, "BF16 on matrix units", "gate up and activation", "down", "router, us");
        String columns = String.format(PRODUCT, "us", "% copy", "TFLOP/s");
        print(
                "  %-15s %8s | %s | %s | %s%n",
                "", "tokens", columns, columns, "bf16 and f32 weight");
        for (TimedShape shape : TimedShape.MODELS) {
            for (int tokens : ProductTimings.TOKENS) {
                print(
                        ROW,
                        shape.model(),
                        tokens,
                        product(find(GATE_UP, shape, tokens, null)),
                        product(find(DOWN, shape, tokens, null)),
                        micros(find(ROUTER, shape, tokens, null))
                                + " "
                                + micros(find(ROUTER_F32, shape, tokens, null)));
            }
        }
        printTiles("gate up and activation", GATE_UP);
        printTiles("down", DOWN);
        printDense();
    }

    private void printTiles(String name, String kernel) {
        List<String> labels = new ArrayList<>();
        for (Tile tile : Tile.values()) {
            labels.add(String.format("%9s", tile.label()));
        }
        print("%n  %s by tile, us%n", name);
        print("  %-15s %8s | %s%n", "", "tokens", String.join(" ", labels));
        for (TimedShape shape : TimedShape.MODELS) {
            for (int tokens : ProductTimings.TILE_TOKENS) {
                String times = tiles(kernel, shape, tokens);
                print("  %-15s %8d | %s%n", shape.model(), tokens, times);
            }
        }
    }

    private void printDense() {
        for (Timing timing : timings) {
            if (timing.work().kernel().equals(DENSE)) {
                print(
                        "%n  %s, bf16: %s us, %.1f TFLOP/s%n",
                        timing.work().shape().model(), micros(timing).strip(), timing.teraflops());
            }
        }
    }

    private String tiles(String kernel, TimedShape shape, int tokens) {
        List<String> columns = new ArrayList<>();
        for (Tile tile : Tile.values()) {
            columns.add(micros(find(kernel, shape, tokens, tile)));
        }
        return String.join(" ", columns);
    }

    private String product(@Nullable Timing timing) {
        if (timing == null) {
            return String.format(PRODUCT, "-", "-", "-");
        }
        double share = timing.gigabytesPerSecond() / copyGigabytesPerSecond;
        return micros(timing)
                + String.format(Locale.ROOT, "  %8.1f %8.1f", 100 * share, timing.teraflops());
    }

    private static String micros(@Nullable Timing timing) {
        return timing == null
                ? String.format("%9s", "-")
                : String.format(Locale.ROOT, "%9.2f", timing.time().micros());
    }

    private static void print(String format, Object... values) {
        System.out.printf(Locale.ROOT, format, values);
    }
}
