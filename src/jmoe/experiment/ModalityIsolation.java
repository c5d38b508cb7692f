package jmoe.experiment;

import jmoe.MoeLayer;
import jmoe.Workspace;
import jmoe.experiment.Report.Plot;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.stream.IntStream;

/** One layer for text and images against two layers, each for its own tokens. */
final class ModalityIsolation implements Experiment {
    private static final int EXPERTS = 16;
    private static final int TOP_K = 4;
    private static final int HIDDEN = 128;
    private static final List<Integer> INTERMEDIATES = List.of(96, 32);

    private static final String SHARE = "share of images";
    private static final String CROSSED = "slots that cross";
    private static final List<String> COLUMNS =
            List.of(
                    SHARE,
                    "text",
                    "images",
                    "slots",
                    CROSSED,
                    "rows that leak",
                    "rows that differ");

    @Override
    public String name() {
        return "modality";
    }

    @Override
    public String claim() {
        return "Experts that are separated by the type of a token never see another type (ERNIE 4.5"
                + " technical report, 2025): one layer is two layers side by side.";
    }

    @Override
    public Report run(Kernels kernels, Effort effort) {
        int tokens = effort.of(1024, 48);
        List<double[]> rows = new ArrayList<>();
        for (double share : new double[] {0, 0.1, 0.5, 0.9, 1}) {
            rows.add(row(kernels, tokens, share));
        }
        Plot plot =
                new Plot(
                        "Tokens of each type, and slots that cross",
                        SHARE,
                        "tokens, slots",
                        false,
                        List.of(
                                Report.line("text", COLUMNS, rows, SHARE, "text"),
                                Report.line("images", COLUMNS, rows, SHARE, "images"),
                                Report.line(CROSSED, COLUMNS, rows, SHARE, CROSSED)));
        double crossed = rows.stream().mapToDouble(row -> row[4]).sum();
        double leaked = rows.stream().mapToDouble(row -> row[5]).sum();
        double different = rows.stream().mapToDouble(row -> row[6]).sum();
        return new Report(
                COLUMNS,
                rows,
                List.of(plot),
                List.of(
                        String.format(
                                Locale.ROOT,
                                "%.0f slots got an expert of the other type.",
                                crossed),
                        String.format(
                                Locale.ROOT,
                                "%.0f rows of text changed when every image was changed.",
                                leaked),
                        String.format(
                                Locale.ROOT,
                                "%.0f of %.0f rows differ in any bit from those of two separate"
                                        + " layers.",
                                different,
                                (double) tokens * rows.size())));
    }

    private static RouterConfig rule(int tokenType) {
        return new RouterConfig(
                EXPERTS,
                TOP_K,
                Score.SOFTMAX,
                new Selection.TopK(),
                new Normalisation.ClampedSum(1e-12),
                1,
                false,
                null,
                tokenType);
    }

    private static double[] row(Kernels kernels, int tokens, double share) {
        int[] types = new int[tokens];
        int images = 0;
        for (int token = 0; token < tokens; token++) {
            // Spread evenly, so that neighbours differ.
            types[token] = (int) ((token + 1) * share) > (int) (token * share) ? 1 : 0;
            images += types[token];
        }
        MoeConfig config = RandomWeights.config(HIDDEN, INTERMEDIATES, List.of(rule(0), rule(1)));
        try (Arena arena = Arena.ofShared()) {
            MoeWeights weights = RandomWeights.of(config, kernels, arena, 1);
            Tensor x = normal(arena, tokens);
            Tensor y = Tensor.allocate(arena, DType.F32, tokens, HIDDEN);
            int crossed = mixed(kernels, config, weights, x, types, y);
            int leaked = leaked(kernels, config, weights, x, types, y);
            int different = 0;
            for (int type = 0; type < 2; type++) {
                different += different(kernels, config, weights, x, types, type, y);
            }
            double slots = (double) tokens * TOP_K;
            return new double[] {share, tokens - images, images, slots, crossed, leaked, different};
        }
    }

