package jmoe.cuda;

import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

import java.nio.file.Path;

/** The tables of tests/golden/tensorcore, which come from elsewhere. */
final class Table {
    private static final Path FOLDER = Path.of("tests/golden/tensorcore");

    private Table() {}

    static JsonNode of(String file) {
        return new JsonMapper().readTree(FOLDER.resolve(file + ".json").toFile());
    }

    static int[] ints(JsonNode array) {
        int[] ints = new int[array.size()];
        for (int i = 0; i < ints.length; i++) {
            ints[i] = array.get(i).asInt();
        }
        return ints;
    }
}
