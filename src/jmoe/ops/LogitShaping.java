package jmoe.ops;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.function.UnaryOperator;

/**
 * {@link Kernels#shapeLogits} on the host, for one thread: all in double, in a fixed order, rounded
 * once. Kernels of a device follow it operation by operation, for the same bits.
 */
public final class LogitShaping {
    /** Sums over experts are made of so many, as a warp has them. */
    private static final int PARTIAL_SUMS = 32;

    private final RouterConfig config;
    private final MemorySegment logits;
    private final @Nullable MemorySegment tokenTypes;
    private final @Nullable MemorySegment noiseLogits;
    private final int step;

    /** The logits of the token on their way. */
    private final double[] row;

    private final double[] partialSums = new double[PARTIAL_SUMS];
    private final int[] words = new int[4];

    /**
     * What to shape.
     *
     * @param logits as in {@link Kernels#shapeLogits}
     * @param config as there
     * @param inputs as there
     * @param view of the memory of a tensor, for the thread that shapes
     */
    public LogitShaping(
            Tensor logits,
            RouterConfig config,
            ShapeInputs inputs,
            UnaryOperator<MemorySegment> view) {
        this.config = config;
        this.logits = view.apply(logits.data());
        tokenTypes = view(inputs.tokenTypes(), view);
        noiseLogits = view(inputs.noiseLogits(), view);
        Tensor number = inputs.step();
        step = number == null ? 0 : view.apply(number.data()).get(JAVA_INT_UNALIGNED, 0);
        row = new double[config.numLogits()];
    }

    private static @Nullable MemorySegment view(
            @Nullable Tensor tensor, UnaryOperator<MemorySegment> view) {
        return tensor == null ? null : view.apply(tensor.data());
    }

    /**
     * Shapes the logits of some of the tokens.
     *
     * @param from first token
     * @param to past the last token
     */
    public void shape(long from, long to) {
        if (config.logitTransforms().isEmpty()) {
            return;
        }
        for (long token = from; token < to; token++) {
            boolean served =
                    tokenTypes == null
                            || config.serves(tokenTypes.get(JAVA_INT_UNALIGNED, 4 * token));
            if (served) {
                shape(token);
            }
        }
    }

    private void shape(long token) {
        long first = 4 * token * row.length;
        for (int e = 0; e < row.length; e++) {
            row[e] = logits.get(JAVA_FLOAT_UNALIGNED, first + 4L * e);
        }
        List<LogitTransform> transforms = config.logitTransforms();
        for (int place = 0; place < transforms.size(); place++) {
            apply(transforms.get(place), token, place);
        }
        for (int e = 0; e < row.length; e++) {
            // One NaN for all, so that backends agree.
            float rounded = Double.isNaN(row[e]) ? Float.NaN : (float) row[e];
            logits.set(JAVA_FLOAT_UNALIGNED, first + 4L * e, rounded);
        }
    }

    private void apply(LogitTransform transform, long token, int place) {
        switch (transform) {
            case LogitTransform.Temperature t -> {
                for (int e = 0; e < row.length; e++) {
                    row[e] /= t.tau();
                }
            }
            case LogitTransform.Standardise s -> standardise(s.lambda());
            case LogitTransform.Cap c -> {
                for (int e = 0; e < row.length; e++) {
                    row[e] = c.limit() * StrictMath.tanh(row[e] / c.limit());
                }
            }
            case LogitTransform.FixedNoise n -> {
                for (int e = 0; e < row.length; e++) {
                    row[e] += n.deviation() * Noise.normal(uniform(n.seed(), token, e, place));
                }
            }
            case LogitTransform.LearnedNoise n -> addLearned(n.seed(), token, place);
            case LogitTransform.GumbelNoise n -> {
                for (int e = 0; e < row.length; e++) {
                    row[e] += n.factor() * Noise.gumbel(uniform(n.seed(), token, e, place));
                }
            }
        }
    }

    private void addLearned(long seed, long token, int place) {
        if (noiseLogits == null) {
            return; // Arguments.shapeLogits has refused that
        }
        long first = 4 * token * row.length;
        for (int e = 0; e < row.length; e++) {
            double h = noiseLogits.get(JAVA_FLOAT_UNALIGNED, first + 4L * e);
            row[e] += Noise.deviation(h) * Noise.normal(uniform(seed, token, e, place));
        }
    }

    private double uniform(long seed, long token, int expert, int place) {
        words[0] = (int) token;
        words[1] = expert;
        words[2] = step;
        words[3] = place;
        Philox.scramble(words, seed);
        return Noise.uniform(words[0], words[1]);
    }

    /** Relative to the first logit, so that equal ones differ from their mean by exactly 0. */
    private void standardise(double lambda) {
        double first = row[0];
        for (int e = 0; e < row.length; e++) {
            row[e] -= first;
            partialSums[e % PARTIAL_SUMS] += row[e];
        }
        double mean = takeSum() / row.length;
        for (int e = 0; e < row.length; e++) {
            row[e] -= mean;
            partialSums[e % PARTIAL_SUMS] += row[e] * row[e];
        }
        double deviation = StrictMath.sqrt(takeSum() / row.length);
        for (int e = 0; e < row.length; e++) {
            row[e] = deviation == 0 ? 0 : lambda * (row[e] / deviation);
        }
    }

    /** The sum of the partial sums, halves onto halves; zeros stay behind. */
    private double takeSum() {
        for (int half = PARTIAL_SUMS / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; i++) {
                partialSums[i] += partialSums[i + half];
                partialSums[i + half] = 0;
            }
        }
        double sum = partialSums[0];
        partialSums[0] = 0;
        return sum;
    }
}
