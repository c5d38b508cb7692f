package jmoe.cli;

import com.sun.management.OperatingSystemMXBean;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** How much memory can still be allocated without pushing others out. */
final class AvailableMemory {
    private static final Path MEMINFO = Path.of("/proc/meminfo");
    private static final Pattern AVAILABLE = Pattern.compile("(?m)^MemAvailable: +(\\d+) kB$");

    /** For the JVM itself and for whatever else wakes up meanwhile. */
    private static final long RESERVE_BYTES = 1_000_000_000;

    private AvailableMemory() {}

    /** Less a reserve; at least 0. */
    static long bytes() {
        return Math.max(0, allBytes() - RESERVE_BYTES);
    }

    private static long allBytes() {
        long free =
                ManagementFactory.getOperatingSystemMXBean() instanceof OperatingSystemMXBean system
                        ? system.getFreeMemorySize()
                        : Long.MAX_VALUE;
        try {
            // Linux counts what files hold in memory as not free, although it is given back.
            Matcher available = AVAILABLE.matcher(Files.readString(MEMINFO));
            return available.find() ? Long.parseLong(available.group(1)) << 10 : free;
        } catch (IOException e) {
            return free;
        }
    }
}
