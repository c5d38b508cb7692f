package jmoe;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.googlejavaformat.java.Formatter;
import com.google.googlejavaformat.java.FormatterException;
import com.google.googlejavaformat.java.JavaFormatterOptions;

import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Every source file is what google-java-format makes of it. */
final class FormatTest {
    private static final String COMMAND = "mvn test -Dtest=FormatTest -Djmoe.format=write";

    @Test
    void sources_areFormatted() throws IOException, FormatterException {
        boolean write = "write".equals(System.getProperty("jmoe.format"));
        Formatter formatter =
                new Formatter(
                        JavaFormatterOptions.builder()
                                .style(JavaFormatterOptions.Style.AOSP)
                                .build());
        List<Path> differing = new ArrayList<>();
        for (Path file : SourceFiles.all()) {
            String source = Files.readString(file);
            String formatted = formatter.formatSourceAndFixImports(source);
            if (!formatted.equals(source)) {
                if (write) {
                    Files.writeString(file, formatted);
                } else {
                    differing.add(file);
                }
            }
        }
        assertThat(differing).as("files to format: run %s", COMMAND).isEmpty();
    }
}
