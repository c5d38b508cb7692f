package jmoe.nativecpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.nativecpu.NativeProbe.Status;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** What is said where the library, or something in this machine, is missing. */
class NativeProbeTest {
    private static final String OS = System.getProperty("os.name");
    private static final String ARCH = System.getProperty("os.arch");

    /** All functions, of a machine that is described by two numbers. */
    private static final String STUBS =
            """
            #define STUB(name) long jmoe_cpu_##name(void) { return 0; }
            int jmoe_cpu_abi(void) { return ABI; }
            int jmoe_cpu_features(void) { return FEATURES; }
            int jmoe_cpu_best_tier(void) { return BEST; }
            STUB(blocks) STUB(block_bytes) STUB(prefer_large_pages) STUB(pack) STUB(item_rows)
            STUB(tile_rows) STUB(item_blocks) STUB(scratch_bytes) STUB(multiply)
            STUB(multiply_adds)
            """;

    private static final int HAS_ALL = 1 | 2 | 4 | 8 | 16 | 32;

    @TempDir private Path folder;

    /** Compiles a library; skips the test where nothing can. */
    private String compile(String source, String... flags) throws Exception {
        Path file = folder.resolve("stub.c");
        Files.writeString(file, source);
        Path library = Files.createTempFile(folder, "lib", ".so");
        List<String> command =
                Stream.concat(
                                Stream.of("gcc", "-shared", "-fPIC"),
                                Stream.concat(
                                        Stream.of(flags),
                                        Stream.of("-o", library.toString(), file.toString())))
                        .toList();
        try {
            Process process = new ProcessBuilder(command).inheritIO().start();
            assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
            assertThat(process.exitValue()).isZero();
        } catch (IOException e) {
            Assumptions.abort("there is no gcc: " + e.getMessage());
        }
        return library.toString();
    }

    private NativeProbe machine(int features, int best) throws Exception {
        assumePlatform();
        String path =
                compile(
                        STUBS,
                        "-DABI=" + NativeProbe.ABI,
                        "-DFEATURES=" + features,
                        "-DBEST=" + best);
        return NativeProbe.load(OS, ARCH, path);
    }

    private static void assumePlatform() {
        NativeProbe none = NativeProbe.load(OS, ARCH, "/nowhere");
        Assumptions.assumeTrue(none.status() != Status.OTHER_PLATFORM, none.reason());
    }

    private static void assertFailed(
            NativeProbe probe, Status status, String reason, String remedy) {
        assertThat(probe).isEqualTo(new NativeProbe(status, reason, remedy, List.of(), null));
    }

    @ParameterizedTest
    @CsvSource({"Mac OS X, x86_64", "Windows 11, amd64", "Linux, aarch64"})
    void load_elsewhereNamesThePlatform(String os, String arch) {
        assertFailed(
                NativeProbe.load(os, arch, null),
                Status.OTHER_PLATFORM,
                "the native CPU kernels are for Linux on x86-64, this is " + os + " on " + arch,
                "use a machine with Linux and an x86-64 CPU");
    }

    @Test
    void load_withoutTheLibraryInTheJarSaysHowToBuildIt() {
        assertFailed(
                NativeProbe.loadResource(
                        NativeProbe.class.getClassLoader(), "jmoe/native/none.so", folder),
                Status.NOT_BUILT,
                "this build of jmoe has no native CPU kernels: jmoe/native/none.so is missing",
                "install gcc and make and build jmoe again");
    }

    @Test
    void load_ofSomethingElseSaysSo() throws IOException {
        assumePlatform();
        Path garbage = Files.writeString(folder.resolve("garbage.so"), "not a library");
        for (String path : List.of(garbage.toString(), "/nowhere/lib.so", folder.toString())) {
            assertFailed(
                    NativeProbe.load(OS, ARCH, path),
                    Status.NOT_LOADED,
                    "the library " + path + " cannot be loaded",
                    "correct -Djmoe.native.library");
        }
        assertThat(NativeProbe.load(OS, ARCH, "\0").status()).isEqualTo(Status.NOT_LOADED);
    }

