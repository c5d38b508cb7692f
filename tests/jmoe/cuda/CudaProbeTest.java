package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.cuda.CudaProbe.Status;

import org.junit.jupiter.api.Test;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** What users read when something is missing, each in a JVM of its own. */
final class CudaProbeTest {
    /** Writes what was found, and whether JCuda was left alone. */
    static final class Probe {
        private Probe() {}

        public static void main(String[] args) {
            CudaProbe probe = CudaProbe.probe();
            System.out.println(probe.status());
            System.out.println(probe.reason());
            System.out.println(probe.remedy());
            System.out.println(probe.device());
        }
    }

    /** Tries to open a backend. */
    static final class Open {
        private Open() {}

        public static void main(String[] args) {
            try (CudaKernels kernels = new CudaKernels()) {
                System.out.println("opened " + kernels.device());
            } catch (UnsupportedOperationException e) {
                System.out.println(e.getMessage());
            }
        }
    }

    private static List<String> probe(String emulator, String... options) throws Exception {
        List<String> lines = Emulator.run(Probe.class, Map.of("JMOE_EMULATOR", emulator), options);
        assertThat(lines).as("%s", lines).hasSize(4);
        return lines;
    }

    private static List<String> probeEmulator(String emulator, String... options) throws Exception {
        List<String> all = new ArrayList<>(List.of(options));
        all.add(Emulator.NATIVE_ACCESS);
        all.add(Emulator.driver(Emulator.library("fast")));
        return probe(emulator, all.toArray(String[]::new));
    }

    @Test
    void probe_withoutDriver() throws Exception {
        assertThat(probe("", Emulator.NATIVE_ACCESS, Emulator.driver("/no/libcuda.so.1")))
                .containsExactly(
                        "NO_DRIVER",
                        "the driver library /no/libcuda.so.1 cannot be loaded",
                        "correct -Djmoe.cuda.driver",
                        "null");
    }

    @Test
    void probe_withSomethingElseForADriver() throws Exception {
        String other = System.getProperty("java.home") + "/lib/libjava.so";
        assertThat(probe("", Emulator.NATIVE_ACCESS, Emulator.driver(other)).subList(0, 3))
                .containsExactly(
                        "NO_DRIVER",
                        "the driver library " + other + " lacks cuInit",
                        "correct -Djmoe.cuda.driver");
    }

    @Test
    void probe_withoutNativeAccess() throws Exception {
        String library = Emulator.library("fast").toString();
        assertThat(probe("", Emulator.driver(library), "--illegal-native-access=deny"))
                .containsExactly(
                        "NO_DRIVER",
                        "java does not allow native libraries",
                        "start java with --enable-native-access=ALL-UNNAMED",
                        "null");
    }

    @Test
    void probe_withOldDriver() throws Exception {
        assertThat(probeEmulator("driverVersion=12080"))
                .containsExactly(
                        "DRIVER_TOO_OLD",
                        "the NVIDIA driver supports CUDA up to 12.8, jmoe needs 13.0",
                        "install NVIDIA driver 580 or later",
                        "null");
    }

    @Test
    void probe_withoutDevice() throws Exception {
        assertThat(probeEmulator("deviceCount=0"))
                .containsExactly(
                        "NO_DEVICE",
                        "the NVIDIA driver finds no GPU",
                        "make a GPU visible, for example with CUDA_VISIBLE_DEVICES",
                        "null");
    }

    @Test
    void probe_withoutTheDeviceThatWasAskedFor() throws Exception {
        assertThat(probeEmulator("deviceCount=1", "-Djmoe.cuda.device=3"))
                .containsExactly(
                        "NO_DEVICE",
                        "there is no GPU number 3",
                        "set -Djmoe.cuda.device=0",
                        "null");
        assertThat(probeEmulator("deviceCount=2", "-Djmoe.cuda.device=one"))
                .containsExactly(
                        "NO_DEVICE",
                        "there is no GPU number one",
                        "set -Djmoe.cuda.device to 0 up to 1",
                        "null");
    }

    @Test
    void probe_withOldDevice() throws Exception {
        List<String> lines = probeEmulator("capability=75");
        assertThat(lines.get(0)).isEqualTo("DEVICE_UNSUPPORTED");
        assertThat(lines.get(1)).endsWith(" has compute capability 7.5, jmoe needs 8.0");
        assertThat(lines.get(2)).isEqualTo("use a GPU of the Ampere generation or later");
        assertThat(lines.get(3)).contains("capability=75");
    }

    /** The first complaint is the one that has to be dealt with first. */
    @Test
    void probe_withEverythingMissing() throws Exception {
        assertThat(probeEmulator("driverVersion=12080,deviceCount=0,capability=75").getFirst())
                .isEqualTo("DRIVER_TOO_OLD");
        assertThat(probeEmulator("deviceCount=0,capability=75").getFirst()).isEqualTo("NO_DEVICE");
    }

    @Test
    void probe_withNothingMissing() throws Exception {
        List<String> lines = probeEmulator("");
        assertThat(lines.subList(0, 3)).containsExactly("OK", "", "");
        assertThat(lines.get(3)).contains("ordinal=0", "capability=90", "emulated=true");
    }

    /** Only a GPU needs compiled kernels. */
    @Test
    void probe_withoutKernels() {
        CudaDevice gpu = new CudaDevice(0, "NVIDIA H200", 90, 132, 1, 1, 0, 0, false);
        CudaProbe probe = CudaProbe.probeKernels(13000, gpu, "route.fatbin");
        assertThat(probe)
                .isEqualTo(
                        new CudaProbe(
                                Status.KERNELS_NOT_BUILT,
                                "this build of jmoe has no CUDA kernels: route.fatbin is missing",
                                "build jmoe with nvcc of CUDA 13.0 on the PATH",
                                13000,
                                gpu));
        assertThat(CudaProbe.probeKernels(13000, gpu, null).status()).isEqualTo(Status.OK);
        CudaDevice emulated = new CudaDevice(0, "emulator", 90, 132, 1, 1, 0, 0, true);
        assertThat(CudaProbe.probeKernels(13000, emulated, "route.fatbin").status())
                .isEqualTo(Status.OK);
    }

    @Test
    void open_saysWhatTheProbeFound() throws Exception {
        assertThat(
                        Emulator.run(
                                Open.class,
                                Map.of("JMOE_EMULATOR", "driverVersion=12080"),
                                Emulator.NATIVE_ACCESS,
                                Emulator.driver(Emulator.library("fast"))))
                .containsExactly(
                        "CUDA: the NVIDIA driver supports CUDA up to 12.8, jmoe needs 13.0;"
                                + " install NVIDIA driver 580 or later");
    }

    @Test
    void cublas_isPresentOrSaysWhatToDo() {
        CudaProbe.Library cublas = CudaProbe.cublas();
        assertThat(cublas.reason())
                .isEqualTo(cublas.present() ? "" : "libcublas.so.12 cannot be loaded");
        assertThat(cublas.remedy().isEmpty()).isEqualTo(cublas.present());
    }
}
