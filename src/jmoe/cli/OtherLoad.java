package jmoe.cli;

import com.sun.management.OperatingSystemMXBean;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * How much of the processor everything but this process takes while something is measured. A time
 * that was measured beside a busy neighbour says nothing.
 */
final class OtherLoad {
    /** CPU-seconds per second above which a measurement is disturbed. */
    static final double DISTURBING = 0.1;

    private static final Path STAT = Path.of("/proc/stat");
    private static final double TICKS_PER_SECOND = 100;

    private final long startNanos = System.nanoTime();
    private final double startAll = allSeconds();
    private final double startOwn = ownSeconds();

    private OtherLoad() {}

    /** Starts to watch. */
    static OtherLoad watch() {
        return new OtherLoad();
    }

    /** CPU-seconds of others per second since the start; NaN where the system does not tell. */
    double perSecond() {
        double seconds = (System.nanoTime() - startNanos) / 1e9;
        double others = allSeconds() - startAll - (ownSeconds() - startOwn);
        return (others < 0 ? 0 : others) / Math.max(seconds, 1e-9);
    }

    private static double ownSeconds() {
        return ManagementFactory.getOperatingSystemMXBean() instanceof OperatingSystemMXBean system
                ? system.getProcessCpuTime() / 1e9
                : Double.NaN;
    }

    /** What all processes took since the system started, and what its host took from it. */
    private static double allSeconds() {
        if (!Files.isReadable(STAT)) {
            return Double.NaN;
        }
        try {
            // cpu user nice system idle iowait irq softirq steal ...
            String[] fields = Files.readAllLines(STAT).getFirst().trim().split(" +", -1);
            long ticks = 0;
            for (int i : new int[] {1, 2, 3, 6, 7, 8}) {
                ticks += Long.parseLong(fields[i]);
            }
            return ticks / TICKS_PER_SECOND;
        } catch (IOException | RuntimeException e) {
            // Some other system's idea of this file.
            return Double.NaN;
        }
    }
}
