package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * In which order the emulator runs the threads of a block, and when asynchronous work happens.
 *
 * @param policy 0 in order, 1 in reverse, 2 random, 3 newest first, 4 mostly newest first
 * @param seed of everything random
 * @param async when copies and queued work happen: 0 late, 1 early, 2 at random times
 * @param preempt a thread also stops at one in so many memory accesses; 0 for never
 */
record Schedule(int policy, long seed, int async, int preempt) {
    /**
     * Schedules that differ as much as possible.
     *
     * @param count how many
     * @param lastSeed of the last one, so that every run tries something new
     * @return every pair of policy and async first, then random ones
     */
    static List<Schedule> differing(int count, long lastSeed) {
        List<Schedule> schedules = new ArrayList<>();
        for (int i = 0; i < count - 1; i++) {
            schedules.add(new Schedule(i % 5, i + 1, i / 5 % 3, i % 4 == 3 ? 50 : 0));
        }
        schedules.add(new Schedule(2, lastSeed, 2, 50));
        return schedules;
    }

    /**
     * Reads what {@link #toString} writes.
     *
     * @param text the four numbers, separated by colons
     * @return the schedule
     */
    static Schedule of(String text) {
        String[] parts = text.split(":");
        return new Schedule(
                Integer.parseInt(parts[0]),
                Long.parseLong(parts[1]),
                Integer.parseInt(parts[2]),
                Integer.parseInt(parts[3]));
    }

    /** Makes the emulated driver of this process follow the schedule. */
    @SuppressWarnings("restricted")
    void set() {
        String driver = System.getProperty("jmoe.cuda.driver");
        MethodHandle handle =
                Linker.nativeLinker()
                        .downcallHandle(
                                SymbolLookup.libraryLookup(Path.of(driver), Arena.global())
                                        .findOrThrow("jmoeEmulatorSchedule"),
                                FunctionDescriptor.ofVoid(JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_INT));
        try {
            handle.invokeExact(policy, seed, async, preempt);
        } catch (Throwable e) {
            throw new IllegalStateException("jmoeEmulatorSchedule", e);
        }
    }

    @Override
    public String toString() {
        return policy + ":" + seed + ":" + async + ":" + preempt;
    }
}
