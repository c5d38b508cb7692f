package jmoe.nativecpu;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;
import jmoe.threads.RaggedItems;
import jmoe.threads.RaggedItems.Largest;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * {@code y[r] = x[r] weight[e]^T + bias[e]}, and the same with the activation on top: one call of
 * the library for each of the {@link RaggedItems}.
 */
final class GroupedGemm implements AutoCloseable {
    private final Workers workers;
    private final NativeLibrary library;
    private final RaggedItems raggedItems;
    private final RaggedItems.Work multiplyItem = this::multiplyItem;
    private final Scratch scratch;

    /** The arguments of the running product, as the workers see them. */
    private MemorySegment x = MemorySegment.NULL;

    private MemorySegment rowToSlot = MemorySegment.NULL;
    private MemorySegment slotWeights = MemorySegment.NULL;
    private MemorySegment weight = MemorySegment.NULL;
    private MemorySegment weightScale = MemorySegment.NULL;
    private MemorySegment bias = MemorySegment.NULL;
    private MemorySegment y = MemorySegment.NULL;
    private long slots;

    GroupedGemm(Workers workers, NativeLibrary library) {
        this.workers = workers;
        this.library = library;
        raggedItems = new RaggedItems(workers);
        scratch = new Scratch(workers.count());
    }

    void multiply(
            Tensor rows, Tensor matrices, @Nullable Tensor biases, Tensor offsets, Tensor result) {
        Panels panels = panels(matrices);
        int parts = panels == null ? 1 : panels.parts();
        Product product =
                new Product(
                        matrices.dim(2),
                        matrices.dim(1) / parts,
                        0,
                        1,
                        parts,
                        panels != null,
                        rows.dtype(),
                        matrices.dtype(),
                        result.dtype(),
                        null,
                        false);
        run(product, rows, null, null, matrices, biases, offsets, result);
    }

    void gateUpSwiglu(
            Tensor tokens,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor hidden) {
        Tensor matrices = experts.gateUp();
        Activation activation = experts.activation();
        int parts = parts(activation);
        Product product =
                new Product(
                        matrices.dim(2),
                        matrices.dim(1) / parts,
                        routing.tokens() * routing.topK(),
                        Math.max(1, routing.topK()),
                        parts,
                        panels(matrices) != null,
                        tokens.dtype(),
                        matrices.dtype(),
                        hidden.dtype(),
                        activation,
                        weights != null);
        run(
                product,
                tokens,
                routing.rowToSlot(),
                weights,
                matrices,
                experts.gateUpBias(),
                routing.expertOffsets(),
                hidden);
    }

    /** How many parts the outputs of the first product are made of. */
    static int parts(Activation activation) {
        return activation.gated() ? 2 : 1;
    }

    private static @Nullable Panels panels(Tensor weight) {
        return weight.layout() instanceof Panels panels ? panels : null;
    }

    private void run(
            Product product,
            Tensor rows,
            @Nullable Tensor map,
            @Nullable Tensor weights,
            Tensor matrices,
            @Nullable Tensor biases,
            Tensor offsets,
            Tensor result) {
        product.write(library.tier(), scratch.product());
        MemorySegment described = scratch.product();
        long blocks = library.blocks(described);
        Panels panels = panels(matrices);
        if (panels != null) {
            requireSame(panels, matrices.dim(0), blocks, library.blockBytes(described));
        }
        Largest largest =
                new Largest(
                        library.itemRows(described),
                        library.tileRows(described),
                        library.itemBlocks(described));
        scratch.grow(library.scratchBytes(described, largest.rows(), largest.blocks()));
        slots = product.slots();
        x = workers.view(rows.data());
        rowToSlot = map == null ? MemorySegment.NULL : scratch.slots(map.data());
        slotWeights = view(weights);
        weight = workers.view(panels == null ? matrices.data() : panels.memory());
        weightScale = view(matrices.scale());
        bias = view(biases);
        y = workers.view(result.data());
        try {
            raggedItems.run(
                    offsets,
                    Math.toIntExact(matrices.dim(0)),
                    result.dim(0),
                    blocks,
                    largest,
                    multiplyItem);
        } finally {
            forget();
        }
    }

