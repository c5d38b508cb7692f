package jmoe.vector;

import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;

/**
 * Each expert takes its best tokens: candidates as integers in the order of numbers, turned by
 * expert; for each expert the lowest one that it takes, digit by digit; then a bit for each pair of
 * token and expert.
 */
final class ExpertChoice {
    /** Tokens whose candidates of one expert lie in one line of a cache. */
    private static final int TILE_TOKENS = 16;

    /** Tokens whose bits one worker sets. */
    private static final int BLOCK_TOKENS = 256;

    /** Of nobody: the token is not served, or its logit is NaN. */
    private static final int ABSENT = Integer.MIN_VALUE;

    /** Where the digits of a candidate begin, the highest first, and their bits. */
    private static final int[] SHIFTS = {21, 10, 0};

    private static final int[] BITS = {11, 11, 10};

    private final Workers workers;
    private final @Nullable Powers[] powers;
    private final @Nullable TopK[] tops;
    private final int[][] histograms;

    /** Of a softmax over tokens, if the batch has one. */
    private final ColumnPowers columns = new ColumnPowers();

    private boolean overTokens;

    /** By expert and token. */
    private int[][] candidates = new int[0][];

    /** By expert: the tokens that it takes, in order, and how many. */
    private int[][] taken = new int[0][];

    private int[] counts = new int[0];

    /** By token: a bit for each expert that takes it. */
    private long[][] bits = new long[0][];

    ExpertChoice(Workers workers) {
        this.workers = workers;
        powers = new Powers[workers.count()];
        tops = new TopK[workers.count()];
        histograms = new int[workers.count()][1 << BITS[0]];
    }

    BatchChoice prepare(Route.Batch batch, Selection.ExpertChoice choice) {
        int numExperts = batch.config().numExperts();
        int tokens = batch.tokens();
        overTokens = choice.scope() == Scope.TOKENS;
        if (overTokens) {
            columns.compute(batch, workers);
        }
        int served = batch.countServed();
        int share = choice.tokensPerExpert(served, numExperts);
        if (candidates.length < numExperts || candidates[0].length < tokens) {
            candidates = new int[numExperts][tokens];
        }
        if (taken.length < numExperts || taken[0].length < share) {
            taken = new int[numExperts][share];
            counts = new int[numExperts];
        }
        int words = Math.ceilDiv(numExperts, Long.SIZE);
        if (bits.length < tokens || (tokens > 0 && bits[0].length < words)) {
            bits = new long[tokens][words];
        }
        long tiles = Math.ceilDiv(tokens, TILE_TOKENS);
        workers.run(tiles, 1, (worker, from, to) -> fillCandidates(batch, worker, from, to));
        workers.run(
                numExperts,
                1,
                (worker, from, to) -> {
                    for (int e = (int) from; e < to; e++) {
                        counts[e] =
                                take(candidates[e], tokens, share, histograms[worker], taken[e]);
                    }
                });
        workers.run(
                Math.ceilDiv(tokens, BLOCK_TOKENS),
                1,
                (worker, from, to) -> {
                    int end = (int) Math.min(tokens, to * BLOCK_TOKENS);
                    setBits((int) from * BLOCK_TOKENS, end, numExperts);
                });
        return (worker, token, ids) -> gather(batch, worker, token, ids);
    }

    /** What the batch that was prepared last is weighed by; null for a softmax over experts. */
    @Nullable ColumnPowers columns() {
        return overTokens ? columns : null;
    }

    private Powers powers(int worker, int numExperts) {
        Powers own = powers[worker];
        if (own == null || !own.serves(numExperts)) {
            own = new Powers(numExperts);
            powers[worker] = own;
        }
        return own;
    }

    private void fillCandidates(Route.Batch batch, int worker, long fromTile, long toTile) {
        int numExperts = batch.config().numExperts();
        boolean softmax = batch.config().score() == Score.SOFTMAX && !overTokens;
        Powers own = powers(worker, numExperts);
        int end = (int) Math.min(batch.tokens(), toTile * TILE_TOKENS);
        for (int token = (int) fromTile * TILE_TOKENS; token < end; token++) {
            if (!batch.serves(token)) {
                for (int e = 0; e < numExperts; e++) {
                    candidates[e][token] = ABSENT;
                }
            } else if (softmax) {
                own.compute(batch.logits(), token);
                double sum = own.sum();
                for (int e = 0; e < numExperts; e++) {
                    int bits = Float.floatToRawIntBits((float) (own.powers[e] / sum));
                    candidates[e][token] = Float.isNaN(own.row[e]) ? ABSENT : bits;
                }
            } else {
                own.read(batch.logits(), token);
                for (int e = 0; e < numExperts; e++) {
                    int bits = Float.floatToRawIntBits(own.row[e] + 0f); // turns -0 into 0
                    bits ^= (bits >> 31) & Integer.MAX_VALUE;
                    candidates[e][token] = Float.isNaN(own.row[e]) ? ABSENT : bits;
                }
            }
        }
    }

    /** Writes the best tokens of an expert in order; returns how many there are. */
    private static int take(int[] of, int tokens, int share, int[] histogram, int[] best) {
        int numbers = 0;
        for (int t = 0; t < tokens; t++) {
            numbers += of[t] != ABSENT ? 1 : 0;
        }
        int count = Math.min(share, numbers);
        if (count == 0) {
            return 0;
        }
        // So many of those that equal the lowest are taken: the earliest.
        int equals = count;
        int lowest = 0;
        int known = 0;
        for (int digit = 0; digit < SHIFTS.length; digit++) {
            int shift = SHIFTS[digit];
            int mask = (1 << BITS[digit]) - 1;
            Arrays.fill(histogram, 0);
            for (int t = 0; t < tokens; t++) {
                int key = of[t] ^ Integer.MIN_VALUE;
                if ((key & known) == lowest) {
                    histogram[(key >>> shift) & mask]++;
                }
            }
            int value = mask;
            while (equals > histogram[value]) {
                equals -= histogram[value--];
            }
            lowest |= value << shift;
            known |= mask << shift;
        }
        lowest ^= Integer.MIN_VALUE;
        int at = 0;
        for (int t = 0; at < count; t++) {
            if (of[t] > lowest || (of[t] == lowest && equals-- > 0)) {
                best[at++] = t;
            }
        }
        return count;
    }

    private void setBits(int from, int to, int numExperts) {
        for (int token = from; token < to; token++) {
            Arrays.fill(bits[token], 0);
        }
        for (int e = 0; e < numExperts; e++) {
            int found = Arrays.binarySearch(taken[e], 0, counts[e], from);
            for (int i = found < 0 ? -1 - found : found; i < counts[e] && taken[e][i] < to; i++) {
                bits[taken[e][i]][e / Long.SIZE] |= 1L << e;
            }
        }
    }

    /** The experts that take a token, of too many those with the largest logits. */
    private int gather(Route.Batch batch, int worker, int token, int[] ids) {
        TopK top = tops[worker];
        if (top == null || !top.keeps(ids.length)) {
            top = new TopK(ids.length);
            tops[worker] = top;
        }
        top.clear();
        long first = (long) token * batch.config().numExperts();
        int words = Math.ceilDiv(batch.config().numExperts(), Long.SIZE);
        int count = 0;
        for (int word = 0; word < words; word++) {
            for (long rest = bits[token][word]; rest != 0; rest &= rest - 1) {
                int e = word * Long.SIZE + Long.numberOfTrailingZeros(rest);
                top.offer(batch.logits().getFloat(first + e), e);
                count++;
            }
        }
        top.drain(ids);
        return Math.min(count, ids.length);
    }
}
