package jmoe;

/** What the routed experts of a {@link Preset} are made of, and so which layer runs it. */
public sealed interface ExpertForm {
    /** Two linear maps with the activation between them, H to I to H: {@link MoeLayer}. */
    record TwoMaps() implements ExpertForm {}

    /**
     * One linear map from H to H with the activation behind it: {@link MoeLayer} with I = H and the
     * identity for the second map, which changes nothing.
     */
    record OneMap() implements ExpertForm {}

    /**
     * Two linear maps of which the second has fewer than H outputs: {@link MoeLayer} with zeros for
     * the others, so that columns of the result from {@code outputs} on are 0.
     *
     * @param outputs 1 to H
     */
    record Narrow(int outputs) implements ExpertForm {}

    /**
     * A neuron each, for which several heads ask by product keys: {@link PeerLayer}. The rule of
     * the configuration is that of a head.
     *
     * @param heads that ask, each for K experts
     * @param keyWidth of half a key
     */
    record Neurons(int heads, int keyWidth) implements ExpertForm {}
}