    private MemorySegment view(@Nullable Tensor tensor) {
        return tensor == null ? MemorySegment.NULL : workers.view(tensor.data());
    }

    /** Does not keep memory alive that nobody needs any more. */
    private void forget() {
        x = MemorySegment.NULL;
        rowToSlot = MemorySegment.NULL;
        slotWeights = MemorySegment.NULL;
        weight = MemorySegment.NULL;
        weightScale = MemorySegment.NULL;
        bias = MemorySegment.NULL;
        y = MemorySegment.NULL;
    }

    /** Panels of another library could be of another size. */
    private static void requireSame(Panels panels, long groups, long blocks, long blockBytes) {
        if (panels.groups() != groups
                || panels.blocks() != blocks
                || panels.blockBytes() != blockBytes) {
            throw new IllegalArgumentException(
                    "weight: expected panels of "
                            + groups
                            + " times "
                            + blocks
                            + " blocks of "
                            + blockBytes
                            + " bytes, got "
                            + panels
                            + "; prepare it with the kernels that multiply by it");
        }
    }

    private void multiplyItem(int worker, int group, long row, int rows, long block, int blocks) {
        int result =
                library.multiply(
                        scratch.product(),
                        x,
                        rowToSlot,
                        slotWeights,
                        weight,
                        weightScale,
                        bias,
                        y,
                        scratch.of(worker),
                        group,
                        row,
                        rows,
                        block,
                        blocks);
        if (result != NativeLibrary.OK) {
            throw failure(result, slots);
        }
    }

    /** What a function of the library refused. */
    static RuntimeException failure(int result, long slots) {
        return switch (result) {
            case NativeLibrary.BAD_SLOT ->
                    new IndexOutOfBoundsException(
                            "rowToSlot: expected 0 to "
                                    + (slots - 1)
                                    + ", got another slot; another thread must not change it"
                                    + " meanwhile");
            case NativeLibrary.BAD_PRODUCT ->
                    new IllegalStateException("the native library refuses the product");
            case NativeLibrary.BAD_TIER ->
                    new IllegalStateException("the native library refuses the tier");
            default -> new IllegalStateException("the native library returns " + result);
        };
    }

    /**
     * Packs a weight.
     *
     * @param matrices F32, F16, BF16 or scaled I8 [groups, outputs, inputs], row-major
     * @param parts 2 if the outputs are gate rows before up rows, else 1
     * @param arena owner of the panels
     * @return the same weight in panels
     */
    Tensor prepare(Tensor matrices, int parts, Arena arena) {
        long columns = matrices.dim(1) / parts;
        MemorySegment described = scratch.product();
        Product.packing(matrices.dim(2), columns, parts, matrices.dtype())
                .write(library.tier(), described);
        long groups = matrices.dim(0);
        long blocks = library.blocks(described);
        long blockBytes = library.blockBytes(described);
        long bytes = Math.multiplyExact(Math.multiplyExact(groups, blocks), blockBytes);
        MemorySegment memory = PanelMemory.allocate(bytes, library, arena);
        MemorySegment from = workers.view(matrices.data());
        MemorySegment to = workers.view(memory);
        workers.run(
                groups * blocks,
                1,
                (worker, first, end) -> {
                    for (long i = first; i < end; i++) {
                        int result = library.pack(described, from, to, i / blocks, i % blocks, 1);
                        if (result != NativeLibrary.OK) {
                            throw failure(result, 0);
                        }
                    }
                });
        Panels panels = new Panels(memory, parts, columns, groups, blocks, blockBytes);
        Tensor prepared = Tensor.prepared(panels, matrices.dtype(), matrices.shape());
        Tensor scale = matrices.scale();
        return scale == null ? prepared : Tensor.scaled(prepared, scale.copy(arena));
    }

    /** Frees the scratch, when no product runs. */
    @Override
    public void close() {
        scratch.close();
    }
}
