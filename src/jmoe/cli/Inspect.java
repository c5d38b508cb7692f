package jmoe.cli;

import jmoe.checkpoint.Checkpoint;
import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.MoeLayerInfo;
import jmoe.checkpoint.Npy;
import jmoe.checkpoint.Safetensors;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.Stream;

/** Shows what a file or a checkpoint holds. */
@Command(
        name = "inspect",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "Show the tensors of a file, or the tensors and MoE layers of a checkpoint.",
        footer = {
            "",
            "Tensors whose names differ in numbers only are shown as one line: {0..63}",
            "stands for 64 of them. A broken file gives one line and exit status 2.",
            "",
            "Examples (in the project's folder):",
            "  jmoe inspect tests/golden/mixtral-0",
            "  jmoe inspect tests/golden/mixtral-0/cases.safetensors --json",
            "  jmoe inspect x.npy"
        })
final class Inspect implements Callable<Integer> {
    private static final int MAX_METADATA_CHARS = 50;

    private final Screen screen;

    @Parameters(
            paramLabel = "PATH",
            description = "Checkpoint folder, or a .safetensors, .npy or .npz file.")
    private Path path;

    @Option(names = "--all", description = "List every tensor on a line of its own.")
    private boolean all;

    @Option(names = "--json", description = "Report as one JSON object; lists every tensor.")
    private boolean json;

    Inspect(Screen screen) {
        this.screen = screen;
    }

    @Override
    public Integer call() {
        return Files.isDirectory(path) ? folder() : file();
    }

    private int file() {
        String name = path.toString().toLowerCase(Locale.ROOT);
        try (Arena arena = Arena.ofShared()) {
            if (name.endsWith(".npy")) {
                report("NumPy array", Map.of("", Npy.read(path, arena)), Map.of());
            } else if (name.endsWith(".npz")) {
                report("NumPy archive", Npy.readZip(path, arena), Map.of());
            } else {
                try (Safetensors file = Safetensors.open(path)) {
                    report("safetensors", file.tensors(), file.metadata());
                }
            }
        }
        return Main.OK;
    }

    private void report(String format, Map<String, Tensor> tensors, Map<String, String> metadata) {
        TensorList list = new TensorList(tensors);
        if (json) {
            Map<String, Object> object = new LinkedHashMap<>();
            object.put("path", path.toString());
            object.put("format", format);
            object.put("metadata", metadata);
            list.putJson(object);
            screen.json(object);
            return;
        }
        screen.line(screen.bold(path + ": " + format + ", " + list.summary()));
        if (!metadata.isEmpty()) {
            screen.heading("Metadata");
            metadata.forEach((key, value) -> screen.line("  " + key + " = " + shortened(value)));
        }
        screen.heading("Tensors");
        list.print(screen, all);
        Path parent = path.toAbsolutePath().getParent();
        if (parent != null && Files.isRegularFile(parent.resolve("config.json"))) {
            screen.line();
            screen.line("config.json lies beside it: inspect the folder to see its MoE layers");
        }
    }

    private static String shortened(String text) {
        String line = text.replaceAll("\\p{Cntrl}", " ");
        return line.length() <= MAX_METADATA_CHARS
                ? line
                : line.substring(0, MAX_METADATA_CHARS)
                        + "... ("
                        + Units.plural(line.length(), "character", "characters")
                        + ")";
    }

    private int folder() {
        try (Checkpoint checkpoint = Checkpoint.open(path)) {
            Map<String, Tensor> tensors = new LinkedHashMap<>();
            for (String name : checkpoint.names()) {
                tensors.put(name, checkpoint.tensor(name));
            }
            reportFolder(checkpoint.family(), checkpoint.layers(), new TensorList(tensors), null);
            return Main.OK;
        } catch (CheckpointException e) {
            // What can be read is still worth seeing; the reason follows as the one error line.
            reportUnknown(e);
            throw e;
        }
    }

    private void reportUnknown(CheckpointException problem) {
        List<Safetensors> open = new ArrayList<>();
        try {
            Map<String, Tensor> tensors = new LinkedHashMap<>();
            for (Path file : weightFiles()) {
                Safetensors weights = Safetensors.open(file);
                open.add(weights);
                tensors.putAll(weights.tensors());
            }
            if (!tensors.isEmpty()) {
                reportFolder(null, List.of(), new TensorList(tensors), problem.getMessage());
            }
        } catch (CheckpointException e) {
            // A damaged file among them: its tensors are not known either.
            return;
        } finally {
            open.forEach(Safetensors::close);
        }
    }

    private List<Path> weightFiles() {
        Path single = path.resolve("model.safetensors");
        if (Files.isRegularFile(single)) {
            return List.of(single);
        }
        try (Stream<Path> entries = Files.list(path)) {
            return entries.filter(entry -> entry.toString().endsWith(".safetensors"))
                    .sorted()
                    .toList();
        } catch (IOException e) {
            throw new CheckpointException(path + ": cannot be read: " + e.getMessage(), e);
        }
    }

    private void reportFolder(
            @Nullable String family,
            List<MoeLayerInfo> layers,
            TensorList list,
            @Nullable String problem) {
        if (json) {
            Map<String, Object> object = new LinkedHashMap<>();
            object.put("path", path.toString());
            object.put("format", "checkpoint");
            object.put("family", family);
            object.put("error", problem);
            object.put("moe_layers", MoeLayerList.json(layers));
            list.putJson(object);
            screen.json(object);
            return;
        }
        String title = family == null ? "checkpoint" : family + " checkpoint";
        screen.line(screen.bold(path + ": " + title + ", " + list.summary()));
        screen.heading("Tensors");
        list.print(screen, all);
        if (!layers.isEmpty()) {
            screen.heading("MoE layers");
            MoeLayerList.print(screen, layers);
        }
    }
}
