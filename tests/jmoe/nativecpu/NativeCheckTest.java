package jmoe.nativecpu;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** The check program of native/cpu/tests, which knows the library without Java. */
final class NativeCheckTest {
    private static final int LINES_PER_TIER = 13;

    @ParameterizedTest
    @EnumSource
    void products_areThoseOfPlainLoops(BuiltLibrary library) throws Exception {
        NativeLibrary opened = library.open();
        Path program = Path.of(library.path()).resolveSibling("check").resolve("products");
        Assumptions.assumeTrue(Files.exists(program), program + " was not built");
        Process process = new ProcessBuilder(program.toString()).redirectErrorStream(true).start();
        List<String> lines = process.inputReader().readAllLines();
        assertThat(process.waitFor(5, TimeUnit.MINUTES)).as("it ends").isTrue();
        assertThat(lines).allMatch(line -> line.startsWith("ok "), "ok");
        assertThat(process.exitValue()).as("%s", lines).isZero();
        assertThat(lines).hasSize(LINES_PER_TIER * opened.tier().code());
    }
}
