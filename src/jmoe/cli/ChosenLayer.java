package jmoe.cli;

import jmoe.checkpoint.Checkpoint;
import jmoe.checkpoint.MoeLayerInfo;

import org.jspecify.annotations.Nullable;

import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;

/** The layer that {@code --layer} chooses. */
final class ChosenLayer {
    private static final long MAX_LISTED_LAYERS = 20;

    private ChosenLayer() {}

    /**
     * Finds a layer.
     *
     * @param checkpoint its folder
     * @param number of the layer, or null where there is just one
     * @throws IllegalArgumentException if there are several and none is chosen
     * @throws jmoe.checkpoint.CheckpointException if there is no such MoE layer
     */
    static MoeLayerInfo of(Path checkpoint, @Nullable Integer number) {
        try (Checkpoint files = Checkpoint.open(checkpoint)) {
            if (number != null) {
                return files.layer(number);
            }
            List<MoeLayerInfo> layers = files.layers();
            if (layers.size() != 1) {
                throw new IllegalArgumentException(
                        "--layer: "
                                + checkpoint
                                + " has "
                                + Units.plural(layers.size(), "MoE layer", "MoE layers")
                                + "; choose one of "
                                + layers.stream()
                                        .limit(MAX_LISTED_LAYERS)
                                        .map(info -> Integer.toString(info.layer()))
                                        .collect(Collectors.joining(", "))
                                + (layers.size() > MAX_LISTED_LAYERS ? ", ..." : ""));
            }
            return layers.getFirst();
        }
    }
}
