package jmoe.ops;

/**
 * Experts with consecutive ids and one size. A layer whose experts differ in size is a list of
 * these, in the order of the ids; the same size may come again, so that any expert may have any
 * size: Wang et al. 2024, "HMoE: Heterogeneous Mixture of Experts for Language Modeling". Each
 * class costs products of its own, so the fewest come from ids sorted by size.
 *
 * @param numExperts how many
 * @param intermediate I of each
 */
public record SizeClass(int numExperts, int intermediate) {
    /** Checks that neither is negative. */
    public SizeClass {
        if (numExperts < 0 || intermediate < 0) {
            throw new IllegalArgumentException(
                    "sizeClasses: expected at least 0 experts of at least 0 neurons, got "
                            + numExperts
                            + " experts of "
                            + intermediate);
        }
    }
}
