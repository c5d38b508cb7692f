package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;

import jdk.incubator.vector.FloatVector;

import jmoe.ops.SingletonExperts;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * Experts of a single neuron: first all neurons, slots in parallel, then the sums, tokens and
 * chunks of columns in parallel, slots in order. Both read each expert's row once, as it lies.
 */
final class Singletons {
    /** Slots whose neurons are kept between the two halves. */
    private static final int BATCH_SLOTS = 1 << 16;

    /** Elements that are worth handing to another thread. */
    private static final long GRAIN_ELEMENTS = 16 * 1024;

    private final Workers workers;
    private final Chunks chunks;
    private final float[][] tokenRows;
    private final float[][] expertRows;
    private final float[][] sumsOfSlots;
    private float[] neurons = new float[0];

    Singletons(Workers workers, Chunks chunks) {
        this.workers = workers;
        this.chunks = chunks;
        tokenRows = new float[workers.count()][Chunks.COLUMNS];
        expertRows = new float[workers.count()][Chunks.COLUMNS];
        sumsOfSlots = new float[workers.count()][Chunks.COLUMNS];
    }

    /** The arguments of one call, as the workers see them. */
    private record Bank(
            Elements x,
            Elements topkIds,
            @Nullable Elements weights,
            Elements up,
            Elements down,
            SingletonExperts experts,
            int topK,
            long hidden) {
        /** The expert of a slot, or -1 if the slot adds nothing. */
        int expert(long slot) {
            int id = topkIds.getInt(slot);
            boolean there = id >= 0 && id < experts.numExperts() && weight(slot) != 0;
            return there ? id : -1;
        }

        float weight(long slot) {
            return weights == null ? 1 : weights.getFloat(slot);
        }

        /** What the neuron of an expert finds in a token. */
        float neuron(long slot, long expert, float[] tokenRow, float[] expertRow) {
            double sum = 0;
            for (long column = 0; column < hidden; column += Chunks.COLUMNS) {
                int count = (int) Math.min(Chunks.COLUMNS, hidden - column);
                x.read(slot / topK * hidden + column, count, tokenRow, 0);
                up.read(expert * hidden + column, count, expertRow, 0);
                sum += DotProduct.of(tokenRow, expertRow, Lanes.padded(count));
            }
            return (float) sum;
        }
    }

    void sum(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        Bank bank =
                new Bank(
                        Elements.of(x, workers),
                        Elements.of(topkIds, workers),
                        weights == null ? null : Elements.of(weights, workers),
                        Elements.of(experts.up(), workers),
                        Elements.of(experts.down(), workers),
                        experts,
                        (int) topkIds.dim(1),
                        experts.hidden());
        Elements out = Elements.of(y, workers);
        long tokens = topkIds.dim(0);
        long batch = Math.max(1, BATCH_SLOTS / Math.max(1, bank.topK));
        for (long first = 0; first < tokens; first += batch) {
            long count = Math.min(batch, tokens - first);
            computeNeurons(bank, first * bank.topK, (int) count * bank.topK);
            addExperts(bank, first, count, out);
        }
    }

    private void computeNeurons(Bank bank, long firstSlot, int slots) {
        if (neurons.length < slots) {
            neurons = new float[slots];
        }
        long grain = Math.max(1, GRAIN_ELEMENTS / Math.max(1, bank.hidden));
        workers.run(
                slots,
                grain,
                (worker, from, to) -> {
                    for (long first = from; first < to; first += Chunks.COLUMNS) {
                        int count = (int) Math.min(Chunks.COLUMNS, to - first);
                        computeNeurons(bank, firstSlot, (int) first, count, worker);
                    }
                });
    }

    private void computeNeurons(Bank bank, long firstSlot, int first, int count, int worker) {
        float[] sums = sumsOfSlots[worker];
        float[] tokenRow = tokenRows[worker];
        float[] expertRow = expertRows[worker];
        for (int i = 0; i < count; i++) {
            long slot = firstSlot + first + i;
            int expert = bank.expert(slot);
            sums[i] = expert < 0 ? 0 : bank.neuron(slot, expert, tokenRow, expertRow);
        }
        // Kinds without a gate use its place for themselves.
        Swiglu.activate(bank.experts.activation(), tokenRow, 0, sums, 0, Lanes.padded(count));
        for (int i = 0; i < count; i++) {
            long slot = firstSlot + first + i;
            neurons[first + i] = bank.expert(slot) < 0 ? 0 : bank.weight(slot) * sums[i];
        }
    }

    private void addExperts(Bank bank, long firstToken, long tokens, Elements out) {
        chunks.run(
                tokens,
                bank.hidden,
                (token, column, count, sum, row) -> {
                    int padded = Lanes.padded(count);
                    Arrays.fill(sum, 0, padded, 0);
                    for (int k = 0; k < bank.topK; k++) {
                        int i = (int) token * bank.topK + k;
                        if (neurons[i] != 0) {
                            long expert = bank.topkIds.getInt(firstToken * bank.topK + i);
                            bank.down.read(expert * bank.hidden + column, count, row, 0);
                            addProduct(row, neurons[i], sum, padded);
                        }
                    }
                    out.write(sum, 0, count, (firstToken + token) * bank.hidden + column);
                });
    }

    private static void addProduct(float[] row, float factor, float[] sum, int count) {
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector.fromArray(Lanes.FLOATS, row, i)
                    .lanewise(FMA, factor, FloatVector.fromArray(Lanes.FLOATS, sum, i))
                    .intoArray(sum, i);
        }
    }
}
