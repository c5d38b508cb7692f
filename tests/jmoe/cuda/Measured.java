package jmoe.cuda;

import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/**
 * What a kernel of native/measure found, next to what was expected before anything was measured.
 *
 * @param name what was measured
 * @param value the result
 * @param unit of the result
 * @param predicted the same by the model in bench/RESULTS.md
 * @param otherwise what it is if the model's open question has the other answer, and the question;
 *     empty if it has none
 * @param megahertz clock of the multiprocessors meanwhile
 */
record Measured(
        String name,
        double value,
        String unit,
        double predicted,
        String otherwise,
        double megahertz) {
    static String heading() {
        return String.format(
                "  %-64s %9s %9s  %-20s %5s  %s",
                "one multiprocessor", "measured", "predicted", "", "MHz", "or else predicted");
    }

    String text() {
        return String.format(
                Locale.ROOT,
                "  %-64s %9.1f %9.1f  %-20s %5.0f  %s",
                name,
                value,
                predicted,
                unit,
                megahertz,
                otherwise);
    }

    Map<String, Object> json() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", name);
        json.put("value", value);
        json.put("unit", unit);
        json.put("predicted", predicted);
        json.put("or_else_predicted", otherwise);
        json.put("megahertz", megahertz);
        return json;
    }
}
