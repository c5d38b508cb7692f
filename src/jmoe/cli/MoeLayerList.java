package jmoe.cli;

import jmoe.checkpoint.MoeLayerInfo;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The MoE layers of a checkpoint; equal neighbours are shown together. */
final class MoeLayerList {
    private MoeLayerList() {}

    static void print(Screen screen, List<MoeLayerInfo> layers) {
        int from = 0;
        while (from < layers.size()) {
            int to = from + 1;
            while (to < layers.size() && same(layers.get(from), layers.get(to), to - from)) {
                to++;
            }
            print(screen, layers.get(from), layers.get(to - 1));
            from = to;
        }
        if (layers.size() > 1) {
            long active = layers.stream().mapToLong(MoeLayerInfo::activeParameters).sum();
            long total = layers.stream().mapToLong(MoeLayerInfo::totalParameters).sum();
            screen.field(
                    "all " + layers.size(),
                    parameters(active, total) + " in the MoE layers together");
        }
    }

    private static boolean same(MoeLayerInfo a, MoeLayerInfo b, int distance) {
        return b.layer() == a.layer() + distance
                && b.config().equals(a.config())
                && b.selectionBias() == a.selectionBias()
                && b.storedType() == a.storedType()
                && b.totalParameters() == a.totalParameters()
                && b.activeParameters() == a.activeParameters();
    }

    private static void print(Screen screen, MoeLayerInfo first, MoeLayerInfo last) {
        boolean one = first.layer() == last.layer();
        screen.field(
                "layer " + first.layer() + (one ? "" : ".." + last.layer()),
                LayerText.sizes(first.config()));
        screen.field("", LayerText.rule(first));
        screen.field(
                "",
                LayerText.activation(first.config().activation())
                        + ", experts stored as "
                        + first.storedType());
        screen.field(
                "",
                parameters(first.activeParameters(), first.totalParameters())
                        + (one ? "" : " in each"));
    }

    private static String parameters(long active, long total) {
        return Units.count(active)
                + " active of "
                + Units.count(total)
                + " parameters ("
                + Units.exact(active)
                + " of "
                + Units.exact(total)
                + ")";
    }

    /** Each layer for programs. */
    static List<Map<String, Object>> json(List<MoeLayerInfo> layers) {
        List<Map<String, Object>> list = new ArrayList<>();
        for (MoeLayerInfo info : layers) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("layer", info.layer());
            json.put("prefix", info.prefix());
            json.putAll(LayerText.json(info));
            json.put("stored_type", info.storedType().name());
            json.put("active_parameters", info.activeParameters());
            json.put("total_parameters", info.totalParameters());
            list.add(json);
        }
        return list;
    }
}
