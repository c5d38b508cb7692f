package jmoe.cli;

import jmoe.Backend;
import jmoe.checkpoint.CheckpointException;
import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;

/** Checks every golden checkpoint. */
@Command(
        name = "verify",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "Compare golden checkpoints with the values of Hugging Face transformers.",
        footer = {
            "",
            "Each folder with config.json and cases.safetensors is run on all its inputs,",
            "with experts held as f32, bf16 and f16. Errors are max|a - b| / max|b| per",
            "tensor, the worst over all inputs; ids counts the tokens that got other",
            "experts and must be 0. The tolerances are those of float32 for all three",
            "types (2e-6 for logits and weights, 5e-6 for y), because golden weights are",
            "exact in each of them and activations stay float32.",
            "",
            "With --speed, the kernels of the backend vector or native are timed instead, and",
            "compared with what the machine can do: exit status 1 if one is below its floor,",
            "which means that Java did not compile it, and never just that the machine is",
            "busy.",
            "",
            "Examples (in the project's folder):",
            "  jmoe verify",
            "  jmoe verify --speed",
            "  jmoe verify --golden tests/golden --backend reference --json"
        })
final class Verify implements Callable<Integer> {
    private static final List<DType> TYPES = List.of(DType.F32, DType.BF16, DType.F16);

    private final Screen screen;
    private final long warmUpNanos;

    @Option(
            names = "--golden",
            paramLabel = "DIR",
            description = "Folder with <family>-<variant> folders; default: tests/golden.")
    private @Nullable Path golden;

    @Mixin private final BackendOptions backendOptions = new BackendOptions();

    @Option(names = "--speed", description = "Time the kernels instead.")
    private boolean speed;

    @Option(names = "--json", description = "Report as one JSON object.")
    private boolean json;

    /**
     * The command.
     *
     * @param screen where it writes
     * @param warmUpNanos twice as long as a kernel is warmed up before it is timed
     */
    Verify(Screen screen, long warmUpNanos) {
        this.screen = screen;
        this.warmUpNanos = warmUpNanos;
    }

    /**
     * One folder in one weight type.
     *
     * @param agreement the worst of its cases; null if it failed
     * @param cases each set of tokens
     * @param error why it failed, else null
     */
    private record Outcome(
            String name,
            DType type,
            @Nullable Agreement agreement,
            List<Golden.Case> cases,
            @Nullable String error) {
        boolean within() {
            return agreement != null && agreement.within();
        }

        String y() {
            return agreement == null ? "failed" : Units.error(agreement.y());
        }
    }

    @Override
    public Integer call() {
        return speed ? checkSpeed() : checkGolden();
    }

    private int checkSpeed() {
        if (golden != null) {
            throw new IllegalArgumentException(
                    "--golden: --speed needs no checkpoints; leave one of the two out");
        }
        try (OpenBackend backend = backendOptions.open()) {
            if (backend.backend() != Backend.VECTOR && backend.backend() != Backend.NATIVE) {
                throw new IllegalArgumentException(
                        "--speed: expected the backend vector or native, got "
                                + backend.backend().id());
            }
            return new SpeedCheck(screen, backend, warmUpNanos, 1).run(json);
        }
    }

    private int checkGolden() {
        Path folder = golden == null ? Home.golden() : golden;
        List<Path> checkpoints = Golden.folders(folder);
        List<Outcome> outcomes = new ArrayList<>();
        try (OpenBackend backend = backendOptions.open()) {
            for (Path checkpoint : checkpoints) {
                for (DType type : TYPES) {
                    outcomes.add(check(checkpoint, type, backend));
                }
            }
            errors(outcomes).forEach(error -> screen.err().println("jmoe: " + error));
            if (json) {
                screen.json(json(folder, backend, outcomes));
            } else {
                print(folder, backend, outcomes);
            }
        }
        return status(outcomes);
    }

    /** Folders that cannot be read count only if nothing else went wrong. */
    private static int status(List<Outcome> outcomes) {
        int status = Main.OK;
        for (Outcome outcome : outcomes) {
            if (outcome.agreement != null && !outcome.within()) {
                return Main.OUT_OF_TOLERANCE;
            }
            status = outcome.error == null ? status : Main.REFUSED;
        }
        return status;
    }

    private Outcome check(Path checkpoint, DType type, OpenBackend backend) {
        String name = checkpoint.getFileName().toString();
        try {
            List<Golden.Case> cases = Golden.cases(checkpoint, backend.kernels(), type);
            return new Outcome(name, type, Golden.worst(cases), cases, null);
        } catch (CheckpointException | IllegalArgumentException | UnsupportedOperationException e) {
            return new Outcome(name, type, null, List.of(), e.getMessage());
        }
    }

