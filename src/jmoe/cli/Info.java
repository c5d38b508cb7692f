package jmoe.cli;

import jmoe.Backend;
import jmoe.Backend.Unavailable;

import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;

/** Says what this machine offers and which backends can run on it. */
@Command(
        name = "info",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        sortOptions = false,
        description = "Show the JDK, the CPU and which backends can run here.",
        footer = {"", "Examples:", "  jmoe info", "  jmoe info --json"})
@SuppressWarnings("AvoidCommonTypeNames") // every command is a class of its name
final class Info implements Callable<Integer> {
    private final Screen screen;

    @Option(names = "--json", description = "Report as one JSON object.")
    private boolean json;

    Info(Screen screen) {
        this.screen = screen;
    }

    /**
     * Whether a backend can run.
     *
     * @param backend which one
     * @param reason why not; empty if it can
     * @param remedy what to do about it; empty if it can
     */
    private record Status(Backend backend, String reason, String remedy) {
        static Status of(Backend backend) {
            return backend.unavailable()
                    .map(problem -> new Status(backend, problem.reason(), problem.remedy()))
                    .orElse(new Status(backend, "", ""));
        }

        boolean available() {
            return reason.isEmpty();
        }

        Map<String, Object> json() {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("name", backend.id());
            json.put("available", available());
            if (available()) {
                json.put("description", backend.description());
                if (!backend.notes().isEmpty()) {
                    json.put("notes", backend.notes());
                }
            } else {
                json.put("reason", reason);
                json.put("remedy", remedy);
            }
            return json;
        }
    }

    @Override
    public Integer call() {
        Backend best = Backend.best();
        List<Status> statuses = new ArrayList<>();
        for (Backend backend : Backend.values()) {
            statuses.add(Status.of(backend));
        }
        if (json) {
            Map<String, Object> object = new LinkedHashMap<>();
            object.put("jmoe", Main.Version.text());
            object.putAll(Machine.json());
            object.put("backends", statuses.stream().map(Status::json).toList());
            object.put("best", best.id());
            object.put("cublas", cublasJson());
            screen.json(object);
            return Main.OK;
        }
        screen.line(screen.bold("jmoe " + Main.Version.text()));
        Machine.print(screen);
        screen.heading("Backends");
        for (Status status : statuses) {
            if (status.available()) {
                screen.field(
                        status.backend.id(),
                        "available: "
                                + detail(status.backend)
                                + (status.backend == best ? ", used by default" : ""));
                status.backend.notes().forEach(note -> screen.field("", note));
            } else {
                screen.field(status.backend.id(), "not available: " + status.reason);
                screen.field("", "remedy: " + status.remedy);
            }
        }
        Optional<Unavailable> cublas = Backend.cublasUnavailable();
        screen.heading("Optional");
        screen.field(
                "cuBLAS", cublas.map(why -> "not available: " + why.reason()).orElse("available"));
        cublas.ifPresent(why -> screen.field("", "remedy: " + why.remedy()));
        return Main.OK;
    }

    private static Map<String, Object> cublasJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        Optional<Unavailable> cublas = Backend.cublasUnavailable();
        json.put("available", cublas.isEmpty());
        cublas.ifPresent(why -> {
            json.put("reason", why.reason());
            json.put("remedy", why.remedy());
        });
        return json;
    }

    /** The description without the name, which stands before it. */
    private static String detail(Backend backend) {
        String text = backend.description();
        return text.startsWith(backend.id() + " (") && text.endsWith(")")
                ? text.substring(backend.id().length() + 2, text.length() - 1)
                : text;
    }
}
