package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Path;

/** Runs commands in this process. */
final class Commands {
    /** The golden checkpoints of the project. */
    static final Path GOLDEN = Path.of("tests/golden");

    private static final JsonMapper JSON = new JsonMapper();

    private Commands() {}

    /**
     * What a command did.
     *
     * @param status exit status
     * @param out what it wrote to standard output
     * @param err what it wrote to standard error
     */
    record Outcome(int status, String out, String err) {
        /** Standard output as the one JSON object that it must be. */
        JsonNode json() {
            assertThat(err).isEmpty();
            return JSON.readTree(out);
        }

        /** Asserts success. */
        Outcome succeeded() {
            assertThat(err).isEmpty();
            assertThat(status).isZero();
            return this;
        }

        /** Asserts exit status 2, and a single line that contains the given texts. */
        Outcome refused(String... texts) {
            assertThat(status).as(err).isEqualTo(2);
            assertThat(err.lines()).hasSize(1);
            assertThat(err).startsWith("jmoe: ").endsWith(System.lineSeparator()).contains(texts);
            return this;
        }
    }

    static Outcome jmoe(Object... args) {
        String[] words = new String[args.length];
        for (int i = 0; i < words.length; i++) {
            words[i] = args[i].toString();
        }
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        Screen screen = Screen.plain(new PrintWriter(out), new PrintWriter(err));
        // Nobody reads the times: no warm-up.
        int status = Main.run(words, screen, 0);
        return new Outcome(status, out.toString(), err.toString());
    }

    /** One tensor of a golden checkpoint's cases, as the command line names it. */
    static String golden(String checkpoint, String tensor) {
        return GOLDEN.resolve(checkpoint).resolve("cases.safetensors") + ":" + tensor;
    }
}
