package jmoe.experiment;

import java.util.List;

/** All experiments. */
public final class Experiments {
    private static final List<Experiment> ALL =
            List.of(
                    new FlatTime(),
                    new ProductKeyTime(),
                    new CapacityDrops(),
                    new DynamicK(),
                    new SchemeTime(),
                    new OverflowPolicies(),
                    new RouterTime(),
                    new ModalityIsolation());

    private Experiments() {}

    /**
     * What can be tried.
     *
     * @return in the order to show them in
     */
    public static List<Experiment> all() {
        return ALL;
    }
}
