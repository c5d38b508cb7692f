package jmoe.cli;

import com.sun.management.OperatingSystemMXBean;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The JDK, the processor and the memory under the command. */
final class Machine {
    private static final Path CPUINFO = Path.of("/proc/cpuinfo");
    private static final String UNKNOWN = "unknown";

    /** What CPU kernels can make use of; a prefix stands for all features that begin with it. */
    private static final List<String> FEATURES =
            List.of(
                    "avx",
                    "avx2",
                    "fma",
                    "f16c",
                    "avx512",
                    "avx_vnni",
                    "amx",
                    "asimd",
                    "asimdhp",
                    "asimddp",
                    "bf16",
                    "i8mm",
                    "sve",
                    "sve2",
                    "sme",
                    "sme2");

    private static final List<String> PREFIXES = List.of("avx512", "amx");

    private Machine() {}

    static void print(Screen screen) {
        screen.field("java", java());
        screen.field("jvm", System.getProperty("java.vm.name"));
        screen.field("system", system());
        screen.field("cpu", cpu());
        screen.field("features", features().isEmpty() ? UNKNOWN : String.join(" ", features()));
        screen.field("cores", Integer.toString(Runtime.getRuntime().availableProcessors()));
        screen.field(
                "memory",
                Units.bytes(memoryBytes())
                        + " (Java heap up to "
                        + Units.bytes(Runtime.getRuntime().maxMemory())
                        + "; weights lie outside of it)");
    }

    static Map<String, Object> json() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("java", Runtime.version().toString());
        json.put("java_vendor", System.getProperty("java.vendor"));
        json.put("java_home", System.getProperty("java.home"));
        json.put("jvm", System.getProperty("java.vm.name"));
        json.put("os", System.getProperty("os.name"));
        json.put("os_version", System.getProperty("os.version"));
        json.put("arch", System.getProperty("os.arch"));
        json.put("cpu", cpu());
        json.put("cpu_features", features());
        json.put("cores", Runtime.getRuntime().availableProcessors());
        json.put("memory_bytes", memoryBytes());
        json.put("max_heap_bytes", Runtime.getRuntime().maxMemory());
        return json;
    }

    private static String java() {
        return Runtime.version()
                + " ("
                + System.getProperty("java.vendor")
                + ", "
                + System.getProperty("java.home")
                + ")";
    }

    private static String system() {
        return System.getProperty("os.name")
                + " "
                + System.getProperty("os.version")
                + ", "
                + System.getProperty("os.arch");
    }

    private static long memoryBytes() {
        return ManagementFactory.getOperatingSystemMXBean() instanceof OperatingSystemMXBean system
                ? system.getTotalMemorySize()
                : 0;
    }

    private static String cpu() {
        String name = cpuinfo("model name");
        return name.isEmpty() ? UNKNOWN : name;
    }

    private static List<String> features() {
        String flags = cpuinfo("flags");
        String[] all = (flags.isEmpty() ? cpuinfo("Features") : flags).split(" ");
        List<String> relevant = new ArrayList<>();
        for (String feature : FEATURES) {
            Arrays.stream(all)
                    .filter(flag -> matches(flag, feature))
                    .sorted()
                    .forEach(relevant::add);
        }
        return relevant;
    }

    private static boolean matches(String flag, String feature) {
        String lower = flag.toLowerCase(Locale.ROOT);
        return PREFIXES.contains(feature) ? lower.startsWith(feature) : lower.equals(feature);
    }

    /** The first value of a key in Linux's description of the processor; empty elsewhere. */
    private static String cpuinfo(String key) {
        if (!Files.isReadable(CPUINFO)) {
            return "";
        }
        try {
            for (String line : Files.readAllLines(CPUINFO)) {
                int colon = line.indexOf(':');
                if (colon > 0 && line.substring(0, colon).strip().equals(key)) {
                    return line.substring(colon + 1).strip();
                }
            }
        } catch (IOException e) {
            // Only decoration depends on it.
            return "";
        }
        return "";
    }
}
