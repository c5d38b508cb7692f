package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

class JsonTest {
    @TempDir Path folder;

    @Test
    void parse_readsAFile() throws IOException {
        Path path = Files.writeString(folder.resolve("c.json"), "{\"a\": [1, 2.5, \"ü\"]}\n");

        assertThat(Json.parse(path).get("a").get(1).doubleValue()).isEqualTo(2.5);
        assertThat(Json.parse(path).get("a").get(2).stringValue()).isEqualTo("ü");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            quoteCharacter = '`',
            textBlock =
                    """
                    {"a":1,"a":1}; Duplicate
                    {} {}; not valid JSON
                    {"a":; not valid JSON at line 1, column
                    {"a":NaN}; not valid JSON
                    {"a":; Unexpected end-of-input
                    {"a":[1; damaged or incomplete, fetch it again
                    [1,]; not valid JSON
                    ``; is empty
                    """)
    void parse_rejects(String text, String violation) {
        assertThatThrownBy(() -> Json.parse("c.json", text.getBytes(StandardCharsets.UTF_8)))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith("c.json: ")
                .hasMessageContaining(violation)
                .message()
                .doesNotContain("\n", "Source", "start marker");
    }

    @Test
    void parse_rejectsDepthAndEncodings() {
        byte[] deep = ("[".repeat(200) + "]".repeat(200)).getBytes(StandardCharsets.UTF_8);
        assertThatThrownBy(() -> Json.parse("deep", deep))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("depth");
        assertThatThrownBy(
                        () -> Json.parse("utf8", new byte[] {'"', (byte) 0xc0, (byte) 0x80, '"'}))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("utf8: is not valid UTF-8");
        assertThatThrownBy(() -> Json.parse("utf16", "{}".getBytes(StandardCharsets.UTF_16LE)))
                .isInstanceOf(CheckpointException.class);
    }

    @Test
    void parse_rejectsWhatIsNoFile() {
        assertThatThrownBy(() -> Json.parse(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder + ": is a directory; name a file in it");
        assertThatThrownBy(() -> Json.parse(folder.resolve("none.json")))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("no such file");
    }

    @Test
    void text_isIndentedAndValid() {
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("name", "a\"b\n");
        map.put("numbers", Arrays.asList(1, 2L, 0.5, 0.1f, Double.NaN, Float.NEGATIVE_INFINITY));
        map.put("flag", true);
        map.put("none", null);
        map.put("empty", List.of());

        assertThat(Json.text(map))
                .isEqualTo(
                        """
                        {
                          "name": "a\\"b\\n",
                          "numbers": [
                            1,
                            2,
                            0.5,
                            0.1,
                            null,
                            null
                          ],
                          "flag": true,
                          "none": null,
                          "empty": []
                        }\
                        """);
    }

    @Test
    void text_rejectsOtherTypes() {
        assertThatThrownBy(() -> Json.text(List.of(new Object())))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("java.lang.Object");
    }
}
