package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.List;

/**
 * A bank of experts and the tokens that go to it. The shared expert is a bank of one, to which
 * every token goes: its routing is dense, with row t for token t.
 *
 * @param classes the weights: one bank if all experts have one size, as nearly always, else one for
 *     each run of experts of equal size, in the order of their ids
 * @param routing which expert sees which token; it may have more experts than there are weights
 *     for, whose rows are left out
 * @param inputWeights F32 [tokens, topK] by slot: multiplies an expert's input; null for 1
 * @param outputWeights F32 [tokens, topK] by slot: multiplies an expert's output; null for 1
 */
public record Bank(
        List<ExpertWeights> classes,
        Routing routing,
        @Nullable Tensor inputWeights,
        @Nullable Tensor outputWeights) {
    /** Checks that there are weights, all for inputs of one width. */
    public Bank {
        classes = List.copyOf(classes);
        if (classes.isEmpty()) {
            throw new IllegalArgumentException("classes: expected at least one, got none");
        }
        for (ExpertWeights experts : classes) {
            if (experts.hidden() != classes.getFirst().hidden()) {
                throw new IllegalArgumentException(
                        "classes: expected experts of one hidden="
                                + classes.getFirst().hidden()
                                + ", got "
                                + experts.hidden());
            }
        }
    }

    /**
     * A bank of experts of one size.
     *
     * @param experts the weights
     * @param routing as above
     * @param inputWeights as above
     * @param outputWeights as above
     */
    public Bank(
            ExpertWeights experts,
            Routing routing,
            @Nullable Tensor inputWeights,
            @Nullable Tensor outputWeights) {
        this(List.of(experts), routing, inputWeights, outputWeights);
    }

    /**
     * The weights of a bank whose experts have one size.
     *
     * @return the only one of the classes
     * @throws IllegalStateException if there are several
     */
    public ExpertWeights experts() {
        if (!hasOneSize()) {
            throw new IllegalStateException(
                    "bank: expected experts of one size, got " + classes.size() + " classes");
        }
        return classes.getFirst();
    }

    /**
     * Whether all experts have one size.
     *
     * @return false if there are several classes
     */
    public boolean hasOneSize() {
        return classes.size() == 1;
    }

    /**
     * Experts that have weights.
     *
     * @return E, of all classes
     */
    public int numExperts() {
        int experts = 0;
        for (ExpertWeights ofClass : classes) {
            experts += ofClass.numExperts();
        }
        return experts;
    }

    /**
     * Width of an expert's input and output.
     *
     * @return H
     */
    public long hidden() {
        return classes.getFirst().hidden();
    }

    /**
     * Rows that there can be.
     *
     * @return tokens * topK
     */
    public long slots() {
        return routing.tokens() * routing.topK();
    }
}
