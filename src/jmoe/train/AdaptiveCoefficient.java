package jmoe.train;

/**
 * A balance loss that counts only as much as tokens are dropped: the coefficient follows {@code
 * min(max, slope dropRate)} as a moving average (Skywork-MoE).
 *
 * @param slope 0.2 there
 * @param max 0.01 there
 * @param decay share of the old coefficient that stays, 0 to 1; 0.99 there
 */
public record AdaptiveCoefficient(double slope, double max, double decay) {
    /** Checks the numbers. */
    public AdaptiveCoefficient {
        if (!(slope >= 0 && max >= 0 && decay >= 0 && decay <= 1)) {
            throw new IllegalArgumentException(
                    "coefficient: expected slope and max of at least 0 and decay within 0 to 1, got"
                            + " slope="
                            + slope
                            + ", max="
                            + max
                            + ", decay="
                            + decay);
        }
    }

    /**
     * As published.
     *
     * @return slope 0.2, max 0.01, decay 0.99
     */
    public static AdaptiveCoefficient ofSkywork() {
        return new AdaptiveCoefficient(0.2, 0.01, 0.99);
    }

    /**
     * The coefficient for the next step.
     *
     * @param coefficient of the step that was
     * @param dropRate of that step, 0 to 1
     * @return the next one
     */
    public double next(double coefficient, double dropRate) {
        if (!(dropRate >= 0 && dropRate <= 1)) {
            throw new IllegalArgumentException("dropRate: expected 0 to 1, got " + dropRate);
        }
        return decay * coefficient + (1 - decay) * Math.min(max, slope * dropRate);
    }
}
