package jmoe.nativecpu;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Assumptions;

import java.nio.file.Files;
import java.nio.file.Path;

/** The libraries that the build makes where there is a C compiler. */
enum BuiltLibrary {
    /** The one in the jar. */
    REAL("target/native/cpu/libjmoe_cpu.so"),
    /** Every tier on every machine with AVX2. */
    EMULATED("target/native/cpu/emulated/libjmoe_cpu.so");

    private final Path path;

    BuiltLibrary(String path) {
        this.path = Path.of(path).toAbsolutePath();
    }

    /** Its path; skips the test if it was not built. */
    String path() {
        Assumptions.assumeTrue(
                Files.exists(path), "no C compiler built " + path + "; install gcc and make");
        return path.toString();
    }

    /** What it says of this machine; skips the test if that is nothing. */
    NativeProbe probe() {
        NativeProbe probe =
                NativeProbe.load(
                        System.getProperty("os.name"), System.getProperty("os.arch"), path());
        Assumptions.assumeTrue(
                probe.status() != NativeProbe.Status.CPU_UNSUPPORTED, probe.reason());
        return probe;
    }

    /** Its functions at the highest tier of this machine. */
    NativeLibrary open() {
        NativeLibrary library = probe().library();
        assertThat(library).isNotNull();
        return library;
    }

    /** Its functions at a tier, which the emulated library always has. */
    NativeLibrary open(Tier tier) {
        NativeLibrary library = open();
        Assumptions.assumeTrue(
                tier.compareTo(library.tier()) <= 0, "this machine has no " + tier.text());
        return library.at(tier);
    }
}
