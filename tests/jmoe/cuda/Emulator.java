package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import org.junit.jupiter.api.Assumptions;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * The controls of the driver that stands in for a GPU. A JVM has one driver, so that tests run in
 * one that was started with the emulator's, or start one themselves.
 */
@SuppressWarnings("restricted")
final class Emulator {
    static final int OUT_OF_MEMORY = 2;
    static final int LAUNCH_FAILED = 719;

    /** Work runs when somebody waits for it. */
    static final int LATE = 0;

    /** Work runs at once. */
    static final int EARLY = 1;

    private Emulator() {}

    /** Skips the test unless something runs kernels here. */
    static void requireDevice() {
        CudaProbe probe = CudaProbe.probe();
        Assumptions.assumeTrue(
                probe.status() == CudaProbe.Status.OK, probe.reason() + "; " + probe.remedy());
    }

    /** Skips the test unless this JVM's driver is the emulator. */
    static void require() {
        Assumptions.assumeTrue(
                CudaDriver.emulatorName() != null,
                "no emulator in this JVM; start it with -D"
                        + CudaDriver.LIBRARY_PROPERTY
                        + "=<libcuda.so.1 of the emulator>");
    }

    /** The emulator's libraries; skips the test if there are none. */
    static Path library(String build) {
        Path library =
                Path.of(
                        System.getProperty("jmoe.emulator", "target/native/emulator"),
                        build,
                        "libcuda.so.1");
        Assumptions.assumeTrue(
                Files.exists(library), library + " is missing; build it with make -C native");
        return library.toAbsolutePath();
    }

    /** Changes the machine, for example {@code discardLaunches}. */
    static void set(String key, long value) {
        call("jmoeEmulatorSet", ADDRESS, JAVA_LONG, key, value);
    }

    /** A counter, for example {@code launches}. */
    static long get(String key) {
        MethodHandle function =
                function("jmoeEmulatorGet", FunctionDescriptor.of(JAVA_LONG, ADDRESS));
        try (Arena arena = Arena.ofConfined()) {
            return (long) function.invoke(arena.allocateFrom(key));
        } catch (Throwable e) {
            throw new AssertionError(e);
        }
    }

    /** The countdown-th next call of a driver function fails. */
    static void fail(String driverFunction, int countdown, int result) {
        MethodHandle function =
                function(
                        "jmoeEmulatorFault",
                        FunctionDescriptor.ofVoid(ADDRESS, JAVA_INT, JAVA_INT));
        try (Arena arena = Arena.ofConfined()) {
            function.invoke(arena.allocateFrom(driverFunction), countdown, result);
        } catch (Throwable e) {
            throw new AssertionError(e);
        }
    }

    /** Forgets all faults. */
    static void repair() {
        fail("*clear*", 0, 0);
    }

    /** When queued work runs: {@link #LATE} or {@link #EARLY}. */
    static void setTiming(int timing) {
        MethodHandle function =
                function(
                        "jmoeEmulatorSchedule",
                        FunctionDescriptor.ofVoid(JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_INT));
        try {
            function.invoke(0, 1L, timing, 0);
        } catch (Throwable e) {
            throw new AssertionError(e);
        }
    }

    private static void call(
            String name, MemoryLayout first, MemoryLayout second, String text, long value) {
        MethodHandle function = function(name, FunctionDescriptor.ofVoid(first, second));
        try (Arena arena = Arena.ofConfined()) {
            function.invoke(arena.allocateFrom(text), value);
        } catch (Throwable e) {
            throw new AssertionError(e);
        }
    }

    private static MethodHandle function(String name, FunctionDescriptor descriptor) {
        SymbolLookup library =
                SymbolLookup.libraryLookup(
                        Path.of(System.getProperty(CudaDriver.LIBRARY_PROPERTY)), Arena.global());
        return Linker.nativeLinker().downcallHandle(library.findOrThrow(name), descriptor);
    }

    /** Option of the JVM that allows native libraries. */
    static final String NATIVE_ACCESS = "--enable-native-access=ALL-UNNAMED";

    /** Option of the JVM that chooses the driver library. */
    static String driver(Object library) {
        return "-D" + CudaDriver.LIBRARY_PROPERTY + "=" + library;
    }

    /**
     * Runs a program in a JVM of its own.
     *
     * @param program class with a main method
     * @param environment variables to set
     * @param options of the JVM
     * @return what it wrote, line by line
     */
    static List<String> run(Class<?> program, Map<String, String> environment, String... options)
            throws Exception {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(List.of(options));
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), program.getName()));
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        builder.environment().putAll(environment);
        Process process = builder.start();
        List<String> lines = process.inputReader().readAllLines();
        assertThat(process.waitFor(2, TimeUnit.MINUTES)).as("the JVM ends").isTrue();
        return lines;
    }
}
