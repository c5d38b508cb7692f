package jmoe.ops;

import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;

import org.jspecify.annotations.Nullable;

/** Whether a {@link Selection} is possible with the rest of a {@link RouterConfig}. */
final class SelectionChecks {
    private SelectionChecks() {}

    static void require(
            int numExperts,
            int topK,
            Score score,
            Selection selection,
            Normalisation normalisation,
            @Nullable Capacity capacity) {
        RouterConfig.require(
                !(normalisation instanceof Normalisation.Count)
                        || selection instanceof Selection.ExpertChoice,
                "normalisation",
                "Count with ExpertChoice only",
                selection);
        if (capacity != null) {
            capacity(numExperts, score, selection, capacity);
        }
        switch (selection) {
            case Selection.TopK t -> {}
            case Selection.GroupLimited g -> limited(g, numExperts, topK);
            case Selection.SparseMixer m -> {
                RouterConfig.require(topK == 2, "topK", "2 with SparseMixer", topK);
                RouterConfig.require(
                        capacity == null,
                        "capacity",
                        "none with SparseMixer",
                        String.valueOf(capacity));
            }
            case Selection.ProductKeys p ->
                    RouterConfig.require(
                            (long) p.numKeys() * p.numKeys() == numExperts,
                            "numKeys",
                            "its square to be numExperts=" + numExperts,
                            p.numKeys());
            case Selection.OnePerGroup o -> {
                divides(o.numGroups(), numExperts);
                RouterConfig.require(
                        topK == o.numGroups(), "topK", "numGroups=" + o.numGroups(), topK);
                RouterConfig.require(
                        o.scope() != Scope.TOKENS, "scope", "GLOBAL or LOCAL", o.scope());
                RouterConfig.require(
                        o.scope() == Scope.GLOBAL || score == Score.SOFTMAX,
                        "score",
                        "SOFTMAX with scope LOCAL",
                        score);
            }
            case Selection.TopP p -> atMost(p.minExperts(), topK);
            case Selection.EntropyK e -> atMost(e.minExperts(), topK);
            case Selection.TwoLevel t -> {
                twoLevel(t, numExperts, topK);
                twoLevel(score, normalisation, capacity);
            }
            case Selection.ExpertChoice c -> {
                byBatch("ExpertChoice", score, capacity);
                RouterConfig.require(
                        c.scope() != Scope.TOKENS || score == Score.SOFTMAX,
                        "score",
                        "SOFTMAX with scope TOKENS",
                        score);
            }
            case Selection.Sinkhorn s -> byBatch("Sinkhorn", score, capacity);
            case Selection.BalancedAssignment b -> {
                RouterConfig.require(topK == 1, "topK", "1 with BalancedAssignment", topK);
                byBatch("BalancedAssignment", score, capacity);
            }
            case Selection.Hash h ->
                    RouterConfig.require(
                            capacity == null
                                    || capacity.priority() != Capacity.Priority.PROBABILITY,
                            "capacity",
                            "one by position or by weight with Hash, which has no probabilities",
                            String.valueOf(capacity));
        }
    }

    private static void capacity(
            int numExperts, Score score, Selection selection, Capacity capacity) {
        RouterConfig.require(
                capacity.numDevices() == 0 || numExperts % capacity.numDevices() == 0,
                "numDevices",
                "a divisor of numExperts=" + numExperts,
                capacity.numDevices());
        if (!(capacity.overflow() instanceof Capacity.Overflow.NextChoice)) {
            return;
        }
        boolean hasNext =
                switch (selection) {
                    case Selection.TopK t -> true;
                    case Selection.ProductKeys p -> true;
                    case Selection.GroupLimited g -> g.groupScore() != GroupScore.TOP_SHARE_SUM;
                    default -> false;
                };
        RouterConfig.require(
                hasNext,
                "overflow",
                "Drop or Ring, because only TopK, ProductKeys and GroupLimited by MAX or TOP2_SUM"
                        + " have a next choice",
                selection);
        RouterConfig.require(
                score == Score.SOFTMAX || score == Score.SIGMOID,
                "score",
                "SOFTMAX or SIGMOID with NextChoice",
                score);
    }

    private static void byBatch(String selection, Score score, @Nullable Capacity capacity) {
        RouterConfig.require(
                capacity == null, "capacity", "none with " + selection, String.valueOf(capacity));
        RouterConfig.require(
                score == Score.SOFTMAX || score == Score.SIGMOID,
                "score",
                "SOFTMAX or SIGMOID with " + selection,
                score);
    }

    private static void divides(int numGroups, int numExperts) {
        RouterConfig.require(
                numGroups >= 1 && numExperts % numGroups == 0,
                "numGroups",
                "a divisor of numExperts=" + numExperts,
                numGroups);
    }

    private static void atMost(int min, int topK) {
        RouterConfig.require(min >= 1 && min <= topK, "minExperts", "1 to topK=" + topK, min);
    }

    private static void limited(Selection.GroupLimited g, int numExperts, int topK) {
        if (g.numGroups() < 1
                || numExperts % g.numGroups() != 0
                || g.topGroups() < 1
                || g.topGroups() > g.numGroups()
                || (long) numExperts / g.numGroups() * g.topGroups() < topK) {
            throw new IllegalArgumentException(
                    "selection: expected numGroups dividing numExperts="
                            + numExperts
                            + " and topGroups holding at least topK="
                            + topK
                            + " experts, got "
                            + g);
        }
        RouterConfig.require(
                g.groupScore() != GroupScore.TOP_SHARE_SUM || g.topGroups() <= topK,
                "topGroups",
                "at most topK=" + topK + " with TOP_SHARE_SUM",
                g.topGroups());
    }

    private static void twoLevel(Selection.TwoLevel t, int numExperts, int topK) {
        divides(t.numGroups(), numExperts);
        int width = numExperts / t.numGroups();
        RouterConfig.require(
                t.topGroups() >= 1 && t.topGroups() <= t.numGroups(),
                "topGroups",
                "1 to numGroups=" + t.numGroups(),
                t.topGroups());
        RouterConfig.require(
                t.perGroup() >= 1 && t.perGroup() <= width,
                "perGroup",
                "1 to the group's " + width + " experts",
                t.perGroup());
        RouterConfig.require(
                topK == t.topGroups() * t.perGroup(),
                "topK",
                "topGroups * perGroup=" + t.topGroups() * t.perGroup(),
                topK);
    }

    private static void twoLevel(
            Score score, Normalisation normalisation, @Nullable Capacity capacity) {
        RouterConfig.require(score == Score.SOFTMAX, "score", "SOFTMAX with TwoLevel", score);
        boolean plain =
                normalisation instanceof Normalisation.None
                        || (normalisation instanceof Normalisation.Sum sum && sum.epsilon() == 0);
        RouterConfig.require(
                plain, "normalisation", "None or Sum with epsilon 0 with TwoLevel", normalisation);
        RouterConfig.require(
                capacity == null || !capacity.normaliseAfter(),
                "capacity",
                "one that does not normalise with TwoLevel",
                String.valueOf(capacity));
    }
}
