package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.ExpertWeights;
import jmoe.ops.MoeWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

class CheckpointTest {
    private static final Path FIXTURES = EditedFolder.GOLDEN.resolve("fixtures");
    private static final String BLOCK = "model.layers.0.block_sparse_moe.";
    private static final String INDEX = "model.safetensors.index.json";

    @TempDir Path folder;

    @ParameterizedTest
    @ValueSource(strings = {"mixtral-sharded", "mixtral-bf16", "mixtral-f16"})
    void load_givesTheSameNumbersFromEveryEncoding(String fixture) {
        try (Checkpoint want = Checkpoint.open(FIXTURES.resolve("mixtral-f32"));
                Checkpoint got = Checkpoint.open(FIXTURES.resolve(fixture));
                Arena arena = Arena.ofConfined()) {
            for (DType dtype : List.of(DType.F32, DType.F16, DType.BF16)) {
                MoeWeights wanted = want.load(0, dtype, arena, LoadProgress.NONE);
                MoeWeights loaded = got.load(0, dtype, arena, LoadProgress.NONE);
                assertSameNumbers(
                        loaded.routers().getFirst().weight(), wanted.routers().getFirst().weight());
                assertSame(
                        loaded.experts().getFirst().gateUp(), wanted.experts().getFirst().gateUp());
                assertSame(loaded.experts().getFirst().down(), wanted.experts().getFirst().down());
                assertThat(loaded.experts().getFirst().down().dtype()).isEqualTo(dtype);
            }
            assertThat(got.layer(0).config()).isEqualTo(want.layer(0).config());
            assertThat(got.names()).isEqualTo(want.names());
        }
    }

    /** Routers keep the type they are stored in. */
    private static void assertSameNumbers(Tensor got, Tensor want) {
        assertThat(got.shape()).isEqualTo(want.shape());
        for (long i = 0; i < want.numElements(); i++) {
            assertThat(got.getDouble(i)).isEqualTo(want.getDouble(i));
        }
    }

    private static void assertSame(Tensor got, Tensor want) {
        assertThat(got.describe()).isEqualTo(want.describe());
        assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
    }

