package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Who may use whom, and the rules of the house that a machine can check. */
final class LayersTest {
    /** What Backend alone may name: implementations, and what they are made of. */
    private static final Set<String> BACKENDS =
            Set.of("reference", "vector", "cuda", "nativecpu", "threads");

    /** Packages that each package may use besides itself; "" is the root package. */
    private static final Map<String, Set<String>> ALLOWED =
            Map.ofEntries(
                    Map.entry("tensor", Set.of()),
                    Map.entry("ops", Set.of("tensor")),
                    Map.entry("threads", Set.of("tensor")),
                    Map.entry("reference", Set.of("ops", "tensor")),
                    Map.entry("vector", Set.of("ops", "tensor", "threads")),
                    Map.entry("cuda", Set.of("ops", "tensor")),
                    Map.entry("nativecpu", Set.of("ops", "tensor", "threads")),
                    Map.entry("checkpoint", Set.of("ops", "tensor")),
                    Map.entry("train", Set.of("ops", "tensor")),
                    Map.entry("store", Set.of("ops", "tensor")),
                    Map.entry("", Set.of("ops", "tensor", "checkpoint")),
                    Map.entry("parallel", Set.of("", "ops", "tensor")),
                    Map.entry("experiment", Set.of("", "ops", "tensor", "train")),
                    Map.entry(
                            "cli",
                            Set.of(
                                    "",
                                    "ops",
                                    "tensor",
                                    "checkpoint",
                                    "train",
                                    "experiment",
                                    "store",
                                    "parallel")));

    /** The machine's limits, which are measured with vectors but are no backend. */
    private static final String CEILINGS = "jmoe.vector.Ceilings";

    /** Outside names, as a pattern, and the packages that may use them. */
    private static final Map<String, Set<String>> OUTSIDE =
            Map.of(
                    "\\bjcuda\\.", Set.of("cuda"),
                    "\\bjdk\\.incubator\\.", Set.of("vector"),
                    "\\b(Linker|SymbolLookup)\\b", Set.of("cuda", "nativecpu", "parallel"),
                    "\\b(picocli|me\\.tongfei|org\\.knowm|de\\.erichseifert)\\.", Set.of("cli"),
                    "\\btools\\.jackson\\.", Set.of("checkpoint", "cli"),
                    "\\bcom\\.fasterxml\\.", Set.of());

    private static final Pattern QUALIFIED =
            Pattern.compile("\\bjmoe\\.(?:([a-z][a-z0-9]*)\\.)?([A-Z]\\w*|\\*)");
    private static final Pattern COMMENT_OR_STRING =
            Pattern.compile(
                    "/\\*.*?\\*/|//[^\\n]*|\"\"\".*?\"\"\"|'(?:\\\\.|[^'\\\\])'|\"(?:\\\\.|[^\"\\\\\\n])*\"",
                    Pattern.DOTALL);

    @Test
    void packages_useOnlyLayersBelow() throws IOException {
        List<String> broken = new ArrayList<>();
        for (Path file : SourceFiles.below(Path.of("src"))) {
            String from = layer(file);
            Set<String> allowed = ALLOWED.get(from);
            if (allowed == null) {
                broken.add(file + ": package jmoe." + from + " has no place in the layers");
                continue;
            }
            String code = code(file);
            if (from.equals("cli")) {
                code = code.replaceAll("\\b" + Pattern.quote(CEILINGS) + "\\b", " ");
            }
            for (String used : usedLayers(code)) {
                boolean backend =
                        from.isEmpty() && BACKENDS.contains(used) && file.endsWith("Backend.java");
                if (!used.equals(from) && !allowed.contains(used) && !backend) {
                    broken.add(file + ": uses jmoe." + used);
                }
            }
        }
        assertThat(broken).isEmpty();
    }

