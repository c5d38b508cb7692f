package jmoe.cli;

import jmoe.ExpertForm;
import jmoe.Preset;
import jmoe.Preset.Balance;
import jmoe.Preset.Bias;
import jmoe.Preset.Published;
import jmoe.Presets;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;

/** Lists the layers of published models. */
@Command(
        name = "presets",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "List MoE layers of published models: sizes, rules, parameters.",
        footer = {
            "",
            "Parameters and bytes are those of one layer: all, and those that one token",
            "uses (router, shared expert, top-k experts; of several token types the",
            "first). Bytes are of the weight matrices: all in BF16, and experts in the",
            "type in which they were released.",
            "",
            "Examples:",
            "  jmoe presets",
            "  jmoe presets deepseek-v3 minimax-text-01",
            "  jmoe presets --json >presets.json"
        })
final class PresetsCommand implements Callable<Integer> {
    private static final int NAME_COLUMNS = 22;

    private final Screen screen;

    @Parameters(
            paramLabel = "NAME",
            arity = "0..*",
            description = "Names or aliases, to see all that is known about them; default: all.")
    private @Nullable List<String> names;

    @Option(names = "--json", description = "Report as one JSON object.")
    private boolean json;

    PresetsCommand(Screen screen) {
        this.screen = screen;
    }

    /** The preset of a name or an alias, for every command that takes {@code --preset}. */
    static Preset option(String name) {
        return find("--", name);
    }

    private static Preset find(String before, String name) {
        try {
            return Presets.of(name);
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException(
                    before + e.getMessage() + "; jmoe presets lists all", e);
        }
    }

    @Override
    public Integer call() {
        Set<Preset> presets = new LinkedHashSet<>();
        if (names == null) {
            presets.addAll(Presets.all());
        } else {
            for (String name : names) {
                presets.add(find("", name));
            }
        }
        if (json) {
            screen.json(Map.of("presets", presets.stream().map(PresetsCommand::json).toList()));
        } else if (names == null) {
            printSizes(presets);
            printRules(presets);
        } else {
            presets.forEach(this::print);
        }
        return Main.OK;
    }

    private void printSizes(Set<Preset> presets) {
        screen.line(screen.bold("Sizes of one layer of " + presets.size() + " published models"));
        TextTable table =
                new TextTable(
                        "lrrrrrrrr", "", "hid-", "inter-", "ex-", "", "sha-", "para-", "ac-", "");
        table.row("name", "den", "mediate", "perts", "k", "red", "meters", "tive", "BF16");
        for (Preset preset : presets) {
            MoeConfig config = preset.config();
            table.row(
                    preset.name(),
                    Integer.toString(config.hidden()),
                    LayerText.intermediates(config),
                    experts(config),
                    Integer.toString(config.topK()),
                    Integer.toString(preset.sharedExperts()),
                    Units.count(preset.parameters()),
                    Units.count(preset.activeParameters()),
                    Units.bytes(preset.weightBytes(DType.BF16)));
        }
        table.print(screen);
    }

    private static String experts(MoeConfig config) {
        boolean many = config.numExperts() >= 100_000;
        String experts =
                many ? Units.count(config.numExperts()) : Integer.toString(config.numExperts());
        return config.numTokenTypes() == 1 ? experts : config.numTokenTypes() + "x" + experts;
    }

    private static String released(Published published) {
        return published.weights() == DType.BF16 ? "" : ", released in " + type(published);
    }

    private static String type(Published published) {
        return published.weights().name().toLowerCase(Locale.ROOT);
    }

    private void printRules(Set<Preset> presets) {
        screen.heading("How tokens find experts, and what those compute (in bf16 unless said)");
        for (Preset preset : presets) {
            String also = String.join(", ", preset.aliases());
            screen.field(
                    preset.name(),
                    NAME_COLUMNS,
                    rule(preset)
                            + "; "
                            + LayerText.activation(preset.config().activation())
                            + released(preset.published())
                            + (also.isEmpty() ? "" : "; also called " + also));
        }
    }

    private static String rule(Preset preset) {
        return LayerText.rule(preset.config(), preset.biases().contains(Bias.SELECTION))
                + (preset.biases().contains(Bias.EXPERT_SCALE)
                        ? ", times a factor of each expert"
                        : "")
                + form(preset.form());
    }

    /** What is special about the experts. */
    private static String form(ExpertForm form) {
        return switch (form) {
            case ExpertForm.TwoMaps two -> "";
            case ExpertForm.OneMap one -> "; experts of one matrix, the activation behind it";
            case ExpertForm.Narrow narrow -> "; experts of " + narrow.outputs() + " outputs";
            case ExpertForm.Neurons neurons ->
                    ", for each of "
                            + neurons.heads()
                            + " heads with keys of "
                            + neurons.keyWidth()
                            + " + "
                            + neurons.keyWidth()
                            + "; experts of a neuron";
        };
    }

