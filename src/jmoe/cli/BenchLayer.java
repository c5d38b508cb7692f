package jmoe.cli;

import jmoe.Backend;
import jmoe.MoeLayer;
import jmoe.Preset;
import jmoe.Workspace;
import jmoe.ops.Activation;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.SizeClass;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** A preset with random weights on one backend. */
final class BenchLayer implements AutoCloseable {
    private final Preset preset;
    private final DType type;
    private final TimedKernels kernels;
    private final OpenBackend backend;
    private final @Nullable Arena raw;
    private final MoeLayer layer;

    /** The same layer on the backend itself. */
    private final MoeLayer unclocked;

    /**
     * Makes the weights; those that the backend arranged anew are freed again.
     *
     * @param preset shape and rules
     * @param type of the experts
     * @param backend stays open
     */
    BenchLayer(Preset preset, DType type, OpenBackend backend) {
        this.preset = preset;
        this.type = type;
        this.backend = backend;
        kernels = new TimedKernels(backend.kernels());
        Arena arena = Arena.ofShared();
        boolean keeps = false;
        try {
            MoeWeights weights = RandomLayer.weights(preset, type, arena);
            layer = new MoeLayer(preset.config(), weights, kernels);
            keeps = layer.weights().equals(weights);
            // What is prepared already stays where it is.
            unclocked = new MoeLayer(preset.config(), layer.weights(), backend.kernels());
        } finally {
            if (!keeps) {
                arena.close();
            }
        }
        raw = keeps ? arena : null;
    }

    /** Different batches of one size, the memory of a pass, and a place for the result. */
    final class Batches implements AutoCloseable {
        /** Enough for each expert to be asked for by some token. */
        private static final int MAX_BATCHES = 64;

        private static final int MIN_BATCHES = 4;
        private static final int ROTATED_TOKENS = 1024;

        private final Arena arena = Arena.ofShared();
        private final int tokens;
        private final int count;
        private final Tensor inputs;
        private final @Nullable Tensor tokenTypes;
        private final Tensor y;
        private final Workspace workspace;
        private int next;

        private Batches(int tokens) {
            this.tokens = tokens;
            count = count(tokens);
            int hidden = preset.config().hidden();
            DType passType = rowType(backend, type);
            inputs = Tensor.allocate(arena, passType, (long) count * tokens, hidden);
            RandomLayer.fill(inputs, 1, tokens);
            y = Tensor.allocate(arena, passType, tokens, hidden);
            tokenTypes = preset.config().numTokenTypes() > 1 ? alternating() : null;
            workspace = layer.workspace(tokens, passType);
        }

        private Tensor alternating() {
            Tensor types = Tensor.allocate(arena, DType.I32, (long) count * tokens);
            for (int i = 0; i < types.numElements(); i++) {
                types.setInt(i, i % preset.config().numTokenTypes());
            }
            return types;
        }

        /** Runs a pass over the next batch. */
        void forward() {
            next = (next + 1) % count;
            layer.forward(input(next), types(next), y, workspace);
        }

        private Tensor input(int batch) {
            return inputs.slice((long) batch * tokens, tokens);
        }

        private @Nullable Tensor types(int batch) {
            return tokenTypes == null ? null : tokenTypes.slice((long) batch * tokens, tokens);
        }

        /** Captures the passes over some of the batches, without clocks in them. */
        CapturedPasses capture() {
            Kernels plain = backend.kernels();
            CapturedPasses passes = new CapturedPasses(plain, tokens);
            boolean complete = false;
            try {
                int batches = emulated() ? 1 : CapturedPasses.batches(tokens);
                for (int batch = 0; batch < Math.min(count, batches); batch++) {
                    passes.add(unclocked, input(batch), types(batch));
                }
                complete = true;
                return passes;
            } finally {
                if (!complete) {
                    passes.close();
                }
            }
        }

        int tokens() {
            return tokens;
        }

        long workspaceBytes() {
            return workspace.numBytes();
        }

        /** What the last pass did. */
        Work work() {
            return Work.of(preset.config(), type, tokens, workspace.tokensPerExpert());
        }

