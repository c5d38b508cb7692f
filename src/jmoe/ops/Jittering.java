package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.MemorySegment;
import java.util.function.UnaryOperator;

/**
 * {@link Kernels#jitter} on the host, for one thread. Kernels of a device follow it operation by
 * operation, for the same bits.
 */
public final class Jittering {
    /** Columns that one counter gives factors to. */
    private static final int COLUMNS = 4;

    /** Where noise of logits has its place in a list, so that one seed may serve both. */
    private static final int PLACE = -1;

    private final Tensor x;
    private final Tensor y;
    private final InputTransform.Jitter jitter;
    private final int step;
    private final int[] words = new int[COLUMNS];

    /**
     * What to jitter.
     *
     * @param x as in {@link Kernels#jitter}
     * @param jitter as there
     * @param step as there
     * @param y as there
     * @param view of the memory of a tensor, for the thread that jitters
     */
    public Jittering(
            Tensor x,
            InputTransform.Jitter jitter,
            @Nullable Tensor step,
            Tensor y,
            UnaryOperator<MemorySegment> view) {
        this.x = Tensor.of(view.apply(x.data()), x.dtype(), x.shape());
        this.y = Tensor.of(view.apply(y.data()), y.dtype(), y.shape());
        this.jitter = jitter;
        this.step =
                step == null ? 0 : Tensor.of(view.apply(step.data()), step.dtype(), 1).getInt(0);
    }

    /**
     * Jitters some of the tokens.
     *
     * @param from first token
     * @param to past the last token
     */
    public void jitter(long from, long to) {
        long hidden = x.dim(1);
        for (long token = from; token < to; token++) {
            for (long column = 0; column < hidden; column++) {
                int word = (int) (column % COLUMNS);
                if (word == 0) {
                    draw(token, column / COLUMNS);
                }
                long at = token * hidden + column;
                float product = (float) (x.getDouble(at) * factor(words[word]));
                // One NaN for all, so that backends agree.
                y.setDouble(at, Float.isNaN(product) ? Float.NaN : product);
            }
        }
    }

    private void draw(long token, long columns) {
        words[0] = (int) token;
        words[1] = (int) columns;
        words[2] = step;
        words[3] = PLACE;
        Philox.scramble(words, jitter.seed());
    }

    private float factor(int word) {
        double u = (Integer.toUnsignedLong(word) + 0.5) * 0x1p-32;
        return (float) (1 + jitter.epsilon() * (2 * u - 1));
    }
}
