package jmoe.cli;

import jmoe.checkpoint.Json;

import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;

/** Writes a folder that runs where there is nothing but a driver. */
@Command(
        name = "bundle",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "Write a folder that runs on any Linux x86-64 machine, without a JDK.",
        footer = {
            "",
            "It holds a Java runtime, jmoe with its kernels, the golden checkpoints and",
            "gpu-check, which checks and times the kernels on a GPU. Nothing but NVIDIA's",
            "driver need be installed there. Copy it as you like; it may lie anywhere.",
            "",
            "Example:",
            "  jmoe bundle /tmp/jmoe-bundle && /tmp/jmoe-bundle/bin/jmoe verify"
        })
final class Bundle implements Callable<Integer> {
    private final Screen screen;

    @Parameters(
            paramLabel = "DIR",
            description = "A new folder, an empty one, or an earlier bundle, which is replaced.")
    private Path folder = Path.of("");

    @Option(names = "--json", description = "Report as one JSON object.")
    private boolean json;

    Bundle(Screen screen) {
        this.screen = screen;
    }

    /**
     * What was put into a bundle.
     *
     * @param name a few letters
     * @param bytes of its files
     * @param content what it consists of
     */
    private record Part(String name, long bytes, String content) {
        static Part of(String name, String content, Path bundle, String... paths)
                throws IOException {
            long bytes = 0;
            for (String path : paths) {
                bytes += BundleFolder.bytes(bundle.resolve(path));
            }
            return new Part(name, bytes, content);
        }

        Map<String, Object> json() {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("name", name);
            json.put("bytes", bytes);
            json.put("content", content);
            return json;
        }
    }

    @Override
    public Integer call() throws IOException {
        BundleRuntime.jlink();
        BundleContent content = new BundleContent(Home.project());
        BundleFolder.check(folder);
        content.check();
        List<String> notes = new ArrayList<>();
        List<Part> parts;
        try (BundleFolder target = new BundleFolder(folder)) {
            parts = fill(target.content(), content, notes);
            Files.writeString(
                    target.content().resolve(BundleFolder.MARKER),
                    Json.text(json(parts, notes)) + "\n");
            target.finish();
        }
        if (json) {
            screen.json(json(parts, notes));
        } else {
            print(parts, notes);
        }
        return Main.OK;
    }

    private static List<Part> fill(Path bundle, BundleContent content, List<String> notes)
            throws IOException {
        BundleRuntime.write(bundle.resolve("runtime"));
        String program = content.copyProgram(bundle);
        String golden = content.copyGolden(bundle);
        List<Part> parts = new ArrayList<>();
        if (!BundleRuntime.strip(bundle)) {
            notes.add("larger by 5 MB than need be: there is no strip (binutils) on PATH");
        }
        parts.add(Part.of("runtime", BundleRuntime.description(), bundle, "runtime"));
        parts.add(Part.of("jmoe", program, bundle, "jmoe.jar", "lib"));
        parts.add(Part.of("golden", golden, bundle, "tests/golden"));
        if (content.hasSuite()) {
            String suite = content.copySuite(bundle);
            parts.add(
                    Part.of("tests", suite, bundle, BundleContent.SUITE, BundleContent.SUITE_LIB));
        } else {
            notes.add(
                    "no contract suite for gpu-check: the tests are not compiled; run mvn package"
                            + " -DskipTests first");
        }
        if (content.kernels() == 0) {
            notes.add(
                    "no CUDA kernels: there was no nvcc when jmoe was built; the backend cuda of"
                            + " this bundle reports: kernels not built");
        }
        return parts;
    }

    private void print(List<Part> parts, List<String> notes) {
        screen.line(screen.bold("Bundle in " + folder));
        TextTable table = new TextTable("lrl", "part", "size", "content");
        for (Part part : parts) {
            table.row(part.name(), Units.bytes(part.bytes()), part.content());
        }
        table.row("total", Units.bytes(bytes(parts)), "");
        table.print(screen);
        for (String note : notes) {
            screen.field("note", note);
        }
    }

    private Map<String, Object> json(List<Part> parts, List<String> notes) {
        Map<String, Object> object = new LinkedHashMap<>();
        object.put("jmoe", Main.Version.text());
        object.put("java", Runtime.version().toString());
        object.put("folder", folder.toString());
        object.put("parts", parts.stream().map(Part::json).toList());
        object.put("bytes", bytes(parts));
        object.put("notes", notes);
        return object;
    }

    private static long bytes(List<Part> parts) {
        return parts.stream().mapToLong(Part::bytes).sum();
    }
}
