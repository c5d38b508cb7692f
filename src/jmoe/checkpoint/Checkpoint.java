package jmoe.checkpoint;

import jmoe.checkpoint.ExpertNames.Layer;
import jmoe.checkpoint.MoeBlock.Part;
import jmoe.checkpoint.MoeBlock.Piece;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterWeights;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Set;

/**
 * A model folder as Hugging Face transformers writes it: config.json and safetensors files. Knows
 * where each of the supported model families keeps its MoE layers and brings them into the layout
 * of {@link MoeWeights}.
 *
 * <p>Files are mapped, not read: opening costs little, and a shard is opened when one of its
 * tensors is first asked for. Methods may be called from several threads.
 */
public final class Checkpoint implements AutoCloseable {
    private static final int MAX_SUGGESTIONS = 3;
    private static final String SINGLE = "model.safetensors";
    private static final String INDEX = "model.safetensors.index.json";

    private final Path path;
    private final ModelConfig config;
    private final Shards shards;
    private final List<Layer> layers;

    /** The folder, or the file whose name alone does not say that it is the model. */
    private final Path source;

    private Checkpoint(Path path, ModelConfig config, Shards shards) {
        this.path = path;
        this.config = config;
        this.shards = shards;
        Path only = onlyFile(path);
        this.source = only == null ? path : only;
        CheckpointException noModel = only == null ? null : noModel(path, only);
        this.layers = ExpertNames.layers(config.family(), shards.names(), config, noModel);
        if (layers.isEmpty()) {
            if (noModel != null) {
                throw noModel;
            }
            String router = config.family().block() + "." + config.family().routers().getFirst();
            throw missing(router);
        }
    }

    /**
     * Opens a folder with config.json and model.safetensors, model.safetensors.index.json and its
     * shards, or exactly one other safetensors file.
     *
     * @param path the folder
     * @return the open checkpoint, to be closed
     * @throws CheckpointException if a file is missing or damaged, the model family is not
     *     supported, or the checkpoint has no MoE layer
     */
    public static Checkpoint open(Path path) {
        if (!Files.isDirectory(path)) {
            throw new CheckpointException(
                    path
                            + ": expected a folder with config.json and safetensors files, got "
                            + (Files.exists(path) ? "a file" : "nothing"));
        }
        ModelConfig config = ModelConfig.read(path.resolve("config.json"));
        Shards shards = Shards.open(path);
        try {
            return new Checkpoint(path, config, shards);
        } catch (RuntimeException | Error e) {
            shards.close();
            throw e;
        }
    }

    /** The safetensors file that stands in for model.safetensors, or null. */
    private static @Nullable Path onlyFile(Path folder) {
        if (Files.exists(folder.resolve(SINGLE)) || Files.exists(folder.resolve(INDEX))) {
            return null;
        }
        try (DirectoryStream<Path> files = Files.newDirectoryStream(folder, "*.safetensors")) {
            Iterator<Path> file = files.iterator();
            return file.hasNext() ? file.next() : null;
        } catch (IOException e) {
            throw new CheckpointException(
                    folder + ": cannot be listed: " + MappedFile.reason(e), e);
        }
    }

    private static CheckpointException noModel(Path folder, Path only) {
        return new CheckpointException(
                folder
                        + ": has no "
                        + SINGLE
                        + " or "
                        + INDEX
                        + ", and "
                        + only.getFileName()
                        + " does not look like a model; fetch the weights");
    }

    /**
     * Where the checkpoint was opened.
     *
     * @return the path as given
     */
    public Path path() {
        return path;
    }

    /**
     * The model family.
     *
     * @return model_type of config.json in its usual spelling, of the language model if there are
     *     others
     */
    public String family() {
        return config.family().name();
    }

    /**
     * Names of all tensors.
     *
     * @return the names
     */
    public Set<String> names() {
        return shards.names();
    }

    /**
     * One tensor, as stored.
     *
     * @param name its name
     * @return a read-only view, valid until {@link #close}
     * @throws CheckpointException if there is no such tensor, or its file is missing or damaged
     */
    public Tensor tensor(String name) {
        Tensor tensor = find(name);
        if (tensor == null) {
            throw missing(name);
        }
        return tensor;
    }

    /** One tensor, or null if there is none. */
    @Nullable Tensor find(String name) {
        return shards.find(name);
    }

    /** Whether there is a tensor. */
    boolean contains(String name) {
        return shards.names().contains(name);
    }