    @Test
    void outsideLibraries_areUsedWhereTheyBelong() throws IOException {
        List<String> broken = new ArrayList<>();
        for (Path file : SourceFiles.below(Path.of("src"))) {
            String code = code(file);
            OUTSIDE.forEach((names, layers) -> {
                Matcher matcher = Pattern.compile(names).matcher(code);
                if (!layers.contains(layer(file)) && matcher.find()) {
                    broken.add(file + ": uses " + matcher.group());
                }
            });
        }
        assertThat(broken).isEmpty();
    }

    @Test
    void names_sayWhatThingsAre() throws IOException {
        Pattern vagueType =
                Pattern.compile("(Abstract\\w*|\\w*(Impl|Utils?|Helper|Manager|Factory|Builder))");
        Set<String> vaguePackages =
                Set.of("util", "utils", "impl", "internal", "common", "helper", "misc");
        List<String> broken = new ArrayList<>();
        for (Path file : SourceFiles.all()) {
            String type = file.getFileName().toString().replace(".java", "");
            if (vagueType.matcher(type).matches()) {
                broken.add(file + ": name says nothing");
            }
            for (Path folder : file.getParent()) {
                if (vaguePackages.contains(folder.toString())) {
                    broken.add(file + ": package says nothing");
                }
            }
            Matcher nested =
                    Pattern.compile("\\b(?:class|interface|record|enum) (\\w+)")
                            .matcher(code(file));
            while (nested.find()) {
                if (vagueType.matcher(nested.group(1)).matches()) {
                    broken.add(file + ": type " + nested.group(1) + " says nothing");
                }
            }
        }
        assertThat(broken).isEmpty();
    }

    @Test
    void files_areShortAndFinished() throws IOException {
        Pattern unfinished = Pattern.compile("\\b(TO" + "DO|FIX" + "ME|X" + "XX)\\b");
        List<String> broken = new ArrayList<>();
        for (Path file : SourceFiles.all()) {
            List<String> lines = Files.readAllLines(file);
            if (lines.size() > 600) {
                broken.add(file + ": " + lines.size() + " lines, at most 600");
            }
            for (int i = 0; i < lines.size(); i++) {
                if (unfinished.matcher(lines.get(i)).find()) {
                    broken.add(file + ":" + (i + 1) + ": unfinished");
                }
            }
        }
        assertThat(broken).isEmpty();
    }

    @Test
    void packages_areNullMarked() throws IOException {
        Set<String> broken = new TreeSet<>();
        for (Path file : SourceFiles.below(Path.of("src"))) {
            Path description = file.resolveSibling("package-info.java");
            if (!Files.exists(description)
                    || !Files.readString(description).contains("@NullMarked")) {
                broken.add(description + ": missing or without @NullMarked");
            }
        }
        assertThat(broken).isEmpty();
    }

    /** The checks above find what they look for. */
    @Test
    void usedLayers_findsImportsAndQualifiedNames() {
        String code = "import jmoe.ops.Kernels; import static jmoe.tensor.DType.*; jmoe.Backend b;";
        assertThat(usedLayers(code)).containsExactlyInAnyOrder("ops", "tensor", "");
        assertThat(usedLayers("package jmoe.cli; import java.util.List;")).isEmpty();
        assertThat(usedLayers("import jmoe.vector.*;")).containsExactly("vector");
    }

    private static Set<String> usedLayers(String code) {
        Set<String> layers = new TreeSet<>();
        Matcher matcher = QUALIFIED.matcher(code);
        while (matcher.find()) {
            layers.add(matcher.group(1) == null ? "" : matcher.group(1));
        }
        return layers;
    }

    /** The first package below jmoe. */
    private static String layer(Path file) {
        Path folder = Path.of("src", "jmoe").relativize(file.getParent());
        return folder.getName(0).toString();
    }

    /** Source without comments and strings: documentation may name anything. */
    private static String code(Path file) {
        try {
            return COMMENT_OR_STRING.matcher(Files.readString(file)).replaceAll(" ");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
