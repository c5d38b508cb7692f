package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;

import jdk.incubator.vector.FloatVector;

import jmoe.ops.ConstantExperts;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * Constant experts: first what each slot takes of x and of its constant, slots in parallel, then
 * the sums, tokens and chunks of columns in parallel, slots in order.
 */
final class Constants {
    /** Slots whose shares are kept between the two halves. */
    private static final int BATCH_SLOTS = 1 << 16;

    /** Elements that are worth handing to another thread. */
    private static final long GRAIN_ELEMENTS = 16 * 1024;

    private final Workers workers;
    private final Chunks chunks;
    private final float[][] tokenRows;
    private final float[][] mixingRows;
    private float[] shares = new float[0];

    Constants(Workers workers, Chunks chunks) {
        this.workers = workers;
        this.chunks = chunks;
        tokenRows = new float[workers.count()][Chunks.COLUMNS];
        mixingRows = new float[workers.count()][Chunks.COLUMNS];
    }

    /** The arguments of one call, as the workers see them. */
    private record Bank(
            Elements x,
            Elements topkIds,
            Elements weights,
            Elements mixing,
            Elements vectors,
            @Nullable Elements addend,
            boolean oneAddend,
            float factor,
            int firstId,
            int constants,
            int topK,
            long hidden) {
        /** The constant expert of a slot, or -1 if there is none or it adds nothing. */
        long constant(long slot) {
            long constant = (long) topkIds.getInt(slot) - firstId;
            boolean there = constant >= 0 && constant < constants && weights.getFloat(slot) != 0;
            return there ? constant : -1;
        }

        /** How much more of x the mixing wants than of the constant. */
        double preference(long slot, long constant, float[] tokenRow, float[] mixingRow) {
            double ofX = 0;
            double ofV = 0;
            for (long column = 0; column < hidden; column += Chunks.COLUMNS) {
                int count = (int) Math.min(Chunks.COLUMNS, hidden - column);
                int padded = Lanes.padded(count);
                x.read(slot / topK * hidden + column, count, tokenRow, 0);
                mixing.read(2 * constant * hidden + column, count, mixingRow, 0);
                ofX += DotProduct.of(tokenRow, mixingRow, padded);
                mixing.read((2 * constant + 1) * hidden + column, count, mixingRow, 0);
                ofV += DotProduct.of(tokenRow, mixingRow, padded);
            }
            return ofX - ofV;
        }

        /** What the sum is added to. */
        void readAddend(long token, long column, int count, float[] row) {
            if (addend == null) {
                Arrays.fill(row, 0, Lanes.padded(count), 0);
            } else {
                addend.read((oneAddend ? 0 : token) * hidden + column, count, row, 0);
            }
        }
    }

    void add(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        Tensor addend = residual.addend();
        Bank bank =
                new Bank(
                        Elements.of(x, workers),
                        Elements.of(routing.topkIds(), workers),
                        Elements.of(routing.topkWeights(), workers),
                        Elements.of(experts.mixing(), workers),
                        Elements.of(experts.vectors(), workers),
                        addend == null ? null : Elements.of(addend, workers),
                        addend != null && addend.dim(0) == 1,
                        (float) residual.factor(),
                        firstId,
                        experts.numConstants(),
                        routing.topK(),
                        experts.hidden());
        Elements out = Elements.of(y, workers);
        long tokens = routing.tokens();
        long batch = Math.max(1, BATCH_SLOTS / Math.max(1, bank.topK));
        for (long first = 0; first < tokens; first += batch) {
            long count = Math.min(batch, tokens - first);
            computeShares(bank, first * bank.topK, (int) count * bank.topK);
            addConstants(bank, first, count, out);
        }
    }

    private void computeShares(Bank bank, long firstSlot, int slots) {
        if (shares.length < 2 * slots) {
            shares = new float[2 * slots];
        }
        long grain = Math.max(1, GRAIN_ELEMENTS / Math.max(1, 2 * bank.hidden));
        workers.run(
                slots,
                grain,
                (worker, from, to) -> {
                    for (long i = from; i < to; i++) {
                        computeShare(bank, firstSlot + i, (int) i, worker);
                    }
                });
    }

    private void computeShare(Bank bank, long slot, int i, int worker) {
        long constant = bank.constant(slot);
        if (constant < 0) {
            shares[2 * i] = 0;
            shares[2 * i + 1] = 0;
            return;
        }
        double more = bank.preference(slot, constant, tokenRows[worker], mixingRows[worker]);
        float weight = bank.weights.getFloat(slot);
        shares[2 * i] = (float) (weight / (1 + Math.exp(-more)));
        shares[2 * i + 1] = (float) (weight / (1 + Math.exp(more)));
    }

    private void addConstants(Bank bank, long firstToken, long tokens, Elements out) {
        chunks.run(
                tokens,
                bank.hidden,
                (index, column, count, sum, row) -> {
                    long token = firstToken + index;
                    int padded = Lanes.padded(count);
                    Arrays.fill(sum, 0, padded, 0);
                    boolean any = false;
                    float ofX = 0;
                    for (int k = 0; k < bank.topK; k++) {
                        int i = (int) index * bank.topK + k;
                        long constant = bank.constant(token * bank.topK + k);
                        if (constant >= 0) {
                            any = true;
                            ofX += shares[2 * i];
                            bank.vectors.read(constant * bank.hidden + column, count, row, 0);
                            addProduct(row, shares[2 * i + 1], sum, padded);
                        }
                    }
                    // A token without constant experts is not read: it may be anything.
                    if (any) {
                        bank.x.read(token * bank.hidden + column, count, row, 0);
                        addProduct(row, ofX, sum, padded);
                    }
                    bank.readAddend(token, column, count, row);
                    addProduct(sum, bank.factor, row, padded);
                    out.write(row, 0, count, token * bank.hidden + column);
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
