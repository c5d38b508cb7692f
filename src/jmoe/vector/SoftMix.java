package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;

import jdk.incubator.vector.FloatVector;

import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import java.util.Arrays;

/**
 * The two sums of Soft-MoE: each target, a slot or a token, is the sum of all sources, the tokens
 * or slots, by a softmax over these. First the weights of some targets, then their sums, both in
 * blocks of targets in parallel; a sum's terms come in the order of the sources.
 */
final class SoftMix {
    /** Targets whose weights are computed together: neighbours in a line of the cache. */
    private static final int WEIGHT_BLOCK = 16;

    /** Targets, columns and sources of a tile: sums and rows fit in the first-level cache. */
    private static final int TILE_TARGETS = 8;

    private static final int TILE_COLUMNS = 512;
    private static final int TILE_SOURCES = 4;

    /** Weights that are kept between the two halves, unless one target has more. */
    private static final int BATCH_WEIGHTS = 1 << 22;

    /** Weights, and multiply-adds, that are worth handing to another thread. */
    private static final long GRAIN_WEIGHTS = 2048;

    private static final long GRAIN_PRODUCTS = 1 << 17;

    private final Workers workers;
    private final float[][] sums;
    private final float[][] rows;
    private final double[][] totals;
    private float[] weights = new float[0];

    SoftMix(Workers workers) {
        this.workers = workers;
        sums = new float[workers.count()][TILE_TARGETS * TILE_COLUMNS];
        rows = new float[workers.count()][TILE_SOURCES * TILE_COLUMNS];
        totals = new double[workers.count()][2 * WEIGHT_BLOCK];
    }

    /**
     * One of the two operations, as the workers see it.
     *
     * @param logits of target i and source j at {@code i targetStep + j sourceStep}
     */
    private record Mix(
            Elements logits,
            long targetStep,
            long sourceStep,
            int targets,
            int sources,
            Elements from,
            Elements to,
            long columns) {
        float logit(long target, long source) {
            return logits.getFloat(target * targetStep + source * sourceStep);
        }
    }

    void dispatch(Tensor x, Tensor logits, Tensor slotRows) {
        int tokens = (int) logits.dim(0);
        int slots = (int) logits.dim(1);
        mix(new Mix(of(logits), 1, slots, slots, tokens, of(x), of(slotRows), x.dim(1)));
    }

    void combine(Tensor slotRows, Tensor logits, Tensor y) {
        int tokens = (int) logits.dim(0);
        int slots = (int) logits.dim(1);
        mix(new Mix(of(logits), slots, 1, tokens, slots, of(slotRows), of(y), y.dim(1)));
    }

    private Elements of(Tensor tensor) {
        return Elements.of(tensor, workers);
    }

    private void mix(Mix mix) {
        int batch = Math.max(1, BATCH_WEIGHTS / Math.max(1, mix.sources));
        for (long first = 0; first < mix.targets; first += batch) {
            int count = (int) Math.min(batch, mix.targets - first);
            int needed = Math.multiplyExact(count, mix.sources);
            if (weights.length < needed) {
                weights = new float[needed];
            }
            weigh(mix, first, count);
            add(mix, first, count);
        }
    }

    private void weigh(Mix mix, long first, int count) {
        long blocks = Math.ceilDiv(count, WEIGHT_BLOCK);
        long grain = Math.max(1, GRAIN_WEIGHTS / WEIGHT_BLOCK / Math.max(1, mix.sources));
        workers.run(
                blocks,
                grain,
                (worker, from, to) -> {
                    for (int block = (int) from; block < to; block++) {
                        int at = block * WEIGHT_BLOCK;
                        int some = Math.min(WEIGHT_BLOCK, count - at);
                        weighBlock(mix, first, at, some, totals[worker]);
                    }
                });
    }