    private void print(Preset preset) {
        Published published = preset.published();
        screen.heading(preset.name());
        if (!preset.aliases().isEmpty()) {
            screen.field("also", String.join(", ", preset.aliases()));
        }
        screen.field("sizes", LayerText.sizes(preset.config()));
        screen.field("routing", rule(preset));
        screen.field("activation", LayerText.activation(preset.config().activation()));
        if (!preset.biases().isEmpty()) {
            screen.field("biases", String.join(", ", biases(preset)));
        }
        screen.field(
                "parameters",
                Units.count(preset.activeParameters())
                        + " active of "
                        + Units.count(preset.parameters())
                        + " ("
                        + Units.exact(preset.activeParameters())
                        + " of "
                        + Units.exact(preset.parameters())
                        + ")");
        screen.field(
                "bytes",
                Units.bytes(preset.weightBytes(DType.BF16))
                        + " in bf16, "
                        + Units.bytes(preset.publishedBytes())
                        + " as released ("
                        + type(published)
                        + ")");
        if (published.moeLayers() > 0) {
            screen.field("model", model(published));
        }
        if (published.trainingCapacity() > 0) {
            screen.field(
                    "training",
                    "capacity factor " + LayerText.number(published.trainingCapacity()));
        }
        if (!published.balance().isEmpty()) {
            screen.field("balance", balance(published));
        }
        screen.field("source", published.source());
    }

    private static String model(Published published) {
        return Units.plural(published.moeLayers(), "MoE layer", "MoE layers")
                + stated(", ", published.totalParameters(), " parameters")
                + stated(", ", published.activeParameters(), " active");
    }

    private static String stated(String before, double count, String after) {
        return count == 0 ? "" : before + Units.count((long) count) + after;
    }

    private static String balance(Published published) {
        return published.balance().entrySet().stream()
                .map(entry -> word(entry.getKey()) + " " + LayerText.number(entry.getValue()))
                .collect(Collectors.joining(", "));
    }

    private static String word(Balance balance) {
        return switch (balance) {
            case LOAD -> "load-balancing loss";
            case SEQUENCE -> "loss of each sequence";
            case DEVICE -> "device loss";
            case COMMUNICATION -> "communication loss";
            case Z -> "z-loss";
            case ORTHOGONALITY -> "orthogonality loss";
            case SELECTION_BIAS -> "step of the selection bias";
            case IMPORTANCE -> "importance loss";
            case LOAD_VARIATION -> "load loss";
        };
    }

    private static List<String> biases(Preset preset) {
        List<String> places = new ArrayList<>();
        for (Bias bias : Bias.values()) {
            if (preset.biases().contains(bias)) {
                places.add(bias.name().toLowerCase(Locale.ROOT).replace('_', ' '));
            }
        }
        return places;
    }

    /** Keys are the words of the API. */
    private static Map<String, Object> json(Preset preset) {
        MoeConfig config = preset.config();
        RouterConfig router = config.routers().getFirst();
        Published published = preset.published();
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", preset.name());
        json.put("aliases", preset.aliases());
        json.put("family", config.family());
        json.put("hidden", config.hidden());
        json.put("intermediate", config.intermediates().getFirst());
        json.put("intermediates", config.intermediates());
        json.put("numExperts", config.numExperts());
        json.put("numTokenTypes", config.numTokenTypes());
        json.put("topK", config.topK());
        json.put("sharedExperts", preset.sharedExperts());
        json.put("sharedIntermediate", config.sharedIntermediate());
        json.put("sharedGated", config.sharedGated());
        json.put("activation", LayerText.activation(config.activation()));
        json.put("score", router.score().name().toLowerCase(Locale.ROOT));
        json.put("selection", router.selection().getClass().getSimpleName());
        json.put("normalisation", router.normalisation().getClass().getSimpleName());
        json.put("factor", router.factor());
        json.put("experts", preset.form().getClass().getSimpleName());
        json.put("heads", preset.form() instanceof ExpertForm.Neurons n ? n.heads() : null);
        json.put("rule", rule(preset));
        json.put("biases", biases(preset));
        json.put("parameters", preset.parameters());
        json.put("activeParameters", preset.activeParameters());
        json.put("bytes", preset.weightBytes(DType.BF16));
        json.put("publishedType", type(published));
        json.put("publishedBytes", preset.publishedBytes());
        json.put("moeLayers", published.moeLayers());
        json.put("modelParameters", known(published.totalParameters()));
        json.put("modelActiveParameters", known(published.activeParameters()));
        double capacity = published.trainingCapacity();
        json.put("trainingCapacity", capacity == 0 ? null : (Double) capacity);
        Map<String, Double> balance = new LinkedHashMap<>();
        published.balance().forEach((what, value) -> balance.put(camelCase(what), value));
        json.put("balance", balance);
        json.put("source", published.source());
        return json;
    }

    private static @Nullable Long known(double count) {
        return count == 0 ? null : (Long) Math.round(count);
    }

    private static String camelCase(Balance balance) {
        return switch (balance) {
            case SELECTION_BIAS -> "selectionBias";
            case LOAD_VARIATION -> "loadVariation";
            default -> balance.name().toLowerCase(Locale.ROOT);
        };
    }
}