    /** The only thing in a folder that nobody else can enter, and gone afterwards. */
    @Test
    void load_copiesTheLibraryWhereNobodyElseCanTouchIt() throws IOException {
        assumePlatform();
        byte[] garbage = "not a library".getBytes(StandardCharsets.UTF_8);
        ClassLoader loader =
                new ClassLoader(null) {
                    @Override
                    public InputStream getResourceAsStream(String name) {
                        return new ByteArrayInputStream(garbage) {
                            @Override
                            public void close() throws IOException {
                                assertThat(left(folder)).isEmpty();
                            }

                            @Override
                            public synchronized int read(byte[] to, int from, int count) {
                                assertPrivate();
                                return super.read(to, from, count);
                            }

                            @Override
                            public long transferTo(java.io.OutputStream out) throws IOException {
                                assertPrivate();
                                return super.transferTo(out);
                            }
                        };
                    }
                };
        assertFailed(
                NativeProbe.loadResource(loader, "any", folder),
                Status.NOT_LOADED,
                "the library libjmoe_cpu.so, copied to " + folder + ", cannot be loaded",
                "set -Djava.io.tmpdir to a folder from which programs may run, or build jmoe"
                        + " again");
        assertThat(left(folder)).isEmpty();
    }

    private void assertPrivate() {
        try {
            List<Path> folders = left(folder);
            assertThat(folders).hasSize(1);
            assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(folders.get(0))))
                    .isEqualTo("rwx------");
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static List<Path> left(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.toList();
        }
    }

    @Test
    void load_withoutRoomForTheCopySaysWhere() {
        assumePlatform();
        BuiltLibrary.REAL.path();
        Path missing = folder.resolve("missing");
        NativeProbe probe =
                NativeProbe.loadResource(
                        NativeProbe.class.getClassLoader(), NativeProbe.RESOURCE, missing);
        assertThat(probe.status()).isEqualTo(Status.NOT_LOADED);
        assertThat(probe.reason()).startsWith("the library cannot be copied to " + missing + ": ");
        assertThat(probe.remedy())
                .isEqualTo(
                        "set -Djava.io.tmpdir to a folder with room for it, or"
                                + " -Djmoe.native.library to the library");
    }

    @Test
    void load_ofAnotherAbiNamesBoth() throws Exception {
        assumePlatform();
        String later = compile(STUBS, "-DABI=1001", "-DFEATURES=1", "-DBEST=1");
        assertFailed(
                NativeProbe.load(OS, ARCH, later),
                Status.OTHER_ABI,
                "the library " + later + " has ABI 1001, jmoe needs " + NativeProbe.ABI,
                "correct -Djmoe.native.library");
        String other = compile("int other(void) { return 1; }");
        assertFailed(
                NativeProbe.load(OS, ARCH, other),
                Status.OTHER_ABI,
                "the library " + other + " lacks the function jmoe_cpu_abi",
                "correct -Djmoe.native.library");
        String part = compile("int jmoe_cpu_abi(void) { return " + NativeProbe.ABI + "; }");
        assertFailed(
                NativeProbe.load(OS, ARCH, part),
                Status.OTHER_ABI,
                "the library " + part + " lacks the function jmoe_cpu_features",
                "correct -Djmoe.native.library");
    }

    @Test
    void load_onAnOldCpuNamesWhatItLacks() throws Exception {
        assertFailed(
                machine(0, 0),
                Status.CPU_UNSUPPORTED,
                "the CPU has no AVX2 with FMA and F16C",
                "use a CPU with AVX2, FMA and F16C, which most have had since 2013, and a system"
                        + " that keeps its registers");
    }

    @Test
    void load_notesWhyThereIsNoHigherTier() throws Exception {
        assertThat(machine(1, 1).notes())
                .containsExactly(
                        "no AVX-512: the CPU has no AVX-512 with BW, DQ, VL and VNNI",
                        "no AMX: the CPU has no AMX with BF16 and INT8");
        assertThat(machine(1 | 2 | 8 | 16 | 32, 1).notes())
                .containsExactly(
                        "no AVX-512: the system does not keep the registers of AVX-512",
                        "no AMX: the system does not keep the registers of AVX-512");
        assertThat(machine(1 | 2 | 4 | 8, 2).notes())
                .containsExactly("no AMX: the system does not keep tiles");
        assertThat(machine(HAS_ALL & ~32, 2).notes())
                .containsExactly("no AMX: the system does not permit tiles");
        assertThat(machine(HAS_ALL, 2).notes())
                .containsExactly("no AMX: the library was built without it");
        assertThat(machine(HAS_ALL, 3).notes()).isEmpty();
    }

    @Test
    void limited_lowersTheTierAndSaysSo() throws Exception {
        NativeProbe amx = machine(HAS_ALL, 3);
        NativeProbe avx2 = amx.limited(Tier.AVX2);
        assertThat(avx2.status()).isEqualTo(Status.OK);
        assertThat(avx2.library()).isNotNull();
        assertThat(avx2.library().tier()).isEqualTo(Tier.AVX2);
        assertThat(avx2.notes())
                .containsExactly(
                        "no AVX-512: -Djmoe.native.tier=avx2 forbids it",
                        "no AMX: -Djmoe.native.tier=avx2 forbids it");
        assertThat(amx.limited(Tier.AMX)).isSameAs(amx);
        assertThat(amx.limited(null)).isSameAs(amx);
        assertThat(machine(1 | 2 | 4, 2).limited(Tier.AVX2).notes())
                .containsExactly(
                        "no AVX-512: -Djmoe.native.tier=avx2 forbids it",
                        "no AMX: the CPU has no AMX with BF16 and INT8");
    }

    @Test
    void limited_neverRaisesTheTier() throws Exception {
        assertFailed(
                machine(HAS_ALL & ~32, 2).limited(Tier.AMX),
                Status.CPU_UNSUPPORTED,
                "-Djmoe.native.tier=amx asks for AMX, which this machine does not have: the system"
                        + " does not permit tiles",
                "leave the property out or set it to avx2 or avx512");
        assertFailed(
                machine(1, 1).limited(Tier.AVX512),
                Status.CPU_UNSUPPORTED,
                "-Djmoe.native.tier=avx512 asks for AVX-512, which this machine does not have: the"
                        + " CPU has no AVX-512 with BW, DQ, VL and VNNI",
                "leave the property out or set it to avx2");
        NativeProbe old = machine(0, 0);
        assertThat(old.limited(Tier.AVX2)).isSameAs(old);
    }

    @Test
    void tier_isOneOfThreeWords() {
        for (Tier tier : Tier.values()) {
            assertThat(Tier.of(tier.word())).isEqualTo(tier);
        }
        assertThatThrownBy(() -> Tier.of("AVX2"))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("jmoe.native.tier: expected avx2, avx512 or amx, got AVX2");
    }

    /** The library's own answer and the features that explain it agree. */
    @Test
    void probe_takesTheHighestTierThatNothingIsMissingFor() {
        for (BuiltLibrary built : BuiltLibrary.values()) {
            NativeLibrary library = built.open();
            int features = library.features();
            for (Tier tier : Tier.values()) {
                boolean has = tier.compareTo(library.tier()) <= 0;
                assertThat(tier.missing(features) == null).as("%s %s", built, tier).isEqualTo(has);
            }
        }
        assertThat(BuiltLibrary.EMULATED.open().tier()).isEqualTo(Tier.AMX);
        assertThat(BuiltLibrary.EMULATED.probe().notes()).isEmpty();
    }

    /** The build puts the library where it is looked for. */
    @Test
    void probe_findsTheLibraryOfThisBuild() {
        NativeLibrary real = BuiltLibrary.REAL.open();
        NativeProbe probe = NativeProbe.probe();
        assertThat(probe.status()).as(probe.reason()).isEqualTo(Status.OK);
        assertThat(probe.library()).isNotNull();
        assertThat(probe.library().tier()).isEqualTo(real.tier());
    }
}
