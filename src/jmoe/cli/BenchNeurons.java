package jmoe.cli;

import jmoe.ExpertForm;
import jmoe.PeerLayer;
import jmoe.Preset;
import jmoe.ops.PeerWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.BitSet;

/** A preset of a {@link PeerLayer} with random weights on a backend whose memory is the host's. */
final class BenchNeurons implements TimedLayer {
    private final Preset preset;
    private final ExpertForm.Neurons form;
    private final DType type;
    private final TimedKernels kernels;
    private final Arena arena = Arena.ofShared();
    private final PeerWeights weights;

    BenchNeurons(Preset preset, ExpertForm.Neurons form, DType type, OpenBackend backend) {
        this.preset = preset;
        this.form = form;
        this.type = type;
        kernels = new TimedKernels(backend.kernels());
        boolean complete = false;
        try {
            weights = RandomLayer.neurons(preset, type, arena);
            complete = true;
        } finally {
            if (!complete) {
                arena.close();
            }
        }
    }

    /** Queries, keys of both halves, and neurons there and back. */
    static long flops(Preset preset, ExpertForm.Neurons form, long tokens) {
        return 2 * tokens * tokenProducts(preset, form);
    }

    private static long tokenProducts(Preset preset, ExpertForm.Neurons form) {
        long hidden = preset.config().hidden();
        long queries = 2L * form.heads() * form.keyWidth();
        long keys = (long) preset.config().routers().getFirst().numLogits() * form.keyWidth();
        long slots = (long) form.heads() * preset.config().topK();
        return queries * hidden + form.heads() * keys + slots * 2 * hidden;
    }

    static long passBytes(Preset preset, ExpertForm.Neurons form, int tokens) {
        long batches = Batches.count(tokens) + 1L;
        return DType.F32.numBytes(batches * tokens * preset.config().hidden())
                + workspaceBytes(preset, form, tokens);
    }

    /** Queries, logits, and ids and weights of the slots; each is four bytes. */
    private static long workspaceBytes(Preset preset, ExpertForm.Neurons form, long tokens) {
        long logits = preset.config().routers().getFirst().numLogits();
        long ofHead = 2L * form.keyWidth() + logits + 4L * preset.config().topK();
        return DType.F32.numBytes(tokens * form.heads() * ofHead);
    }

    /** Batches through a layer that is made for them. */
    private final class Turns implements Batches {
        private final Arena own = Arena.ofShared();
        private final int tokens;
        private final int count;
        private final Tensor inputs;
        private final Tensor y;
        private final PeerLayer layer;
        private int next;

        Turns(int tokens) {
            this.tokens = tokens;
            count = Batches.count(tokens);
            int hidden = preset.config().hidden();
            inputs = Tensor.allocate(own, DType.F32, (long) count * tokens, hidden);
            RandomLayer.fill(inputs, 1, tokens);
            y = Tensor.allocate(own, DType.F32, tokens, hidden);
            layer =
                    new PeerLayer(
                            weights,
                            preset.config().topK(),
                            preset.config().routers().getFirst().score(),
                            kernels,
                            tokens);
        }

        @Override
        public void forward() {
            next = (next + 1) % count;
            layer.forward(inputs.slice((long) next * tokens, tokens), y);
        }

        @Override
        public int tokens() {
            return tokens;
        }

        @Override
        public long workspaceBytes() {
            return BenchNeurons.workspaceBytes(preset, form, tokens);
        }

        @Override
        public Work work() {
            BitSet used = new BitSet();
            Tensor ids = layer.topkIds();
            for (long slot = 0; slot < ids.numElements(); slot++) {
                int id = ids.getInt(slot);
                if (id >= 0) {
                    used.set(id);
                }
            }
            long elements =
                    weights.queries().numElements()
                            + weights.keys().numElements()
                            + 2L * used.cardinality() * preset.config().hidden();
            return new Work(
                    flops(preset, form, tokens), type.numBytes(elements), used.cardinality());
        }

        @Override
        public long notFinite() {
            return Agreement.NotFinite.count(y);
        }

        @Override
        public void close() {
            layer.close();
            own.close();
        }
    }

    @Override
    public TimedKernels kernels() {
        return kernels;
    }

    @Override
    public Batches open(int tokens) {
        return new Turns(tokens);
    }

    @Override
    public void close() {
        arena.close();
    }
}
