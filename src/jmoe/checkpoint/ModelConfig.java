package jmoe.checkpoint;

import jmoe.checkpoint.ExpertNames.Family;

import org.jspecify.annotations.Nullable;

import tools.jackson.databind.JsonNode;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * config.json of a model, or the part of it that describes the language model. Every value is
 * checked; a null counts as missing, as transformers writes it for what a model lacks.
 */
final class ModelConfig {
    /** Where multimodal models keep the language model's part. */
    private static final List<String> SECTIONS =
            List.of("thinker_config.text_config", "text_config", "language_config", "llm_config");

    private final Path file;
    private final JsonNode section;
    private final String sectionName;
    private final Family family;

    private ModelConfig(Path file, JsonNode section, String sectionName, Family family) {
        this.file = file;
        this.section = section;
        this.sectionName = sectionName;
        this.family = family;
    }

    /**
     * Reads a file and finds out the family.
     *
     * @throws CheckpointException if it is missing or damaged, or the family is not in the table
     */
    static ModelConfig read(Path file) {
        JsonNode root = Json.parsePython(file);
        if (!root.isObject()) {
            throw new CheckpointException(file + ": expected a JSON object, got " + describe(root));
        }
        List<String> found = new ArrayList<>();
        for (String name : SECTIONS) {
            JsonNode section = section(root, name);
            Family family = section == null ? null : family(section, found);
            if (section != null && family != null) {
                return new ModelConfig(file, section, name + ".", family);
            }
        }
        Family family = family(root, found);
        if (family == null) {
            throw new CheckpointException(
                    file
                            + ": "
                            + (found.isEmpty()
                                    ? "model_type is missing"
                                    : "model_type " + String.join(", ", found) + " is unknown")
                            + "; supported: "
                            + String.join(", ", ExpertNames.families()));
        }
        JsonNode text = section(root, "text_config");
        return text == null
                ? new ModelConfig(file, root, "", family)
                : new ModelConfig(file, text, "text_config.", family);
    }

    private static @Nullable JsonNode section(JsonNode root, String path) {
        JsonNode node = root;
        for (String name : path.split("\\.", -1)) {
            node = node.get(name);
            if (node == null || !node.isObject()) {
                return null;
            }
        }
        return node;
    }

    private static @Nullable Family family(JsonNode section, List<String> found) {
        JsonNode type = section.get("model_type");
        if (type == null || !type.isString()) {
            return null;
        }
        found.add(CheckpointException.quoted(type.stringValue()));
        return ExpertNames.find(type.stringValue());
    }

    Family family() {
        return family;
    }

    /** The checkpoint's folder. */
    Path folder() {
        Path parent = file.getParent();
        return parent == null ? Path.of("") : parent;
    }

    /** A nested object. */
    ModelConfig child(String key) {
        JsonNode node = find(key);
        if (node == null || !node.isObject()) {
            throw wrong("an object", node, key);
        }
        return new ModelConfig(file, node, sectionName + key + ".", family);
    }

    /** Whether a key has a value other than null. */
    boolean has(String key) {
        return find(key) != null;
    }

    /** Whether a key is there, null or not. */
    boolean mentions(String key) {
        return section.has(key);
    }

    /** A positive integer under the first of several spellings that is there. */
    int positive(String... keys) {
        return integer(1, find(keys), keys);
    }

    /** A positive integer, or the entry for a layer or token type of a list of such. */
    int positiveAt(int index, String... keys) {
        JsonNode value = find(keys);
        if (value != null && value.isArray()) {
            JsonNode entry = value.get(index);
            if (entry == null) {
                throw wrong("an entry [" + index + "] in the list", value, keys);
            }
            return integer(1, entry, keys);
        }
        return integer(1, value, keys);
    }

    /** An integer that is not negative, or, in a list, the entry for a layer. */
    int countAt(int index, int missing, String... keys) {
        JsonNode value = find(keys);
        if (value == null) {
            return missing;
        }
        return value.isArray() && value.get(index) != null
                ? integer(0, value.get(index), keys)
                : integer(0, value, keys);
    }

    private int integer(int min, @Nullable JsonNode value, String... keys) {
        if (value == null
                || !value.isIntegralNumber()
                || !value.canConvertToInt()
                || value.intValue() < min) {
            throw wrong(min > 0 ? "a positive integer" : "an integer from 0", value, keys);
        }
        return value.intValue();
    }

    /** A finite number from {@code min}. */
    double number(double min, double missing, String key) {
        JsonNode value = find(key);
        if (value == null) {
            return missing;
        }
        if (!value.isNumber()
                || !Double.isFinite(value.doubleValue())
                || value.doubleValue() < min) {
            throw wrong("a number from " + min, value, key);
        }
        return value.doubleValue();
    }

    boolean flag(String key, boolean missing) {
        JsonNode value = find(key);
        if (value == null) {
            return missing;
        }
        if (!value.isBoolean()) {
            throw wrong("true or false", value, key);
        }
        return value.booleanValue();
    }

    /** One of several words. */
    String word(List<String> allowed, String missing, String... keys) {
        JsonNode value = find(keys);
        if (value == null) {
            return missing;
        }
        if (!value.isString() || !allowed.contains(value.stringValue())) {
            throw wrong(String.join(" or ", allowed), value, keys);
        }
        return value.stringValue();
    }

    private @Nullable JsonNode find(String... keys) {
        for (String key : keys) {
            JsonNode value = section.get(key);
            if (value != null && !value.isNull()) {
                return value;
            }
        }
        return null;
    }

    private CheckpointException wrong(String expected, @Nullable JsonNode found, String... keys) {
        return new CheckpointException(
                file
                        + ": "
                        + names(keys)
                        + ": expected "
                        + expected
                        + ", got "
                        + (found == null ? "nothing" : describe(found)));
    }

    /** Values that do not fit together. */
    CheckpointException conflict(String message) {
        return new CheckpointException(file + ": " + message);
    }

    /** For messages: the spelling that is read, or all of them if none is there. */
    String names(String... keys) {
        for (String key : keys) {
            if (has(key)) {
                return sectionName + key;
            }
        }
        return sectionName + String.join(" or " + sectionName, keys);
    }

    private static String describe(JsonNode value) {
        return CheckpointException.oneLine(value.toString());
    }
}
