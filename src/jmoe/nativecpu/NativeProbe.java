package jmoe.nativecpu;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;

/**
 * Whether the native backend can run here. The library is loaded once and stays.
 *
 * @param status what was found
 * @param reason what is missing, in words; empty if nothing is
 * @param remedy what to do about it; empty if nothing is missing
 * @param notes higher tiers that are not computed with and why not, one sentence each
 * @param library what computes, or null if something is missing
 */
public record NativeProbe(
        Status status,
        String reason,
        String remedy,
        List<String> notes,
        @Nullable NativeLibrary library) {
    /** What is missing, in the order of asking. */
    public enum Status {
        /** The library is for another system or processor. */
        OTHER_PLATFORM,
        /** jmoe was built without a C compiler. */
        NOT_BUILT,
        /** The library cannot be loaded. */
        NOT_LOADED,
        /** The library is of another version. */
        OTHER_ABI,
        /** The CPU is too old, or a tier was asked for that it does not have. */
        CPU_UNSUPPORTED,
        /** Nothing is missing. */
        OK
    }

    /** System property: path of the library, if not the one in the jar. */
    public static final String LIBRARY_PROPERTY = "jmoe.native.library";

    /** System property: the highest tier to compute with: avx2, avx512 or amx. */
    public static final String TIER_PROPERTY = "jmoe.native.tier";

    /** What the functions must be; raised with every change of theirs. */
    static final int ABI = 3;

    static final String RESOURCE = "jmoe/native/linux-x86_64/libjmoe_cpu.so";

    private static @Nullable NativeProbe loaded;

    /**
     * Looks for the library and asks it what this machine has.
     *
     * @return what was found
     * @throws IllegalArgumentException if {@link #TIER_PROPERTY} names no tier
     */
    public static NativeProbe probe() {
        String limit = System.getProperty(TIER_PROPERTY);
        return loaded().limited(limit == null ? null : Tier.of(limit));
    }

    private static synchronized NativeProbe loaded() {
        if (loaded == null) {
            loaded =
                    load(
                            System.getProperty("os.name"),
                            System.getProperty("os.arch"),
                            System.getProperty(LIBRARY_PROPERTY));
        }
        return loaded;
    }

    /** Loads a library, at the highest tier that this machine has. */
    static NativeProbe load(String os, String arch, @Nullable String path) {
        if (!os.equals("Linux") || !(arch.equals("amd64") || arch.equals("x86_64"))) {
            return failed(
                    Status.OTHER_PLATFORM,
                    "the native CPU kernels are for Linux on x86-64, this is " + os + " on " + arch,
                    "use a machine with Linux and an x86-64 CPU");
        }
        try {
            return path == null
                    ? loadResource(
                            NativeProbe.class.getClassLoader(),
                            RESOURCE,
                            Path.of(System.getProperty("java.io.tmpdir")))
                    : loadFile(Path.of(path), path, "correct -D" + LIBRARY_PROPERTY);
        } catch (InvalidPathException e) {
            return notLoaded("the library " + path, "correct -D" + LIBRARY_PROPERTY);
        } catch (RuntimeException | LinkageError e) {
            return failed(
                    Status.NOT_LOADED,
                    "the library of the native CPU kernels fails: " + e.getMessage(),
                    "build jmoe again");
        }
    }

    /** Loads the library from the jar, by way of a file that nobody else can touch. */
    static NativeProbe loadResource(ClassLoader loader, String resource, Path temporary) {
        try (InputStream content = loader.getResourceAsStream(resource)) {
            if (content == null) {
                return failed(
                        Status.NOT_BUILT,
                        "this build of jmoe has no native CPU kernels: " + resource + " is missing",
                        "install gcc and make and build jmoe again");
            }
            Path folder =
                    Files.createTempDirectory(
                            temporary,
                            "jmoe-native-",
                            PosixFilePermissions.asFileAttribute(
                                    PosixFilePermissions.fromString("rwx------")));
            Path file = folder.resolve("libjmoe_cpu.so");
            try {
                Files.copy(content, file);
                return loadFile(
                        file,
                        "libjmoe_cpu.so, copied to " + temporary + ",",
                        "set -Djava.io.tmpdir to a folder from which programs may run, or build"
                                + " jmoe again");
            } finally {
                Files.deleteIfExists(file);
                Files.delete(folder);
            }
        } catch (IOException e) {
            return failed(
                    Status.NOT_LOADED,
                    "the library cannot be copied to " + temporary + ": " + e,
                    "set -Djava.io.tmpdir to a folder with room for it, or -D"
                            + LIBRARY_PROPERTY
                            + " to the library");
        }
    }

    @SuppressWarnings("restricted")
    private static NativeProbe loadFile(Path file, String name, String remedy) {
        SymbolLookup symbols;
        try {
            symbols = SymbolLookup.libraryLookup(file.toAbsolutePath(), Arena.global());
        } catch (IllegalCallerException e) {
            return failed(
                    Status.NOT_LOADED,
                    "java does not allow native libraries",
                    "start java with --enable-native-access=ALL-UNNAMED");
        } catch (IllegalArgumentException e) {
            return notLoaded("the library " + name, remedy);
        }
        try {
            int abi = NativeLibrary.abi(symbols);
            if (abi != ABI) {
                return failed(
                        Status.OTHER_ABI,
                        "the library " + name + " has ABI " + abi + ", jmoe needs " + ABI,
                        remedy);
            }
            return of(NativeLibrary.of(symbols));
        } catch (IllegalArgumentException e) {
            return failed(Status.OTHER_ABI, "the library " + name + " " + e.getMessage(), remedy);
        }
    }

    private static NativeProbe notLoaded(String library, String remedy) {
        return failed(Status.NOT_LOADED, library + " cannot be loaded", remedy);
    }

    private static NativeProbe of(NativeLibrary library) {
        int features = library.features();
        Tier best = Tier.ofCode(library.bestTier());
        if (best == null) {
            return withoutTier(features);
        }
        List<String> notes = new ArrayList<>();
        for (Tier tier : Tier.values()) {
            if (tier.compareTo(best) > 0) {
                notes.add("no " + tier.text() + ": " + missing(tier, features));
            }
        }
        return new NativeProbe(Status.OK, "", "", List.copyOf(notes), library.at(best));
    }

    /** A CPU that no tier is for. */
    static NativeProbe withoutTier(int features) {
        return failed(
                Status.CPU_UNSUPPORTED,
                missing(Tier.AVX2, features),
                "use a CPU with AVX2, FMA and F16C, which most have had since 2013, and a system"
                        + " that keeps its registers");
    }

    private static String missing(Tier tier, int features) {
        String missing = tier.missing(features);
        return missing == null ? "the library was built without it" : missing;
    }

    /** The same with a tier that is no higher. */
    NativeProbe limited(@Nullable Tier limit) {
        if (limit == null || library == null || limit == library.tier()) {
            return this;
        }
        Tier best = library.tier();
        if (limit.compareTo(best) > 0) {
            return failed(
                    Status.CPU_UNSUPPORTED,
                    "-D"
                            + TIER_PROPERTY
                            + "="
                            + limit.word()
                            + " asks for "
                            + limit.text()
                            + ", which this machine does not have: "
                            + missing(limit, library.features()),
                    "leave the property out or set it to " + words(best));
        }
        List<String> lowered = new ArrayList<>();
        for (Tier tier : Tier.values()) {
            if (tier.compareTo(limit) > 0 && tier.compareTo(best) <= 0) {
                lowered.add(
                        "no "
                                + tier.text()
                                + ": -D"
                                + TIER_PROPERTY
                                + "="
                                + limit.word()
                                + " forbids it");
            }
        }
        lowered.addAll(notes);
        return new NativeProbe(Status.OK, "", "", List.copyOf(lowered), library.at(limit));
    }

    /** The words of all tiers up to one. */
    private static String words(Tier highest) {
        StringBuilder words = new StringBuilder();
        for (Tier tier : Tier.values()) {
            if (tier.compareTo(highest) <= 0) {
                words.append(words.isEmpty() ? "" : tier == highest ? " or " : ", ");
                words.append(tier.word());
            }
        }
        return words.toString();
    }

    private static NativeProbe failed(Status status, String reason, String remedy) {
        return new NativeProbe(status, reason, remedy, List.of(), null);
    }
}