        /** What the last replays did, one by one. */
        List<Work> work(CapturedPasses passes) {
            List<Work> works = new ArrayList<>();
            for (Tensor tokensPerExpert : passes.tokensPerExpert()) {
                works.add(Work.of(preset.config(), type, tokens, tokensPerExpert));
            }
            return works;
        }

        /** Values of the last result that are not finite. */
        long notFinite() {
            return Agreement.NotFinite.count(y);
        }

        @Override
        public void close() {
            workspace.close();
            arena.close();
        }
    }

    private static int count(int tokens) {
        return Math.clamp(
                Batches.ROTATED_TOKENS / tokens, Batches.MIN_BATCHES, Batches.MAX_BATCHES);
    }

    /**
     * What a pass must do: the products' operations, and the weights it cannot do without.
     *
     * @param flops of all matrix products
     * @param bytes weights of the experts that had rows, of the shared expert and the router
     * @param experts that had rows
     */
    record Work(long flops, long bytes, int experts) {
        static Work of(MoeConfig config, DType type, long tokens, Tensor tokensPerExpert) {
            int matrices = matrices(config.activation());
            long hidden = config.hidden();
            long flops = 0;
            long elements = 0;
            int used = 0;
            for (int tokenType = 0; tokenType < config.numTokenTypes(); tokenType++) {
                int expert = tokenType * config.numExperts();
                for (SizeClass size : config.sizeClasses(tokenType)) {
                    long expertElements = matrices * hidden * size.intermediate();
                    for (int i = 0; i < size.numExperts(); i++) {
                        int rows = tokensPerExpert.getInt(expert);
                        flops += 2L * rows * expertElements;
                        elements += rows > 0 ? expertElements : 0;
                        used += rows > 0 ? 1 : 0;
                        expert++;
                    }
                }
            }
            long shared = matrices * hidden * config.sharedIntermediate();
            long router = hidden * config.numExperts() * config.numTokenTypes();
            return new Work(
                    flops + 2 * tokens * (shared + router),
                    type.numBytes(elements + shared + router),
                    used);
        }

        /** The same before a pass: as many rows as tokens ask for. */
        static long flops(MoeConfig config, long tokens) {
            long matrices = matrices(config.activation());
            long width = 0;
            for (SizeClass size : config.sizeClasses(0)) {
                width += (long) size.numExperts() * size.intermediate();
            }
            // Of experts that differ in size, as many as have the mean one.
            width = config.topK() * width / Math.max(1, config.numExperts());
            return 2
                    * tokens
                    * config.hidden()
                    * (matrices * (width + config.sharedIntermediate()) + config.numExperts());
        }

        private static int matrices(Activation activation) {
            return activation.gated() ? 3 : 2;
        }
    }

    TimedKernels kernels() {
        return kernels;
    }

    /**
     * The type of input, output and rows in between: that of the weights where a backend has units
     * that multiply 16 bits by 16 bits. Codes are multiplied by what rows are rounded to.
     */
    static DType rowType(OpenBackend backend, DType type) {
        if (backend.backend() != Backend.CUDA && backend.backend() != Backend.NATIVE) {
            return DType.F32;
        }
        return type == DType.I8 ? DType.BF16 : type;
    }

    /** Whether passes are replayed on a device, with rows of the type of the weights. */
    boolean onDevice() {
        return backend.backend() == Backend.CUDA;
    }

    /** Whether times mean nothing. */
    boolean emulated() {
        return backend.backend().emulated();
    }

    /** Makes the inputs of one size of batch. */
    Batches open(int tokens) {
        return new Batches(tokens);
    }

    /** Memory for inputs and intermediate results, an upper bound. */
    static long passBytes(MoeConfig config, int tokens) {
        long widest = 0;
        for (int intermediate : config.intermediates()) {
            widest = Math.max(widest, intermediate);
        }
        long slotElements = 2L * config.hidden() + 3 * widest;
        long elements =
                (long) tokens
                        * (config.topK() * slotElements
                                + 4L * config.hidden()
                                + 3L * config.sharedIntermediate()
                                + config.numExperts());
        return DType.F32.numBytes(elements + (long) count(tokens) * tokens * config.hidden());
    }

    @Override
    public void close() {
        unclocked.close();
        layer.close();
        if (raw != null) {
            raw.close();
        }
    }
}
