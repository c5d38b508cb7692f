package jmoe.cuda;

import static org.junit.platform.engine.discovery.ClassNameFilter.includeClassNamePatterns;
import static org.junit.platform.engine.discovery.DiscoverySelectors.selectPackage;

import jmoe.checkpoint.Json;

import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.TestExecutionResult.Status;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.Launcher;
import org.junit.platform.launcher.TagFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherConfig;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What gpu-check runs on a machine that has no Maven: {@code probe FILE} says what device there is;
 * {@code tests FILE PATTERN} runs the tests whose class names after {@code jmoe.} match, on that
 * device. Both write a JSON file; the last line of the output sums up.
 */
final class DeviceCheck {
    private static final int FAILED = 1;
    private static final int UNUSABLE = 2;

    /** Tests of layers on every backend, which are not in this package. */
    private static final List<String> LAYER_TESTS =
            List.of("jmoe.CapturedLayerTest", "jmoe.RowTypeTest");

    private DeviceCheck() {}

    /**
     * Runs one of the two.
     *
     * @param args {@code probe FILE} or {@code tests FILE PATTERN}
     * @throws IOException if the file cannot be written
     */
    public static void main(String[] args) throws IOException {
        int status =
                switch (args[0]) {
                    case "probe" -> probe(Path.of(args[1]));
                    case "tests" -> tests(Path.of(args[1]), args[2]);
                    default -> throw new IllegalArgumentException("expected probe or tests");
                };
        System.exit(status);
    }

    private static int probe(Path file) throws IOException {
        CudaProbe probe = CudaProbe.probe();
        CudaDevice device = probe.device();
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("status", probe.status().name());
        json.put("driver_version", probe.driverVersion());
        if (device != null) {
            json.put("name", device.name());
            json.put("compute_capability", device.capabilityText());
            json.put("multiprocessors", device.multiprocessors());
            json.put("memory_bytes", device.memoryBytes());
            json.put("l2_bytes", device.l2Bytes());
            json.put("emulated", device.emulated());
        }
        Files.writeString(file, Json.text(json) + "\n");
        if (device == null || probe.status() != CudaProbe.Status.OK) {
            System.err.println(probe.reason() + "; " + probe.remedy());
            return UNUSABLE;
        }
        System.out.printf(
                "%s%s: compute capability %s, %d multiprocessors, %.1f GB, L2 %.0f MB, driver for"
                        + " CUDA %d.%d%n",
                device.name(),
                device.emulated() ? " (no GPU: emulated on the CPU)" : "",
                device.capabilityText(),
                device.multiprocessors(),
                device.memoryBytes() / 1e9,
                device.l2Bytes() / 1e6,
                probe.driverVersion() / 1000,
                probe.driverVersion() % 1000 / 10);
        return 0;
    }

    private static int tests(Path file, String pattern) throws IOException {
        LauncherDiscoveryRequestBuilder request =
                LauncherDiscoveryRequestBuilder.request()
                        .selectors(selectPackage(DeviceCheck.class.getPackageName()))
                        .selectors(
                                LAYER_TESTS.stream().map(DiscoverySelectors::selectClass).toList())
                        .filters(includeClassNamePatterns("jmoe\\.(" + pattern + ")"));
        if (CudaDriver.emulatorName() != null) {
            // Minutes each, on the CPU.
            request.filters(TagFilter.excludeTags("large"));
        }
        // The results of an earlier run do not matter here.
        LauncherConfig config =
                LauncherConfig.builder().enableTestExecutionListenerAutoRegistration(false).build();
        Launcher launcher = LauncherFactory.create(config);
        Progress progress = new Progress();
        launcher.execute(request.build(), progress);
        Files.writeString(file, Json.text(progress.json()) + "\n");
        System.out.printf(
                "%d tests passed, %d failed, %d skipped%n",
                progress.passed, progress.failures.size(), progress.skipped.size());
        return progress.passed > 0 && progress.failures.isEmpty() ? 0 : FAILED;
    }

    /** Counts, and tells what failed at once: a later test may end the process. */
    private static final class Progress implements TestExecutionListener {
        private final List<Map<String, String>> failures = new ArrayList<>();
        private final List<Map<String, String>> skipped = new ArrayList<>();
        private long passed;

        /** When the last test began; they run one after the other. */
        private long started;

        @Override
        public void executionStarted(TestIdentifier test) {
            started = System.nanoTime();
        }

        @Override
        public void executionSkipped(TestIdentifier test, String reason) {
            skip(test, reason);
        }

        @Override
        public void executionFinished(TestIdentifier test, TestExecutionResult result) {
            Throwable thrown = result.getThrowable().orElse(null);
            if (result.getStatus() == Status.ABORTED) {
                skip(test, thrown == null ? "" : String.valueOf(thrown.getMessage()));
            } else if (result.getStatus() == Status.FAILED) {
                failures.add(entry(test, String.valueOf(thrown)));
                System.out.println("FAILED " + name(test));
                if (thrown != null) {
                    thrown.printStackTrace(System.out);
                }
            } else if (test.isTest()) {
                passed++;
                System.out.printf("passed %s in %d ms%n", name(test), millis());
            }
        }

        private long millis() {
            return (System.nanoTime() - started) / 1_000_000;
        }

        private void skip(TestIdentifier test, String reason) {
            skipped.add(entry(test, reason));
            System.out.println("skipped " + name(test) + ": " + reason);
        }

        private static Map<String, String> entry(TestIdentifier test, String why) {
            Map<String, String> entry = new LinkedHashMap<>();
            entry.put("test", name(test));
            entry.put("why", why);
            return entry;
        }

        private static String name(TestIdentifier test) {
            return test.getUniqueId().replaceFirst("^\\[engine:[^]]*\\]/?", "");
        }

        Map<String, Object> json() {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("passed", passed);
            json.put("failed", failures.size());
            json.put("skipped", skipped.size());
            json.put("failures", failures);
            json.put("skips", skipped);
            return json;
        }
    }
}
