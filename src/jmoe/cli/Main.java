package jmoe.cli;

import jmoe.checkpoint.CheckpointException;

import org.jspecify.annotations.Nullable;

import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;
import picocli.CommandLine.UnmatchedArgumentException;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.UncheckedIOException;
import java.util.concurrent.Callable;
import java.util.logging.Level;
import java.util.logging.Logger;

/** The {@code jmoe} command. */
@Command(
        name = "jmoe",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Mixture-of-Experts layers for the JVM.",
        synopsisSubcommandLabel = "COMMAND",
        footer = {
            "",
            "Examples:",
            "  jmoe demo",
            "  jmoe inspect tests/golden/mixtral-0",
            "  jmoe run tests/golden/mixtral-0 --check \\",
            "      --input tests/golden/mixtral-0/cases.safetensors:t33.x",
            "  jmoe --emulate verify --backend cuda",
            "",
            "With --emulate before the command, the backend cuda runs its kernels on an",
            "emulated driver, on the CPU: to try and to test them, slowly, without a GPU.",
            "",
            "Exit status: 0 done, 1 a comparison is out of tolerance, 2 wrong usage, a",
            "broken file or something unsupported, 3 an error in jmoe itself."
        })
public final class Main implements Callable<Integer> {
    /** Everything went well. */
    static final int OK = 0;

    /** A comparison is out of tolerance. */
    static final int OUT_OF_TOLERANCE = 1;

    /** Wrong usage, bad file or not supported: the user can mend it. */
    static final int REFUSED = 2;

    /** An error of this program. */
    static final int INTERNAL_ERROR = 3;

    private static final String COMMANDS =
            "commands: run, route, bench, presets, experiment, demo, info, inspect, verify,"
                    + " bundle";

    /** Enough for Java to compile what a small layer runs. */
    private static final long WARM_UP_NANOS = 1_000_000_000L;

    @Spec private CommandSpec spec;

    private Main() {}

    /** The version in the jar's manifest. */
    static final class Version implements IVersionProvider {
        @Override
        public String[] getVersion() {
            return new String[] {"jmoe " + text()};
        }

        static String text() {
            String version = Main.class.getPackage().getImplementationVersion();
            return version == null ? "(not packaged)" : version;
        }
    }

    /**
     * Runs the command and ends the process with its status.
     *
     * @param args as typed
     */
    public static void main(String[] args) {
        // Reports say themselves which backend runs and why.
        Logger.getLogger("jmoe").setLevel(Level.WARNING);
        int status = run(args, Screen.ofProcess(), WARM_UP_NANOS);
        System.out.flush();
        System.err.flush();
        System.exit(status);
    }

    /**
     * Runs the command in this process.
     *
     * @param args as typed
     * @param out takes the results
     * @param err takes errors
     * @return exit status: 0 done, 1 out of tolerance, 2 refused with one line on {@code err}, 3
     *     internal error
     */
    public static int run(String[] args, PrintWriter out, PrintWriter err) {
        return run(args, Screen.plain(out, err), WARM_UP_NANOS);
    }

    /**
     * Runs the command in this process.
     *
     * @param args as typed
     * @param screen where it writes
     * @param warmUpNanos how long commands repeat a pass before they measure it
     * @return exit status
     */
    static int run(String[] args, Screen screen, long warmUpNanos) {
        CommandLine command =
                new CommandLine(new Main())
                        .addSubcommand(new Run(screen, warmUpNanos))
                        .addSubcommand(new RouteCommand(screen))
                        .addSubcommand(new Bench(screen, warmUpNanos))
                        .addSubcommand(new TryExperiment(screen))
                        .addSubcommand(new Demo(screen))
                        .addSubcommand(new Info(screen))
                        .addSubcommand(new Inspect(screen))
                        .addSubcommand(new PresetsCommand(screen))
                        .addSubcommand(new Verify(screen, warmUpNanos))
                        .addSubcommand(new Bundle(screen))
                        .setOut(screen.out())
                        .setErr(screen.err())
                        .setColorScheme(
                                CommandLine.Help.defaultColorScheme(
                                        screen.colour()
                                                ? CommandLine.Help.Ansi.ON
                                                : CommandLine.Help.Ansi.OFF))
                        .setParameterExceptionHandler((e, a) -> usage(e, screen))
                        .setExecutionExceptionHandler((e, line, parsed) -> failed(e, screen));
        int status;
        try {
            status = command.execute(args);
        } catch (Error e) {
            status = failed(e, screen);
        }
        if (screen.lost()) {
            int refused =
                    refused(
                            "cannot write the results to standard output (is the disk full?)",
                            screen);
            status = Math.max(status, refused);
        }
        screen.err().flush();
        return status;
    }

    private static int usage(ParameterException e, Screen screen) {
        String command = e.getCommandLine().getCommandSpec().qualifiedName();
        return refused(withoutStop(message(e)) + "; see " + command + " --help", screen);
    }

    private static String message(ParameterException e) {
        if (e instanceof UnmatchedArgumentException unmatched
                && e.getCommandLine().getParent() == null
                && !unmatched.getUnmatched().getFirst().startsWith("-")) {
            return "unknown command '" + unmatched.getUnmatched().getFirst() + "'; " + COMMANDS;
        }
        if (e.getArgSpec() instanceof OptionSpec option && e.getValue() != null) {
            WholeNumber number = WholeNumber.of(option.longestName());
            return number == null ? e.getMessage() : number.refusal(e.getValue());
        }
        return e.getMessage();
    }

    private static String withoutStop(String message) {
        return message.endsWith(".") ? message.substring(0, message.length() - 1) : message;
    }

    private static int failed(Throwable e, Screen screen) {
        String message = refusal(e);
        if (message != null) {
            return refused(message, screen);
        }
        screen.err()
                .println("jmoe: internal error: " + e + "; please report it with the lines below");
        e.printStackTrace(screen.err());
        return INTERNAL_ERROR;
    }

    /** What to tell the user, or null if the error is ours. */
    private static @Nullable String refusal(Throwable e) {
        return switch (e) {
            case CheckpointException broken -> broken.getMessage();
            case IllegalArgumentException wrong -> wrong.getMessage();
            case UnsupportedOperationException unsupported -> unsupported.getMessage();
            case UncheckedIOException io -> io.getCause().toString();
            case IOException io -> io.toString();
            // How Java reports a page of a mapped file that is no longer there.
            case InternalError gone
                    when gone.getMessage() != null
                            && gone.getMessage().contains("unsafe memory access") ->
                    "a file changed while jmoe was reading it; run again";
            case OutOfMemoryError memory ->
                    "out of memory ("
                            + memory.getMessage()
                            + "); use a smaller input, --weights bf16, or a machine with more"
                            + " memory";
            case ExceptionInInitializerError wrapped when wrapped.getCause() != null ->
                    refusal(wrapped.getCause());
            default -> null;
        };
    }

    private static int refused(@Nullable String message, Screen screen) {
        String text = message == null ? "refused without a reason" : message;
        screen.err().println("jmoe: " + text.strip().replaceAll("\\s*\\R\\s*", " "));
        return REFUSED;
    }

    @Override
    public Integer call() {
        throw new ParameterException(spec.commandLine(), "missing command; " + COMMANDS);
    }
}
