package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.io.StringWriter;
import java.lang.reflect.Constructor;
import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

import javax.tools.JavaCompiler;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/** The README's examples are compiled and run as they stand there. */
final class ReadmeTest {
    private static final Pattern EXAMPLE =
            Pattern.compile("```java\n(.*?)```\n+prints\n+```text\n(.*?)```", Pattern.DOTALL);

    @Test
    void examples_compileAndPrintWhatTheReadmeSays(@TempDir Path folder) throws Exception {
        String readme = Files.readString(Path.of("README.md"));
        Matcher examples = EXAMPLE.matcher(readme);
        int count = 0;
        while (examples.find()) {
            Path own = Files.createDirectory(folder.resolve("example" + count++));
            compile(examples.group(1), own);
            assertThat(run(own)).isEqualToIgnoringWhitespace(examples.group(2));
        }
        assertThat(count).isEqualTo(readme.split("```java\n", -1).length - 1).isPositive();
    }

    private static void compile(String example, Path folder) throws IOException {
        Path source = folder.resolve("Example.java");
        Files.writeString(source, example);
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StringWriter messages = new StringWriter();
        try (StandardJavaFileManager files = compiler.getStandardFileManager(null, null, null)) {
            boolean compiled =
                    compiler.getTask(
                                    messages,
                                    files,
                                    null,
                                    List.of("--release", "25", "-d", folder.toString()),
                                    null,
                                    files.getJavaFileObjects(source))
                            .call();
            assertThat(compiled).as(messages.toString()).isTrue();
        }
    }

    private static String run(Path folder) throws Exception {
        PrintStream stdout = System.out;
        ByteArrayOutputStream captured = new ByteArrayOutputStream();
        try (URLClassLoader loader = new URLClassLoader(new URL[] {folder.toUri().toURL()})) {
            System.setOut(new PrintStream(captured, true, StandardCharsets.UTF_8));
            Class<?> example = loader.loadClass("Example");
            Constructor<?> constructor = example.getDeclaredConstructor();
            constructor.setAccessible(true);
            Method main = example.getDeclaredMethod("main");
            main.setAccessible(true);
            main.invoke(constructor.newInstance());
        } finally {
            System.setOut(stdout);
        }
        return captured.toString(StandardCharsets.UTF_8);
    }
}
