package jmoe.cli;

import jmoe.checkpoint.CheckpointException;
import jmoe.checkpoint.Npy;
import jmoe.checkpoint.Safetensors;
import jmoe.checkpoint.TensorFile;
import jmoe.tensor.Tensor;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Reads a tensor named on the command line into memory of its own. */
final class InputTensor {
    private static final int MAX_LISTED = 10;

    private InputTensor() {}

    /**
     * Reads one tensor; nobody can take it away afterwards.
     *
     * @param spec {@code FILE[:TENSOR]}
     * @param hidden last dimension of the tensors to list first if none is named
     * @throws CheckpointException if it cannot be read, or the file shrinks meanwhile
     */
    static Tensor read(String spec, long hidden, Arena arena) {
        TensorFile.Spec parsed = TensorFile.parse(spec);
        try (Arena mapping = Arena.ofShared()) {
            long bytes = size(parsed.file());
            return copy(parsed.file(), bytes, named(spec, parsed, hidden, mapping), arena);
        }
    }

    /**
     * Copies a tensor of a mapped file.
     *
     * @param bytes length of the file when it was mapped
     */
    static Tensor copy(Path file, long bytes, Tensor stored, Arena arena) {
        Tensor copy = Tensor.allocate(arena, stored.dtype(), stored.shape());
        try {
            copy.data().copyFrom(stored.data());
        } catch (InternalError e) {
            // A page of the mapping that is no longer in the file.
            throw changed(file);
        }
        if (size(file) < bytes) {
            throw changed(file);
        }
        return copy;
    }

    private static CheckpointException changed(Path file) {
        return new CheckpointException(file + ": changed while jmoe was reading it; run again");
    }

    private static long size(Path file) {
        try {
            return Files.size(file);
        } catch (IOException e) {
            // Reading it gives the reason; a file deleted since keeps its pages.
            return 0;
        }
    }

    private static Tensor named(String spec, TensorFile.Spec parsed, long hidden, Arena arena) {
        try {
            return TensorFile.read(spec, arena);
        } catch (CheckpointException e) {
            Path file = parsed.file();
            String wanted = parsed.tensor();
            Map<String, Tensor> tensors = tensors(file, arena);
            if (tensors.size() < 2 || (wanted != null && tensors.containsKey(wanted))) {
                throw e;
            }
            String more = "; jmoe inspect " + file + " lists all";
            if (wanted != null) {
                throw new CheckpointException(misspelt(file, wanted, e) + more, e);
            }
            throw new CheckpointException(
                    file
                            + ": has "
                            + tensors.size()
                            + " tensors; name one as FILE:TENSOR, for example "
                            + listed(tensors, hidden)
                            + more,
                    e);
        }
    }

    /** The tensors of a file that may have several; none if it cannot be read. */
    private static Map<String, Tensor> tensors(Path file, Arena arena) {
        String name = file.toString().toLowerCase(Locale.ROOT);
        try {
            if (name.endsWith(".npz")) {
                return Npy.readZip(file, arena);
            }
            if (name.endsWith(".safetensors")) {
                try (Safetensors open = Safetensors.open(file)) {
                    return new LinkedHashMap<>(open.tensors());
                }
            }
        } catch (CheckpointException e) {
            // The first attempt has said why.
            return Map.of();
        }
        return Map.of();
    }

    private static String misspelt(Path file, String wanted, CheckpointException e) {
        if (!file.toString().toLowerCase(Locale.ROOT).endsWith(".safetensors")) {
            return String.valueOf(e.getMessage());
        }
        try (Safetensors open = Safetensors.open(file)) {
            open.tensor(wanted);
            return String.valueOf(e.getMessage());
        } catch (CheckpointException nearest) {
            return String.valueOf(nearest.getMessage());
        }
    }

    private static String listed(Map<String, Tensor> tensors, long hidden) {
        Stream<String> fitting = names(tensors, hidden, true);
        Stream<String> others = names(tensors, hidden, false);
        return Stream.concat(fitting, others)
                .limit(MAX_LISTED)
                .map(name -> name.replaceAll("\\p{Cntrl}", " "))
                .collect(Collectors.joining(", "));
    }

    private static Stream<String> names(Map<String, Tensor> tensors, long hidden, boolean fitting) {
        return tensors.entrySet().stream()
                .filter(entry -> fits(entry.getValue(), hidden) == fitting)
                .map(Map.Entry::getKey);
    }

    private static boolean fits(Tensor tensor, long hidden) {
        int rank = tensor.rank();
        return tensor.dtype().isFloating() && rank > 0 && tensor.dim(rank - 1) == hidden;
    }
}