    @Test
    void load_keepsTheStoredTypeOfExpertsAndRouters() {
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve("qwen3_next-0"));
                Arena arena = Arena.ofConfined()) {
            MoeWeights weights = checkpoint.load(0, null, arena, LoadProgress.NONE);

            assertThat(weights.experts().getFirst().gateUp().dtype()).isEqualTo(DType.BF16);
            assertThat(weights.shared().down().dtype()).isEqualTo(DType.BF16);
            assertThat(weights.sharedGate().dtype()).isEqualTo(DType.F32);
            assertThat(weights.routers().getFirst().weight().dtype()).isEqualTo(DType.BF16);
            MoeWeights wide = checkpoint.load(0, DType.F32, arena, LoadProgress.NONE);
            assertThat(wide.routers().getFirst().weight().dtype()).isEqualTo(DType.BF16);
        }
    }

    @Test
    void load_owesNothingToTheFiles() {
        try (Arena arena = Arena.ofConfined()) {
            ExpertWeights bank;
            try (Checkpoint checkpoint = Checkpoint.open(FIXTURES.resolve("mixtral-f32"))) {
                bank = checkpoint.load(0, null, arena, LoadProgress.NONE).experts().getFirst();
            }
            assertThat(bank.gateUp().getDouble(0)).isNotNaN();
            assertThat(bank.gateUp().data().address() % Tensor.ALIGNMENT_BYTES).isZero();
        }
    }

    @Test
    void load_tellsHowFarItIs() {
        try (Checkpoint checkpoint = Checkpoint.open(EditedFolder.GOLDEN.resolve("qwen2_moe-0"));
                Arena arena = Arena.ofConfined()) {
            List<Long> told = new ArrayList<>();
            long experts = 3 * 44 * (6 * 36 + 24);
            long total = 2 * experts + 4 * (6 * 44 + 44);
            checkpoint.load(
                    0,
                    DType.BF16,
                    arena,
                    (bytes, totalBytes) -> {
                        assertThat(totalBytes).isEqualTo(total);
                        told.add(bytes);
                    });
            assertThat(told).isSorted().hasSizeGreaterThan(6 * 3).endsWith(total);
        }
    }

    @ParameterizedTest
    @CsvSource({
        "F32, 1e6, F16, BF16 or F32",
        "F32, -65520, F16, BF16 or F32",
        "BF16, 1e6, F16, BF16 or F32",
        "F32, 3.4e38, BF16, F32",
        "F64, 1e300, F32, F32",
        "F64, 1e300, BF16, F32"
    })
    void load_refusesNumbersThatBecomeInfinite(
            DType stored, double value, DType loaded, String remedy) {
        try (EditedFolder edited = new EditedFolder("granitemoe-0", folder);
                Arena arena = Arena.ofConfined()) {
            Tensor tensor = edited.allocate(stored, 5, 32, 22);
            tensor.setDouble(2 * 32 * 22 + 7, Double.POSITIVE_INFINITY);
            tensor.setDouble(2 * 32 * 22 + 9, value);
            edited.tensors.put(BLOCK + "output_linear.weight", tensor);
            try (Checkpoint checkpoint = edited.open()) {
                assertThatThrownBy(() -> checkpoint.load(0, loaded, arena, LoadProgress.NONE))
                        .isInstanceOf(CheckpointException.class)
                        .hasMessageContaining("'" + BLOCK + "output_linear.weight'")
                        .hasMessageContaining(
                                tensor.getDouble(2 * 32 * 22 + 9) + " at element 1417")
                        .hasMessageContaining(
                                "infinite in " + loaded + "; load the weights as " + remedy);
            }
        }
    }

    /** Every layout: as stored, transposed, interleaved, fused, stacked, and rows of one number. */
    @ParameterizedTest
    @MethodSource("golden")
    void load_quantisesTheExpertsAndNothingElse(Path golden) {
        try (Checkpoint checkpoint = Checkpoint.open(golden);
                Arena arena = Arena.ofConfined()) {
            MoeWeights wide = checkpoint.load(0, DType.F32, arena, LoadProgress.NONE);
            MoeWeights stored = checkpoint.load(0, null, arena, LoadProgress.NONE);
            long[] last = new long[2];
            LoadProgress progress =
                    (bytes, totalBytes) -> {
                        last[0] = bytes;
                        last[1] = totalBytes;
                    };
            MoeWeights quantised = checkpoint.load(0, DType.I8, arena, progress);
            assertThat(last[0]).isPositive().isEqualTo(last[1]);
            for (int type = 0; type < wide.experts().size(); type++) {
                assertQuantised(quantised.experts().get(type), wide.experts().get(type), arena);
            }
            if (wide.shared() != null) {
                assertQuantised(quantised.shared(), wide.shared(), arena);
            }
            assertSame(
                    quantised.routers().getFirst().weight(), stored.routers().getFirst().weight());
            if (stored.latentIn() != null) {
                assertSame(quantised.latentIn(), stored.latentIn());
                assertSame(quantised.latentOut(), stored.latentOut());
            }
            quantised.requireMatch(checkpoint.layer(0).config());
        }
    }

    private static void assertQuantised(ExpertWeights got, ExpertWeights wide, Arena arena) {
        for (Tensor[] pair :
                new Tensor[][] {{got.gateUp(), wide.gateUp()}, {got.down(), wide.down()}}) {
            Tensor want = Quantisation.of(pair[1], arena);
            assertSame(pair[0], want);
            assertSame(pair[0].scale(), want.scale());
        }
        if (wide.gateUpBias() != null) {
            assertSame(got.gateUpBias(), wide.gateUpBias());
        }
    }

    static Stream<Path> golden() throws IOException {
        try (Stream<Path> folders = Files.list(EditedFolder.GOLDEN)) {
            return folders
                    .filter(path -> Files.exists(path.resolve("cases.safetensors")))
                    .sorted()
                    .toList()
                    .stream();
        }
    }

    @ParameterizedTest
    @CsvSource({"F32, NaN, NaN", "BF16, Infinity, Infinity", "F64, 1e300, 1.0E300"})
    void load_refusesToQuantiseWhatIsNotFinite(DType stored, double value, String text) {
        try (EditedFolder edited = new EditedFolder("granitemoe-0", folder);
                Arena arena = Arena.ofConfined()) {
            Tensor tensor = edited.allocate(stored, 5, 32, 22);
            tensor.setDouble(2 * 32 * 22 + 9, value);
            edited.tensors.put(BLOCK + "output_linear.weight", tensor);
            try (Checkpoint checkpoint = edited.open()) {
                assertThatThrownBy(() -> checkpoint.load(0, DType.I8, arena, LoadProgress.NONE))
                        .isInstanceOf(CheckpointException.class)
                        .hasMessageEndingWith(
                                ": tensor '%soutput_linear.weight' has %s at element 1417, which"
                                        + " cannot be quantised; load the weights as F32",
                                BLOCK, text);
            }
        }
    }

    @Test
    void load_keepsInfinitiesAndTheLargestF16() {
        try (EditedFolder edited = new EditedFolder("granitemoe-0", folder);
                Arena arena = Arena.ofConfined()) {
            Tensor tensor = edited.allocate(DType.F32, 5, 32, 22);
            tensor.setDouble(0, Double.NEGATIVE_INFINITY);
            tensor.setDouble(1, 65519);
            tensor.setDouble(2, Double.NaN);
            edited.tensors.put(BLOCK + "output_linear.weight", tensor);
            try (Checkpoint checkpoint = edited.open()) {
                Tensor down =
                        checkpoint
                                .load(0, DType.F16, arena, LoadProgress.NONE)
                                .experts()
                                .getFirst()
                                .down();
                assertThat(down.getDouble(0)).isEqualTo(Double.NEGATIVE_INFINITY);
                assertThat(down.getDouble(1)).isEqualTo(65504);
                assertThat(down.getDouble(2)).isNaN();
            }
        }
    }

    @Test
    void load_refusesOtherTypesAndLayers() {
        try (Checkpoint checkpoint = Checkpoint.open(FIXTURES.resolve("mixtral-f32"));
                Arena arena = Arena.ofConfined()) {
            assertThatThrownBy(() -> checkpoint.load(0, DType.F64, arena, LoadProgress.NONE))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("weights: expected F32, F16, BF16, I8 or null, got F64");
            assertThatThrownBy(() -> checkpoint.load(3, null, arena, LoadProgress.NONE))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("has no MoE layer 3; MoE layers: [0]");
            assertThatThrownBy(() -> checkpoint.layer(-1))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("has no MoE layer -1");
        }
    }

    @Test
    void load_reportsAFileThatWasCut() throws IOException {
        try (EditedFolder edited = new EditedFolder("mixtral-0", folder);
                Checkpoint checkpoint = edited.open();
                Arena arena = Arena.ofConfined()) {
            checkpoint.layers();
            Path file = folder.resolve("model.safetensors");
            try (RandomAccessFile cut = new RandomAccessFile(file.toFile(), "rw")) {
                cut.setLength(Files.size(file) / 4);
            }
            assertThatThrownBy(() -> checkpoint.load(0, null, arena, LoadProgress.NONE))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("shrank");
        }
    }

    @Test
    void tensor_viewsWhatIsStored() {
        try (Checkpoint checkpoint = Checkpoint.open(FIXTURES.resolve("mixtral-sharded"))) {
            assertThat(checkpoint.path()).isEqualTo(FIXTURES.resolve("mixtral-sharded"));
            assertThat(checkpoint.tensor(BLOCK + "gate.weight").describe())
                    .isEqualTo("BF16 [5, 40]");
            assertThatThrownBy(() -> checkpoint.tensor(BLOCK + "gate.weights"))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("has no tensor '" + BLOCK + "gate.weights'")
                    .hasMessageContaining("nearest: '" + BLOCK + "gate.weight'");
        }
    }

    @Test
    void tensor_ofAClosedCheckpointThrows() {
        Checkpoint checkpoint = Checkpoint.open(FIXTURES.resolve("mixtral-sharded"));
        Tensor tensor = checkpoint.tensor(BLOCK + "gate.weight");
        checkpoint.close();
        checkpoint.close();

        assertThatThrownBy(() -> tensor.getDouble(0)).isInstanceOf(IllegalStateException.class);
        assertThatThrownBy(() -> checkpoint.tensor(BLOCK + "gate.weight"))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("closed");
        assertThatThrownBy(checkpoint::layers).isInstanceOf(IllegalStateException.class);
    }

    @Test
    void open_takesTheOnlySafetensorsFile() throws IOException {
        copy("mixtral-f32");
        Files.move(folder.resolve("model.safetensors"), folder.resolve("other.safetensors"));
        try (Checkpoint checkpoint = Checkpoint.open(folder)) {
            assertThat(checkpoint.layers()).hasSize(1);
        }
        Files.copy(folder.resolve("other.safetensors"), folder.resolve("another.safetensors"));
        assertThatThrownBy(() -> Checkpoint.open(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("got [another.safetensors, other.safetensors]");
        Files.delete(folder.resolve("other.safetensors"));
        Files.delete(folder.resolve("another.safetensors"));
        assertThatThrownBy(() -> Checkpoint.open(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("expected model.safetensors, " + INDEX)
                .hasMessageContaining("got none");
    }

    @Test
    void open_opensShardsWhenNeeded() throws IOException {
        copy("mixtral-sharded");
        Path damaged = folder.resolve("model-00005-of-00005.safetensors");
        Files.write(damaged, new byte[3]);
        try (Checkpoint checkpoint = Checkpoint.open(folder)) {
            assertThat(checkpoint.layers()).hasSize(1);
            assertThatThrownBy(() -> checkpoint.tensor("model.layers.0.self_attn.k_proj.weight"))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining(damaged.toString());
        }
    }

    @Test
    void open_namesTheMissingShard() throws IOException {
        copy("mixtral-sharded");
        Files.delete(folder.resolve("model-00002-of-00005.safetensors"));
        assertThatThrownBy(() -> Checkpoint.open(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(INDEX)
                .hasMessageContaining("'model-00002-of-00005.safetensors', which is missing");
    }

    @Test
    void tensor_namesTheShardThatLacksIt() throws IOException {
        copy("mixtral-sharded");
        Path index = folder.resolve(INDEX);
        Files.writeString(
                index,
                Files.readString(index)
                        .replace(
                                "gate.weight\": \"model-00004-of",
                                "gate.weight\": \"model-00001-of"));
        try (Checkpoint checkpoint = Checkpoint.open(folder)) {
            assertThatThrownBy(checkpoint::layers)
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("model-00001-of-00005.safetensors: has no tensor")
                    .hasMessageContaining(BLOCK + "gate.weight")
                    .hasMessageContaining("though " + INDEX + " says so");
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "[]; expected an object weight_map",
                "{}; expected an object weight_map",
                "{\"weight_map\": []}; expected an object weight_map",
                "{\"weight_map\": {}}; expected an object weight_map",
                "{\"weight_map\": {\"a\": 1}}; for 'a', got 1",
                "{\"weight_map\": {\"a\": null}}; for 'a', got null",
                "{\"weight_map\": {\"a\": \"\"}}; for 'a', got \"\"",
                "{\"weight_map\": {\"a\": \"..\"}}; for 'a', got \"..\"",
                "{\"weight_map\": {\"a\": \"../b.safetensors\"}}; for 'a', got"
                        + " \"../b.safetensors\"",
                "{\"weight_map\": {\"a\": \"/etc/passwd\"}}; for 'a', got \"/etc/passwd\"",
                "{\"weight_map\": {\"a\": \"..\\\\b\"}}; for 'a', got",
                "{\"weight_map\": {\"a\": \"b\\u0000\"}}; for 'a', got",
                "{\"weight_map\": {\"a\": \"config.jso\"}}; names 'config.jso', which is missing",
                "{; is not valid JSON"
            })
    void open_refusesABrokenIndex(String json, String message) throws IOException {
        copy("mixtral-sharded");
        Files.writeString(folder.resolve(INDEX), json);
        assertThatThrownBy(() -> Checkpoint.open(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(INDEX)
                .hasMessageContaining(message);
    }

    @Test
    void open_namesAMissingFolderOrConfig() throws IOException {
        assertThatThrownBy(() -> Checkpoint.open(folder.resolve("nowhere")))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("nowhere: expected a folder")
                .hasMessageContaining("got nothing");
        copy("mixtral-f32");
        assertThatThrownBy(() -> Checkpoint.open(folder.resolve("model.safetensors")))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("got a file");
        Files.delete(folder.resolve("config.json"));
        assertThatThrownBy(() -> Checkpoint.open(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("config.json: no such file");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "{\"model_type\": ; is not valid JSON",
                "[1, 2]; expected a JSON object, got [1,2]",
                "{\"model_type\": 7}; model_type is missing"
            })
    void open_refusesABrokenConfig(String json, String message) throws IOException {
        copy("mixtral-f32");
        Files.writeString(folder.resolve("config.json"), json);
        assertThatThrownBy(() -> Checkpoint.open(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("config.json")
                .hasMessageContaining(message);
    }

    private void copy(String fixture) throws IOException {
        try (Stream<Path> files = Files.list(FIXTURES.resolve(fixture))) {
            for (Path file : files.toList()) {
                Files.copy(
                        file,
                        folder.resolve(file.getFileName()),
                        StandardCopyOption.REPLACE_EXISTING);
            }
        }
    }
}
