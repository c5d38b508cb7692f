package jmoe.vector;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.threads.RaggedItems;
import jmoe.threads.Workers;
import jmoe.vector.Panels.Format;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.Arrays;

/**
 * {@code y[r] = x[r] weight[e]^T + bias[e]}, and the same with the activation on top. The product
 * is cut into {@link RaggedItems}. An item gathers its rows a stretch of inputs at a time and
 * streams its panels past them; a weight that was not prepared is packed on the way.
 */
final class GroupedGemm {
    private final Workers workers;
    private final RaggedItems raggedItems;
    private final Item[] items;

    GroupedGemm(Workers workers) {
        this.workers = workers;
        raggedItems = new RaggedItems(workers);
        items = new Item[workers.count()];
        Arrays.setAll(items, worker -> new Item());
    }

    /**
     * The arguments of one call, as the workers see them.
     *
     * @param rows left factor
     * @param panels the weight if it is prepared
     * @param source the weight if it is not
     * @param parts as of {@link Panels}
     * @param columns as of {@link Panels}
     * @param bias or null
     * @param activation of the parts, or null to write them as they are
     * @param y result
     */
    record Product(
            Rows rows,
            @Nullable Panels panels,
            Packing.@Nullable Source source,
            int parts,
            long columns,
            @Nullable Elements bias,
            @Nullable Activation activation,
            Elements y) {
        long blocks() {
            return Panels.blocks(parts, columns);
        }
    }

    void multiply(Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
        Rows rows = new Rows(Elements.of(x, workers), inputs(weight), null, 1, null);
        run(product(rows, weight, 1, bias, null, y), weight.dim(0), expertOffsets, y.dim(0));
    }

    void gateUpSwiglu(
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor hidden) {
        Tensor weight = experts.gateUp();
        Rows rows =
                new Rows(
                        Elements.of(x, workers),
                        inputs(weight),
                        Elements.of(routing.rowToSlot(), workers),
                        routing.topK(),
                        weights == null ? null : Elements.of(weights, workers));
        Activation activation = experts.activation();
        int parts = activation.gated() ? 2 : 1;
        Product product = product(rows, weight, parts, experts.gateUpBias(), activation, hidden);
        run(product, weight.dim(0), routing.expertOffsets(), hidden.dim(0));
    }

    private static int inputs(Tensor weight) {
        if (weight.dim(2) > Integer.MAX_VALUE / 2) {
            throw new UnsupportedOperationException(
                    "groupedGemm: rows of "
                            + weight.dim(2)
                            + " elements; the vector backend takes at most "
                            + Integer.MAX_VALUE / 2);
        }
        return (int) weight.dim(2);
    }

    private Product product(
            Rows rows,
            Tensor weight,
            int parts,
            @Nullable Tensor bias,
            @Nullable Activation activation,
            Tensor y) {
        Elements biases = bias == null ? null : Elements.of(bias, workers);
        Elements out = Elements.of(y, workers);
        if (weight.layout() instanceof Panels prepared) {
            Panels panels = prepared.at(workers.view(prepared.memory()));
            return new Product(
                    rows, panels, null, panels.parts(), panels.columns(), biases, activation, out);
        }
        Packing.Source source = source(weight, parts);
        return new Product(rows, null, source, parts, source.columns(), biases, activation, out);
    }

    private Packing.Source source(Tensor weight, int parts) {
        Elements elements = Elements.of(weight, workers);
        return new Packing.Source(elements, parts, weight.dim(1) / parts, inputs(weight));
    }

    /**
     * Packs a weight.
     *
     * @param weight F32, F16 or BF16 [groups, outputs, inputs], row-major
     * @param parts 2 if the outputs are gate rows before up rows, else 1
     * @param arena owner of the panels
     * @return the same weight in panels
     */
    Tensor prepare(Tensor weight, int parts, Arena arena) {
        Packing.Source source = source(weight, parts);
        Format format = format(source.elements(), weight);
        long blocks = Panels.blocks(parts, source.columns());
        long groups = weight.dim(0);
        long bytes = groups * blocks * Panels.BLOCK_COLUMNS * source.inputs();
        bytes = bytes / Panels.COLUMNS * format.stepBytes();
        Panels panels =
                new Panels(
                        arena.allocate(bytes, Tensor.ALIGNMENT_BYTES),
                        format,
                        parts,
                        source.columns(),
                        source.inputs(),
                        blocks);
        Panels open = panels.at(workers.view(panels.memory()));
        workers.run(
                groups * blocks,
                1,
                (worker, from, to) -> {
                    for (long i = from; i < to; i++) {
                        items[worker].packing.pack(source, open, i / blocks, i % blocks);
                    }
                });
        return Tensor.prepared(panels, weight.dtype(), weight.shape());
    }

    private Format format(Elements elements, Tensor weight) {
        if (weight.dtype() != DType.F16) {
            return weight.dtype() == DType.BF16 ? Format.BF16 : Format.F32;
        }
        boolean[] raisable = new boolean[workers.count()];
        Arrays.fill(raisable, true);
        workers.run(
                weight.numElements(),
                1 << 20,
                (worker, from, to) -> raisable[worker] &= Packing.canRaise(elements, from, to));
        boolean all = true;
        for (boolean one : raisable) {
            all &= one;
        }
        return all ? Format.RAISED_F16 : Format.F32;
    }

    private void run(Product product, long groups, Tensor offsets, long rows) {
        raggedItems.run(
                offsets,
                Math.toIntExact(groups),
                rows,
                product.blocks(),
                Item.LARGEST,
                (worker, expert, row, count, block, blocks) ->
                        items[worker].multiply(product, expert, row, count, block, blocks));
    }
}
