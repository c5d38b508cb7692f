package jmoe.cli;

import jmoe.ExpertForm;
import jmoe.Preset;
import jmoe.tensor.DType;

/** A preset with random weights on one backend, to be measured. */
interface TimedLayer extends AutoCloseable {
    /** Different batches of one size, the memory of a pass, and a place for the result. */
    interface Batches extends AutoCloseable {
        /** How many different batches there should be: each expert is asked for by some token. */
        static int count(int tokens) {
            return Math.clamp(1024 / tokens, 4, 64);
        }

        /** Runs a pass over the next batch. */
        void forward();

        int tokens();

        /** Of the memory for intermediate results. */
        long workspaceBytes();

        /** What the last pass did. */
        Work work();

        /** Values of the last result that are not finite. */
        long notFinite();

        @Override
        void close();
    }

    /**
     * Makes the weights.
     *
     * @param preset shape and rules
     * @param type of the experts
     * @param backend stays open
     */
    static TimedLayer of(Preset preset, DType type, OpenBackend backend) {
        return preset.form() instanceof ExpertForm.Neurons neurons
                ? new BenchNeurons(preset, neurons, type, backend)
                : new BenchLayer(preset, type, backend);
    }

    /** Matrix products of a pass, as many as tokens ask for. */
    static long flops(Preset preset, long tokens) {
        return preset.form() instanceof ExpertForm.Neurons neurons
                ? BenchNeurons.flops(preset, neurons, tokens)
                : Work.flops(preset.config(), tokens);
    }

    /** Memory for inputs and intermediate results, an upper bound. */
    static long passBytes(Preset preset, int tokens) {
        return preset.form() instanceof ExpertForm.Neurons neurons
                ? BenchNeurons.passBytes(preset, neurons, tokens)
                : BenchLayer.passBytes(preset.config(), tokens);
    }

    /** Around the backend. */
    TimedKernels kernels();

    /** Makes the inputs of one size of batch. */
    Batches open(int tokens);

    @Override
    void close();
}
