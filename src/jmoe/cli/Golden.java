package jmoe.cli;

import jmoe.MoeLayer;
import jmoe.Workspace;
import jmoe.checkpoint.Checkpoint;
import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.LoadProgress;
import jmoe.checkpoint.Safetensors;
import jmoe.ops.Kernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * A one-layer checkpoint with inputs and the outputs that another framework computed: a folder with
 * config.json, weights and cases.safetensors, which holds for each batch size T {@code tT.x},
 * {@code tT.router_logits}, {@code tT.topk_ids}, {@code tT.topk_weights}, {@code tT.y} and where
 * they apply {@code tT.token_types} and {@code tT.kept}.
 */
final class Golden {
    /** The file with inputs and expected outputs. */
    static final String CASES = "cases.safetensors";

    private static final Pattern INPUT = Pattern.compile("t(\\d+)\\.x");

    private Golden() {}

    /**
     * The checkpoints under a folder.
     *
     * @param folder searched one level deep
     * @return those with config.json and cases, by name
     * @throws CheckpointException if the folder cannot be read or has none
     */
    static List<Path> folders(Path folder) {
        if (!Files.isDirectory(folder)) {
            throw new CheckpointException(
                    folder + ": is not a folder; name one with <family>-<variant> folders in it");
        }
        List<Path> found = new ArrayList<>();
        try (Stream<Path> entries = Files.list(folder)) {
            entries.filter(Golden::isGolden).sorted().forEach(found::add);
        } catch (IOException e) {
            throw new CheckpointException(folder + ": cannot be read: " + e.getMessage(), e);
        }
        if (found.isEmpty()) {
            throw new CheckpointException(
                    folder + ": no folder in it has config.json and " + CASES + " to verify");
        }
        return found;
    }

    private static boolean isGolden(Path folder) {
        return Files.isRegularFile(folder.resolve("config.json"))
                && Files.isRegularFile(folder.resolve(CASES));
    }

    /**
     * Computes every case and compares.
     *
     * @param folder a checkpoint with cases
     * @param kernels where it runs
     * @param expertType what the experts are stored in
     * @return the worst over all cases
     * @throws CheckpointException if files are broken or hold no case
     */
    static Agreement check(Path folder, Kernels kernels, DType expertType) {
        return worst(cases(folder, kernels, expertType));
    }

    /**
     * One set of tokens.
     *
     * @param name for example t7
     * @param agreement how far the result is from the expected one
     */
    record Case(String name, Agreement agreement) {}

    /** All cases as one, see {@link Agreement#worst}. */
    static Agreement worst(List<Case> cases) {
        Agreement worst = Agreement.NONE;
        for (Case one : cases) {
            worst = worst.worst(one.agreement);
        }
        return worst;
    }

    /** As {@link #check}, case by case. */
    static List<Case> cases(Path folder, Kernels kernels, DType expertType) {
        try (Safetensors cases = Safetensors.open(folder.resolve(CASES));
                MoeLayer layer =
                        MoeLayer.load(
                                folder,
                                firstLayer(folder),
                                kernels,
                                expertType,
                                LoadProgress.NONE)) {
            List<Case> found = new ArrayList<>();
            for (String name : cases.names()) {
                Matcher input = INPUT.matcher(name);
                if (input.matches()) {
                    String set = "t" + input.group(1);
                    found.add(new Case(set, check(layer, cases, set + ".")));
                }
            }
            if (worst(found).tokens() == 0) {
                throw new CheckpointException(cases.path() + ": has no input like t7.x");
            }
            return found;
        }
    }

    private static int firstLayer(Path folder) {
        try (Checkpoint checkpoint = Checkpoint.open(folder)) {
            return checkpoint.layers().getFirst().layer();
        }
    }

    private static Agreement check(MoeLayer layer, Safetensors cases, String prefix) {
        Tensor x = cases.tensor(prefix + "x");
        Tensor types = optional(cases, prefix + "token_types");
        try (Arena arena = Arena.ofConfined();
                Workspace workspace = layer.workspace(x.dim(0))) {
            Tensor y = Tensor.allocate(arena, DType.F32, x.dim(0), layer.config().hidden());
            layer.forward(x, types, y, workspace);
            Agreement.Result want =
                    new Agreement.Result(
                            cases.tensor(prefix + "router_logits"),
                            cases.tensor(prefix + "topk_ids"),
                            cases.tensor(prefix + "topk_weights"),
                            cases.tensor(prefix + "y"));
            Agreement agreement = Agreement.of(Agreement.Result.of(workspace, y), want);
            Tensor kept = optional(cases, prefix + "kept");
            return kept == null
                    ? agreement
                    : agreement.withWrongTokens(wronglyKept(workspace.topkWeights(), kept));
        }
    }

    /** A token dropped by its expert's capacity has weight 0. */
    private static long wronglyKept(Tensor topkWeights, Tensor kept) {
        long wrong = 0;
        for (long token = 0; token < kept.numElements(); token++) {
            boolean isKept = topkWeights.getDouble(token) != 0;
            wrong += isKept == (kept.getInt(token) != 0) ? 0 : 1;
        }
        return wrong;
    }

    private static @Nullable Tensor optional(Safetensors cases, String name) {
        return cases.contains(name) ? cases.tensor(name) : null;
    }
}
