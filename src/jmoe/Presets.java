package jmoe;

import jmoe.checkpoint.NearestNames;

import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/**
 * MoE layers of published models: {@code Presets.of("deepseek-v3").config()} says what one
 * computes, {@link Preset} what it takes. Layers of other kinds of experts than {@link MoeLayer}
 * has say so in their {@link Preset#form}.
 *
 * <p>Of some, sizes had to be chosen, because the source leaves them free: {@code peer-1m} (hidden
 * 512) and {@code survey4-demo} (512 and 512), which like {@code survey2-demo} are layers without a
 * model around them. Of {@code v-moe-b16} it is the model of the paper with 32 experts and K = 2.
 * Sizes of {@code skywork-moe-146b}, {@code pangu-pro-moe-72b} and {@code moma-1.4b} are recorded
 * or derived; their numbers of parameters are those that the papers state.
 */
public final class Presets {
    /** What is measured if nobody says otherwise. */
    public static final String DEFAULT = "olmoe-1b-7b";

    private static final int MAX_SUGGESTIONS = 3;

    private static final List<Preset> ALL = PresetTable.rows();

    private Presets() {}

    /**
     * Every preset.
     *
     * @return families together, the oldest first
     */
    public static List<Preset> all() {
        return ALL;
    }

    /**
     * Finds a preset.
     *
     * @param name a name or an alias, in upper or lower case
     * @return the preset
     * @throws IllegalArgumentException if there is none of this name; it suggests the nearest ones
     */
    public static Preset of(String name) {
        String wanted = name.toLowerCase(Locale.ROOT);
        List<String> names = new ArrayList<>();
        for (Preset preset : ALL) {
            if (preset.name().equals(wanted) || preset.aliases().contains(wanted)) {
                return preset;
            }
            names.add(preset.name());
            names.addAll(preset.aliases());
        }
        throw new IllegalArgumentException(
                "preset: expected the name of a published layer, got "
                        + name
                        + "; nearest: "
                        + String.join(", ", nearest(wanted, names)));
    }

    /** Names of which a part was typed come first. */
    private static List<String> nearest(String wanted, List<String> names) {
        Set<String> nearest = new LinkedHashSet<>();
        names.stream().filter(name -> name.contains(wanted)).forEach(nearest::add);
        nearest.addAll(NearestNames.of(wanted, names, MAX_SUGGESTIONS));
        return nearest.stream().limit(MAX_SUGGESTIONS).toList();
    }
}