    /**
     * Softmax of some targets from {@code first + at} on, to {@code weights} from {@code at} on.
     */
    private void weighBlock(Mix mix, long first, int at, int count, double[] total) {
        Arrays.fill(total, 0, count, Double.NEGATIVE_INFINITY);
        Arrays.fill(total, WEIGHT_BLOCK, WEIGHT_BLOCK + count, 0);
        for (int j = 0; j < mix.sources; j++) {
            for (int i = 0; i < count; i++) {
                total[i] = Math.max(total[i], mix.logit(first + at + i, j));
            }
        }
        for (int j = 0; j < mix.sources; j++) {
            for (int i = 0; i < count; i++) {
                double weight = Math.exp(mix.logit(first + at + i, j) - total[i]);
                total[WEIGHT_BLOCK + i] += weight;
                weights[(at + i) * mix.sources + j] = (float) weight;
            }
        }
        for (int i = 0; i < count; i++) {
            float factor = (float) (1 / total[WEIGHT_BLOCK + i]);
            for (int j = 0; j < mix.sources; j++) {
                weights[(at + i) * mix.sources + j] *= factor;
            }
        }
    }

    private void add(Mix mix, long first, int count) {
        long perTargets = Math.ceilDiv(mix.columns, (long) TILE_COLUMNS);
        long tiles = Math.ceilDiv(count, TILE_TARGETS) * perTargets;
        long products = (long) TILE_TARGETS * TILE_COLUMNS * Math.max(1, mix.sources);
        workers.run(
                tiles,
                Math.max(1, GRAIN_PRODUCTS / products),
                (worker, from, to) -> {
                    for (long tile = from; tile < to; tile++) {
                        long column = tile % perTargets * TILE_COLUMNS;
                        int at = (int) (tile / perTargets) * TILE_TARGETS;
                        int some = Math.min(TILE_TARGETS, count - at);
                        addTile(mix, first, at, some, column, sums[worker], rows[worker]);
                    }
                });
    }

    private void addTile(
            Mix mix, long first, int at, int count, long column, float[] sum, float[] row) {
        int columns = (int) Math.min(TILE_COLUMNS, mix.columns - column);
        int padded = Lanes.padded(columns);
        Arrays.fill(sum, 0);
        for (int j = 0; j < mix.sources; j += TILE_SOURCES) {
            int some = Math.min(TILE_SOURCES, mix.sources - j);
            for (int k = 0; k < some; k++) {
                long element = (long) (j + k) * mix.columns + column;
                mix.from.read(element, columns, row, k * TILE_COLUMNS);
            }
            for (int i = 0; i < count; i++) {
                int weight = (at + i) * mix.sources + j;
                if (some == TILE_SOURCES) {
                    addFour(weight, row, sum, i * TILE_COLUMNS, padded);
                } else {
                    for (int k = 0; k < some; k++) {
                        addOne(weight + k, row, k * TILE_COLUMNS, sum, i * TILE_COLUMNS, padded);
                    }
                }
            }
        }
        for (int i = 0; i < count; i++) {
            long element = (first + at + i) * mix.columns + column;
            mix.to.write(sum, i * TILE_COLUMNS, columns, element);
        }
    }

    private void addFour(int weight, float[] row, float[] sum, int at, int count) {
        float w0 = weights[weight];
        float w1 = weights[weight + 1];
        float w2 = weights[weight + 2];
        float w3 = weights[weight + 3];
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector s = FloatVector.fromArray(Lanes.FLOATS, sum, at + i);
            s = FloatVector.fromArray(Lanes.FLOATS, row, i).lanewise(FMA, w0, s);
            s = FloatVector.fromArray(Lanes.FLOATS, row, TILE_COLUMNS + i).lanewise(FMA, w1, s);
            s = FloatVector.fromArray(Lanes.FLOATS, row, 2 * TILE_COLUMNS + i).lanewise(FMA, w2, s);
            s = FloatVector.fromArray(Lanes.FLOATS, row, 3 * TILE_COLUMNS + i).lanewise(FMA, w3, s);
            s.intoArray(sum, at + i);
        }
    }

    private void addOne(int weight, float[] row, int rowAt, float[] sum, int at, int count) {
        float w = weights[weight];
        for (int i = 0; i < count; i += Lanes.COUNT) {
            FloatVector s = FloatVector.fromArray(Lanes.FLOATS, sum, at + i);
            FloatVector.fromArray(Lanes.FLOATS, row, rowAt + i)
                    .lanewise(FMA, w, s)
                    .intoArray(sum, at + i);
        }
    }
}