    private void print(Path folder, OpenBackend backend, List<Outcome> outcomes) {
        screen.line(screen.bold("Golden checkpoints in " + folder));
        screen.field("backend", backend.description());
        screen.line();
        TextTable table =
                new TextTable(
                        "lrrrrrrl",
                        "checkpoint",
                        "ids",
                        "logits",
                        "weights",
                        "y f32",
                        "y bf16",
                        "y f16",
                        "");
        for (int first = 0; first < outcomes.size(); first += TYPES.size()) {
            row(table, outcomes.subList(first, first + TYPES.size()));
        }
        table.print(screen);
        summary(outcomes);
    }

    /** A checkpoint: the router does not depend on the experts' type, so its worst will do. */
    private void row(TextTable table, List<Outcome> outcomes) {
        Agreement worst = Agreement.NONE;
        for (Outcome outcome : outcomes) {
            worst = outcome.agreement == null ? worst : worst.worst(outcome.agreement);
        }
        boolean known = worst.tokens() > 0;
        table.row(
                outcomes.getFirst().name,
                known ? Long.toString(worst.wrongTokens()) : "-",
                known ? Units.error(worst.logits()) : "-",
                known ? Units.error(worst.weights()) : "-",
                outcomes.get(0).y(),
                outcomes.get(1).y(),
                outcomes.get(2).y(),
                outcomes.stream().allMatch(Outcome::within)
                        ? screen.good("ok")
                        : screen.bad("FAILED"));
    }

    private void summary(List<Outcome> outcomes) {
        long failed = outcomes.stream().filter(outcome -> !outcome.within()).count();
        int checkpoints = outcomes.size() / TYPES.size();
        screen.line();
        errors(outcomes).forEach(screen::line);
        for (Outcome outcome : outcomes) {
            if (outcome.agreement != null) {
                failures(outcome).forEach(screen::line);
            }
        }
        String what =
                Units.plural(checkpoints, "checkpoint", "checkpoints")
                        + " "
                        + screen.times()
                        + " "
                        + TYPES.size()
                        + " weight types: ";
        screen.line(
                what
                        + (failed == 0
                                ? screen.good("all within tolerance")
                                : screen.bad(failed + " of " + outcomes.size() + " failed")));
    }

    /** What is wrong with folders, once for all types where it is the same. */
    private static Set<String> errors(List<Outcome> outcomes) {
        Set<String> errors = new LinkedHashSet<>();
        for (Outcome outcome : outcomes) {
            if (outcome.error != null) {
                errors.add(outcome.name + ": " + outcome.error.replaceAll("\\s*\\R\\s*", " "));
            }
        }
        return errors;
    }

    /** A sentence for each tensor that is out of tolerance. */
    private static List<String> failures(Outcome outcome) {
        List<String> failures = new ArrayList<>();
        for (Golden.Case one : outcome.cases) {
            Agreement found = one.agreement();
            String at = outcome.name + " " + outcome.type + ": " + one.name() + ".";
            if (found.wrongTokens() > 0) {
                failures.add(
                        at
                                + "topk_ids: "
                                + Units.plural(found.wrongTokens(), "token", "tokens")
                                + " got other experts, expected none");
            }
            addError(failures, at + "router_logits", found.logits(), Agreement.LOGITS_TOLERANCE);
            addError(failures, at + "topk_weights", found.weights(), Agreement.WEIGHTS_TOLERANCE);
            addError(failures, at + "y", found.y(), Agreement.Y_TOLERANCE);
        }
        return failures;
    }

    private static void addError(
            List<String> failures, String tensor, double error, double tolerance) {
        // Not below either is NaN.
        if (!(error <= tolerance)) {
            failures.add(
                    tensor
                            + ": error "
                            + Units.error(error)
                            + ", expected at most "
                            + Units.error(tolerance));
        }
    }

    private static Map<String, Object> json(
            Path folder, OpenBackend backend, List<Outcome> outcomes) {
        List<Map<String, Object>> results = new ArrayList<>();
        for (Outcome outcome : outcomes) {
            Map<String, Object> result = new LinkedHashMap<>();
            result.put("checkpoint", outcome.name);
            result.put("weights", outcome.type.name());
            if (outcome.agreement != null) {
                result.putAll(outcome.agreement.json());
            } else {
                result.put("within", false);
                result.put("error", outcome.error);
            }
            results.add(result);
        }
        Map<String, Object> object = new LinkedHashMap<>();
        object.put("golden", folder.toString());
        object.put("backend", backend.json());
        object.put("tolerances", Agreement.tolerancesJson());
        object.put("results", results);
        object.put("failed", outcomes.stream().filter(outcome -> !outcome.within()).count());
        return object;
    }
}