    /**
     * The name under which a tensor is stored: its own, or that of its quantised codes; null if
     * neither exists.
     */
    @Nullable String storedName(String name) {
        if (contains(name)) {
            return name;
        }
        String stem =
                name.endsWith(".weight")
                        ? name.substring(0, name.length() - "weight".length())
                        : name;
        for (String codes :
                List.of(name + "_blocks", name + "_packed", stem + "qweight", name + ".qweight")) {
            if (contains(codes)) {
                return codes;
            }
        }
        return null;
    }

    /**
     * The MoE layers; dense layers are not among them. Reads headers, no weights.
     *
     * @return what each computes, by rising layer number
     * @throws CheckpointException if config.json or a tensor is missing or wrong
     */
    public List<MoeLayerInfo> layers() {
        return layers.stream().map(this::info).toList();
    }

    /**
     * One MoE layer. Reads headers, no weights.
     *
     * @param layer its number
     * @return what it computes
     * @throws CheckpointException if there is no such MoE layer, or config.json or a tensor is
     *     missing or wrong
     */
    public MoeLayerInfo layer(int layer) {
        return info(find(layer));
    }

    private MoeLayerInfo info(Layer layer) {
        MoeBlock block = block(layer);
        String first = block.experts().getFirst().gateUp().pieces().getFirst().name();
        return new MoeLayerInfo(
                layer.number(),
                layer.prefix(),
                block.config(),
                block.routers().getFirst().selectionBias() != null,
                storedType(first),
                block.totalElements(),
                block.activeElements());
    }

    /**
     * Reads a MoE layer into the layout of the operations. Router weights, biases and the shared
     * expert's gate become F32.
     *
     * @param layer number of the layer, one of {@link #layers}
     * @param weights type of the routed and shared experts and latent projections: F32, F16 or
     *     BF16; I8 to quantise the experts as {@link jmoe.tensor.Quantisation} does, and leave the
     *     projections as they are stored; null for the type in which the first routed expert is
     *     stored
     * @param arena owner of the weights
     * @param progress told after each matrix
     * @return the weights
     * @throws IllegalArgumentException if the type is none of these
     * @throws CheckpointException if there is no such MoE layer, config.json or a tensor is missing
     *     or wrong, a tensor is quantised, a finite number would become infinite or one that is not
     *     finite a code, or a file shrinks meanwhile
     */
    public MoeWeights load(int layer, @Nullable DType weights, Arena arena, LoadProgress progress) {
        return read(layer, weights, null, arena, progress);
    }

    /**
     * Reads a MoE layer as {@link #load(int, DType, Arena, LoadProgress)} does, to where a backend
     * computes. On a device everything arrives there piece by piece, without a copy of the layer on
     * the host.
     *
     * @param layer as there
     * @param weights as there
     * @param kernels the backend; the weights are not prepared for it
     * @param arena owner of the weights
     * @param progress told after each matrix
     * @return the weights
     * @throws IllegalArgumentException as there
     * @throws UnsupportedOperationException if the weights shall be I8 and the backend does not
     *     multiply by codes
     * @throws CheckpointException as there
     */
    public MoeWeights load(
            int layer,
            @Nullable DType weights,
            Kernels kernels,
            Arena arena,
            LoadProgress progress) {
        return read(layer, weights, kernels, arena, progress);
    }

    /**
     * Reads the routers of a MoE layer, and nothing of its experts, which may be quantised and of
     * any size.
     *
     * @param layer number of the layer, one of {@link #layers}
     * @param arena owner of the weights
     * @return one per token type, on the host
     * @throws CheckpointException if there is no such MoE layer, config.json or a tensor is missing
     *     or wrong, a router is quantised, or a file shrinks meanwhile
     */
    public List<RouterWeights> loadRouters(int layer, Arena arena) {
        MoeBlock block = block(find(layer));
        block.routers().forEach(router -> router.parts().forEach(this::checkLoadable));
        BlockLoader loader = new BlockLoader(this, DType.F32, null, arena, LoadProgress.NONE);
        return shards.guarded(() -> loader.routers(block));
    }

