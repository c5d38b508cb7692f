package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.checkpoint.LoadProgress;
import jmoe.checkpoint.Safetensors;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.Tolerance;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;

/**
 * The layer all in 16 bits: weights, input, rows between the operations, output. What is right is
 * the reference on the same weights and input, with everything between in F32.
 */
final class RowTypeTest {
    private static final Path GOLDEN = Path.of("tests/golden");

    static List<Arguments> variantsAndBackends() throws IOException {
        List<Arguments> all = new ArrayList<>();
        try (Stream<Path> folders = Files.list(GOLDEN)) {
            for (Path folder : folders.sorted().toList()) {
                if (Files.exists(folder.resolve("cases.safetensors"))) {
                    for (Backend backend : Backend.values()) {
                        if (backend.unavailable().isEmpty()) {
                            all.add(Arguments.of(folder.getFileName().toString(), backend));
                        }
                    }
                }
            }
        }
        assertThat(all).hasSizeGreaterThanOrEqualTo(2 * 43);
        return all;
    }

    @ParameterizedTest(name = "{0} on {1}")
    @MethodSource("variantsAndBackends")
    void forward_inSixteenBits_isOffByItsRoundingsOnly(String variant, Backend backend) {
        Path folder = GOLDEN.resolve(variant);
        for (DType type : List.of(DType.BF16, DType.F16)) {
            try (Safetensors cases = Safetensors.open(folder.resolve("cases.safetensors"));
                    Kernels kernels = backend.open(2);
                    Kernels reference = Backend.REFERENCE.open();
                    MoeLayer layer = MoeLayer.load(folder, 0, kernels, type, LoadProgress.NONE);
                    MoeLayer law = MoeLayer.load(folder, 0, reference, type, LoadProgress.NONE)) {
                for (int tokens : List.of(1, 7, 33)) {
                    if (cases.contains("t" + tokens + ".x")) {
                        check(cases, "t" + tokens + ".", type, layer, law);
                    }
                }
            }
        }
    }

    private static void check(
            Safetensors cases, String prefix, DType type, MoeLayer layer, MoeLayer law) {
        Tensor stored = cases.tensor(prefix + "x");
        Tensor types =
                cases.contains(prefix + "token_types")
                        ? cases.tensor(prefix + "token_types")
                        : null;
        try (Arena arena = Arena.ofConfined();
                Workspace workspace = layer.workspace(stored.dim(0), type);
                Workspace lawful = law.workspace(stored.dim(0))) {
            Tensor x = Tensor.allocate(arena, type, stored.shape());
            for (long i = 0; i < x.numElements(); i++) {
                x.setDouble(i, stored.getDouble(i));
            }
            Tensor y = Tensor.allocate(arena, type, stored.shape());
            Tensor want = Tensor.allocate(arena, DType.F32, stored.shape());
            layer.forward(x, types, y, workspace);
            law.forward(x, types, want, lawful);
            assertThat(workspace.topkIds().data().mismatch(lawful.topkIds().data()))
                    .as("ids of %s", prefix)
                    .isEqualTo(-1);
            // Each token by itself: beside one that its expert dropped, all others are large.
            for (long token = 0; token < x.dim(0); token++) {
                Tolerance.assertClose(
                        "layer",
                        prefix + type + " token " + token,
                        y.slice(token, 1),
                        want.slice(token, 1),
                        layer.config().hidden(),
                        intermediates(layer.config(), type));
            }
        }
    }

    /**
     * Hidden and expert rows of each choice, those of the shared expert, and the latent ones. A
     * single choice is the output itself before its last rounding, so that its error goes with the
     * element and not with the rms, which elements exceed up to threefold.
     */
    private static DType[] intermediates(MoeConfig config, DType type) {
        int stored = config.topK() == 1 ? 4 : 2 * config.topK();
        stored += config.sharedIntermediate() > 0 ? 2 : 0;
        stored += config.expertHidden() == config.hidden() ? 0 : 3;
        DType[] all = new DType[stored];
        Arrays.fill(all, type);
        return all;
    }
}
