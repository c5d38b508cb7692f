package jmoe.cli;

import jmoe.Backend;
import jmoe.MoeLayer;
import jmoe.Preset;
import jmoe.Workspace;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** A preset of a {@link MoeLayer} with random weights on one backend. */
final class BenchLayer implements TimedLayer {
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
    final class Batches implements TimedLayer.Batches {
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
            count = TimedLayer.Batches.count(tokens);
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

        @Override
        public void forward() {
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

        @Override
        public int tokens() {
            return tokens;
        }

        @Override
        public long workspaceBytes() {
            return workspace.numBytes();
        }

        @Override
        public Work work() {
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

        @Override
        public long notFinite() {
            return Agreement.NotFinite.count(y);
        }

        @Override
        public void close() {
            workspace.close();
            arena.close();
        }
    }

    @Override
    public TimedKernels kernels() {
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

    @Override
    public Batches open(int tokens) {
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
        int batches = TimedLayer.Batches.count(tokens);
        return DType.F32.numBytes(elements + (long) batches * tokens * config.hidden());
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
