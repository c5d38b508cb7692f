package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.checkpoint.Json;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Compares what probes got with what they must get, and keeps every difference by probe, lane and
 * register. System properties: {@code jmoe.conformance.report} is a JSON file to write; {@code
 * jmoe.conformance=write} records anew in tests/golden/conformance what the emulator computes where
 * instructions round.
 */
final class ConformanceReport {
    private static final Path RECORDINGS = Path.of("tests/golden/conformance");
    private static final String REPORT_PROPERTY = "jmoe.conformance.report";
    private static final String MODE_PROPERTY = "jmoe.conformance";
    private static final int MAX_LISTED = 256;
    private static final int MAX_SHOWN = 8;

    private static final Map<String, Object> PROBES = new LinkedHashMap<>();

    private ConformanceReport() {}

    /**
     * One value that differs.
     *
     * @param lane thread that wrote it
     * @param register its number among the values of that thread
     * @param expected bits
     * @param got bits
     */
    private record Difference(int lane, int register, long expected, long got) {
        @Override
        public String toString() {
            return String.format(
                    "lane %d, value %d: expected %#x, got %#x", lane, register, expected, got);
        }

        Map<String, Object> json() {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("lane", lane);
            json.put("value", register);
            json.put("expected", Long.toHexString(expected));
            json.put("got", Long.toHexString(got));
            return json;
        }
    }

    /**
     * Compares with what is documented; a difference fails the test.
     *
     * @param probe what ran, and how
     * @param width bytes of a value
     * @param perLane values of each lane
     * @param expected all values, lane by lane
     * @param got likewise
     */
    static void exact(String probe, int width, int perLane, byte[] expected, byte[] got) {
        List<Difference> differences = differences(width, perLane, expected, got);
        add(probe, "documented", got.length / width, differences);
        assertThat(differences.stream().limit(MAX_SHOWN))
                .as("%s: %d values differ", probe, differences.size())
                .isEmpty();
    }

    /**
     * Compares with the recording of the emulator, or records. On a GPU a difference is reported
     * and nothing more, because how these instructions round is not documented: what must hold
     * there is a bound that the caller checks.
     *
     * @param probe what ran; names the recording
     * @param width bytes of a value
     * @param perLane values of each lane
     * @param got all values, lane by lane
     */
    static void recorded(String probe, int width, int perLane, byte[] got) {
        Path file = RECORDINGS.resolve(probe + ".bin");
        boolean emulated = CudaDriver.emulatorName() != null;
        try {
            if (emulated && "write".equals(System.getProperty(MODE_PROPERTY))) {
                Files.createDirectories(RECORDINGS);
                Files.write(file, got);
            }
            assertThat(file).as("a recording, made with -D" + MODE_PROPERTY + "=write").exists();
            List<Difference> differences =
                    differences(width, perLane, Files.readAllBytes(file), got);
            add(probe, "recorded", got.length / width, differences);
            if (emulated) {
                assertThat(differences.stream().limit(MAX_SHOWN))
                        .as("%s: %d values differ", probe, differences.size())
                        .isEmpty();
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static List<Difference> differences(
            int width, int perLane, byte[] expected, byte[] got) {
        assertThat(got).hasSameSizeAs(expected);
        List<Difference> differences = new ArrayList<>();
        for (int i = 0; i < got.length / width; i++) {
            long want = Words.at(expected, width, i);
            long have = Words.at(got, width, i);
            if (want != have) {
                differences.add(new Difference(i / perLane, i % perLane, want, have));
            }
        }
        return differences;
    }

    /** Adds a number that only the device can tell. */
    static synchronized void observe(String probe, String what, Object value) {
        PROBES.put(probe + " " + what, value);
    }

    private static synchronized void add(
            String probe, String against, int values, List<Difference> differences) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("against", against);
        json.put("values", values);
        json.put("different", differences.size());
        json.put(
                "differences",
                differences.stream().limit(MAX_LISTED).map(Difference::json).toList());
        PROBES.put(probe + " " + against, json);
    }

    /** Writes what was found so far, if somebody wants it. */
    static synchronized void write() {
        String file = System.getProperty(REPORT_PROPERTY);
        if (file == null) {
            return;
        }
        try {
            Files.writeString(Path.of(file), Json.text(PROBES) + "\n");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