    private MoeWeights read(
            int layer,
            @Nullable DType weights,
            @Nullable Kernels kernels,
            Arena arena,
            LoadProgress progress) {
        if (weights != null
                && weights != DType.F32
                && weights != DType.F16
                && weights != DType.BF16
                && weights != DType.I8) {
            throw new IllegalArgumentException(
                    "weights: expected F32, F16, BF16, I8 or null, got " + weights);
        }
        MoeBlock block = block(find(layer));
        block.parts().forEach(this::checkLoadable);
        String first = block.experts().getFirst().gateUp().pieces().getFirst().name();
        DType dtype = weights == null ? tensor(first).dtype() : weights;
        return shards.guarded(
                () -> new BlockLoader(this, dtype, kernels, arena, progress).load(block));
    }

    private Layer find(int number) {
        for (Layer layer : layers) {
            if (layer.number() == number) {
                return layer;
            }
        }
        throw new CheckpointException(
                path
                        + ": has no MoE layer "
                        + number
                        + "; MoE layers: "
                        + layers.stream().map(Layer::number).toList());
    }

    private MoeBlock block(Layer layer) {
        MoeConfig computes = RoutingRules.of(config, layer);
        MoeBlock block = BlockPieces.of(this, config, layer, computes);
        Set<String> used = new HashSet<>();
        for (Part part : block.parts()) {
            for (Piece piece : part.pieces()) {
                if (used.add(piece.name())) {
                    checkStored(piece, computes);
                }
            }
        }
        checkBiases(used);
        return block;
    }

    /** Compares a stored tensor's shape with what config.json makes expect. */
    void checkStored(Piece piece, MoeConfig computes) {
        String name = storedName(piece.name());
        if (name == null) {
            throw missing(piece.name());
        }
        Tensor stored = tensor(name);
        // Codes of a quantised tensor are packed in many ways; load() refuses them.
        boolean packed = !name.equals(piece.name()) || stored.dtype() == DType.U8;
        if (!packed && !Arrays.equals(stored.shape(), piece.storedShape())) {
            throw new CheckpointException(
                    source
                            + ": tensor "
                            + CheckpointException.quoted(name)
                            + ": expected "
                            + Arrays.toString(piece.storedShape())
                            + " after config.json ("
                            + config.names(RoutingRules.NUM_EXPERTS)
                            + " = "
                            + computes.numExperts()
                            + ", "
                            + config.names(RoutingRules.HIDDEN)
                            + " = "
                            + computes.hidden()
                            + ", intermediate sizes "
                            + computes.intermediates()
                            + "), got "
                            + stored.describe());
        }
    }

    private void checkLoadable(Part part) {
        for (Piece piece : part.pieces()) {
            checkLoadable(piece.name());
        }
    }

    private void checkLoadable(String name) {
        String stored = storedName(name);
        Tensor tensor = tensor(stored == null ? name : stored);
        if (!name.equals(stored) || !tensor.dtype().isFloating()) {
            throw new CheckpointException(
                    source
                            + ": tensor "
                            + CheckpointException.quoted(stored == null ? name : stored)
                            + " is quantised ("
                            + tensor.describe()
                            + "), which cannot be loaded yet; expected F32, F16, BF16 or F64, use"
                            + " an unquantised checkpoint");
        }
    }

    /** A bias that the family's rule does not know would be left out silently. */
    private void checkBiases(Set<String> used) {
        for (String name : used) {
            if (name.endsWith(".weight")) {
                String bias = name.substring(0, name.length() - "weight".length()) + "bias";
                if (contains(bias) && !used.contains(bias)) {
                    throw new CheckpointException(
                            source
                                    + ": tensor "
                                    + CheckpointException.quoted(bias)
                                    + " is not part of a MoE block of "
                                    + family()
                                    + " with this config.json");
                }
            }
        }
    }

    private DType storedType(String name) {
        String stored = storedName(name);
        return stored != null && stored.endsWith("_blocks")
                ? DType.MXFP4
                : tensor(stored == null ? name : stored).dtype();
    }

    private CheckpointException missing(String name) {
        List<String> nearest = NearestNames.of(name, names(), MAX_SUGGESTIONS);
        return new CheckpointException(
                source
                        + ": has no tensor "
                        + CheckpointException.quoted(name)
                        + (nearest.isEmpty()
                                ? ""
                                : "; nearest: "
                                        + String.join(
                                                ", ",
                                                nearest.stream()
                                                        .map(CheckpointException::quoted)
                                                        .toList())));
    }

    /** Unmaps all files; tensors from {@link #tensor} throw when they are read. */
    @Override
    public void close() {
        shards.close();
    }
}
