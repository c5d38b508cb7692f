package jmoe.checkpoint;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Locale;

/**
 * One tensor named on a command line: {@code FILE} or {@code FILE:TENSOR}, where FILE is a .npy,
 * .npz or .safetensors file.
 */
public final class TensorFile {
    private static final int MAX_LISTED = 10;
    private static final List<String> SUFFIXES = List.of(".npy", ".npz", ".safetensors");

    /**
     * A specification taken apart.
     *
     * @param file the file
     * @param tensor name of the tensor, null if none was given
     */
    public record Spec(Path file, @Nullable String tensor) {}

    private TensorFile() {}

    /**
     * Reads one tensor. The tensor's name may be left out if the file has just one; a .npy file has
     * no names. Colons in paths are fine: what exists as a file is the file.
     *
     * @param spec {@code FILE} or {@code FILE:TENSOR}
     * @param arena owner of the mapping or the copy; the tensor is valid as long as it
     * @return the tensor, possibly read-only
     * @throws CheckpointException if the file cannot be read or has no such tensor; lists those it
     *     has
     */
    public static Tensor read(String spec, Arena arena) {
        Spec parsed = parse(spec);
        Path file = parsed.file();
        String tensor = parsed.tensor();
        MappedFile.checkRegular(file);
        return switch (suffix(file)) {
            case ".npy" -> {
                if (tensor != null) {
                    throw new CheckpointException(
                            file
                                    + ": a .npy file has one array and no names; leave out ':"
                                    + CheckpointException.oneLine(tensor)
                                    + "'");
                }
                yield Npy.read(file, arena);
            }
            case ".npz" -> {
                try (NpyZip zip = NpyZip.open(file)) {
                    yield zip.tensor(chosen(file, tensor, zip.names()), arena);
                }
            }
            case ".safetensors" -> {
                Safetensors open = Safetensors.open(file, arena);
                yield open.tensor(chosen(file, tensor, open.names()));
            }
            default ->
                    throw new CheckpointException(
                            file + ": expected a .npy, .npz or .safetensors file");
        };
    }

    /**
     * Takes a specification apart, at the last colon whose left side is a file; reads nothing.
     *
     * @param spec {@code FILE} or {@code FILE:TENSOR}
     * @return file and tensor
     * @throws CheckpointException if it cannot be a path
     */
    public static Spec parse(String spec) {
        try {
            return split(spec);
        } catch (InvalidPathException e) {
            throw new CheckpointException(
                    CheckpointException.quoted(spec) + ": is not a path: " + e.getReason(), e);
        }
    }

    private static Spec split(String spec) {
        if (Files.exists(Path.of(spec))) {
            return new Spec(Path.of(spec), null);
        }
        for (int colon = spec.lastIndexOf(':');
                colon > 0;
                colon = spec.lastIndexOf(':', colon - 1)) {
            Path file = Path.of(spec.substring(0, colon));
            if (Files.isRegularFile(file)) {
                return new Spec(file, spec.substring(colon + 1));
            }
        }
        // Nothing exists: name the file that was meant.
        for (int colon = spec.indexOf(':'); colon > 0; colon = spec.indexOf(':', colon + 1)) {
            Path file = Path.of(spec.substring(0, colon));
            if (!suffix(file).isEmpty()) {
                return new Spec(file, spec.substring(colon + 1));
            }
        }
        return new Spec(Path.of(spec), null);
    }

    private static String suffix(Path file) {
        String name = file.toString().toLowerCase(Locale.ROOT);
        return SUFFIXES.stream().filter(name::endsWith).findFirst().orElse("");
    }

    private static String chosen(Path file, @Nullable String tensor, Collection<String> names) {
        if (tensor == null) {
            if (names.size() == 1) {
                return names.iterator().next();
            }
            throw new CheckpointException(
                    file
                            + ": has "
                            + names.size()
                            + " tensors; name one as FILE:TENSOR"
                            + listed(names));
        }
        if (!names.contains(tensor)) {
            throw new CheckpointException(
                    file
                            + ": has no tensor "
                            + CheckpointException.quoted(tensor)
                            + (names.isEmpty() ? "; it has none" : "; it has" + listed(names)));
        }
        return tensor;
    }

    private static String listed(Collection<String> names) {
        if (names.isEmpty()) {
            return "";
        }
        String first =
                String.join(
                        ", ",
                        names.stream()
                                .limit(MAX_LISTED)
                                .map(CheckpointException::oneLine)
                                .toList());
        int more = names.size() - MAX_LISTED;
        return ": " + first + (more > 0 ? " and " + more + " more" : "");
    }
}