    private static Tensor normal(Arena arena, int tokens) {
        Tensor x = Tensor.allocate(arena, DType.F32, tokens, HIDDEN);
        Random random = new Random(3);
        for (long i = 0; i < x.numElements(); i++) {
            x.setDouble(i, random.nextGaussian());
        }
        return x;
    }

    /** Computes y; counts slots that are more or fewer than a type's tokens asked for. */
    private static int mixed(
            Kernels kernels,
            MoeConfig config,
            MoeWeights weights,
            Tensor x,
            int[] types,
            Tensor y) {
        try (Arena arena = Arena.ofShared();
                MoeLayer layer = new MoeLayer(config, weights, kernels);
                Workspace workspace = layer.workspace(types.length)) {
            Tensor tokenTypes = Tensor.allocate(arena, DType.I32, types.length);
            int[] crossed = new int[2];
            for (int token = 0; token < types.length; token++) {
                tokenTypes.setInt(token, types[token]);
                crossed[types[token]] -= TOP_K;
            }
            layer.forward(x, tokenTypes, y, workspace);
            for (int expert = 0; expert < 2 * EXPERTS; expert++) {
                crossed[expert / EXPERTS] += workspace.tokensPerExpert().getInt(expert);
            }
            return Math.abs(crossed[0]) + Math.abs(crossed[1]);
        }
    }

    /** Rows of text that change if every image does. */
    private static int leaked(
            Kernels kernels,
            MoeConfig config,
            MoeWeights weights,
            Tensor x,
            int[] types,
            Tensor y) {
        try (Arena arena = Arena.ofShared()) {
            Tensor other = x.copy(arena);
            Tensor changed = Tensor.allocate(arena, DType.F32, types.length, HIDDEN);
            for (int token = 0; token < types.length; token++) {
                for (int i = 0; types[token] == 1 && i < HIDDEN; i++) {
                    other.row(token).setDouble(i, -2 * x.row(token).getDouble(i));
                }
            }
            mixed(kernels, config, weights, other, types, changed);
            int leaked = 0;
            for (int token = 0; token < types.length; token++) {
                leaked += types[token] == 0 && !same(changed.row(token), y.row(token)) ? 1 : 0;
            }
            return leaked;
        }
    }

    private static boolean same(Tensor a, Tensor b) {
        return a.data().mismatch(b.data()) < 0;
    }

    /** Rows of a type that a layer of this type alone computes differently. */
    private static int different(
            Kernels kernels,
            MoeConfig config,
            MoeWeights weights,
            Tensor x,
            int[] types,
            int type,
            Tensor y) {
        int[] tokens =
                IntStream.range(0, types.length).filter(token -> types[token] == type).toArray();
        List<Integer> width = List.of(config.intermediates().get(type));
        MoeConfig alone =
                RandomWeights.config(HIDDEN, width, List.of(rule(RouterConfig.ALL_TOKENS)));
        MoeWeights half =
                new MoeWeights(
                        List.of(weights.routers().get(type)),
                        List.of(weights.experts().get(type)),
                        null,
                        null,
                        null,
                        null,
                        null);
        try (Arena arena = Arena.ofShared();
                MoeLayer layer = new MoeLayer(alone, half, kernels);
                Workspace workspace = layer.workspace(tokens.length)) {
            Tensor input = Tensor.allocate(arena, DType.F32, tokens.length, HIDDEN);
            Tensor output = Tensor.allocate(arena, DType.F32, tokens.length, HIDDEN);
            for (int i = 0; i < tokens.length; i++) {
                input.row(i).data().copyFrom(x.row(tokens[i]).data());
            }
            layer.forward(input, output, workspace);
            int different = 0;
            for (int i = 0; i < tokens.length; i++) {
                different += same(output.row(i), y.row(tokens[i])) ? 0 : 1;
            }
            return different;
        }
    }
}
