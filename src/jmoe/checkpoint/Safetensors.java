package jmoe.checkpoint;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;
import java.util.SequencedSet;
import java.util.function.Supplier;

/**
 * A safetensors file, mapped and checked in full when it is opened: the format of <a
 * href="https://github.com/huggingface/safetensors#format">huggingface/safetensors</a> with its
 * rules taken literally (no hole, no overlap, no byte left over, no duplicate name).
 *
 * <p>Tensors are read-only views of the file and valid until {@link #close}; data of any length,
 * also above 2 GiB, is read by the operating system when it is touched. May be shared between
 * threads.
 */
public final class Safetensors implements AutoCloseable {
    private static final int MAX_SUGGESTIONS = 3;

    private final Arena arena;
    private final boolean ownsArena;
    private final MappedFile file;
    private final Map<String, String> metadata;
    private final SequencedMap<String, Tensor> tensors;

    private Safetensors(Arena arena, boolean ownsArena, MappedFile file) {
        this.arena = arena;
        this.ownsArena = ownsArena;
        this.file = file;
        SafetensorsHeader header =
                file.guarded(() -> SafetensorsHeader.read(file.path(), file.data()));
        this.metadata = header.metadata();
        SequencedMap<String, Tensor> views = new LinkedHashMap<>();
        for (SafetensorsHeader.Entry entry : header.entries()) {
            views.put(
                    entry.name(),
                    Tensor.of(
                            file.data()
                                    .asSlice(
                                            header.dataOffset() + entry.begin(),
                                            entry.end() - entry.begin()),
                            entry.dtype(),
                            entry.shape()));
        }
        this.tensors = Collections.unmodifiableSequencedMap(views);
    }

    /**
     * Maps a file and checks its header; the data is not read.
     *
     * @param file a safetensors file
     * @return the open file, to be closed
     * @throws CheckpointException if the file cannot be read or violates the format
     */
    public static Safetensors open(Path file) {
        Arena arena = Arena.ofShared();
        try {
            return new Safetensors(arena, true, MappedFile.open(file, arena));
        } catch (RuntimeException | Error e) {
            arena.close();
            throw e;
        }
    }

    /** Maps into the caller's arena; {@link #close} leaves that open. */
    static Safetensors open(Path file, Arena arena) {
        return new Safetensors(arena, false, MappedFile.open(file, arena));
    }

    /**
     * Where the file was opened.
     *
     * @return the path as given
     */
    public Path path() {
        return file.path();
    }

    /**
     * Free-form strings of the header.
     *
     * @return the entries of {@code __metadata__}; empty if there are none
     */
    public Map<String, String> metadata() {
        return metadata;
    }

    /**
     * Names of the tensors.
     *
     * @return the names in the order of the data
     */
    public SequencedSet<String> names() {
        return tensors.sequencedKeySet();
    }

    /**
     * All tensors.
     *
     * @return read-only views by name, in the order of the data
     */
    public SequencedMap<String, Tensor> tensors() {
        return tensors;
    }

    /**
     * Whether the file has a tensor.
     *
     * @param name its name
     * @return true if {@link #tensor} returns it
     */
    public boolean contains(String name) {
        return tensors.containsKey(name);
    }

    /**
     * One tensor.
     *
     * @param name its name
     * @return a read-only view
     * @throws CheckpointException if the file has no such tensor; names the nearest ones
     */
    public Tensor tensor(String name) {
        Tensor tensor = tensors.get(name);
        if (tensor == null) {
            throw new CheckpointException(
                    file.path()
                            + ": has no tensor "
                            + CheckpointException.quoted(name)
                            + nearest(name));
        }
        return tensor;
    }

    private String nearest(String name) {
        List<String> nearest = NearestNames.of(name, tensors.keySet(), MAX_SUGGESTIONS);
        return nearest.isEmpty()
                ? "; it has no tensors"
                : "; nearest: "
                        + String.join(
                                ", ", nearest.stream().map(CheckpointException::quoted).toList());
    }

    /**
     * Runs code that reads this file's tensors, and reports a file that was cut meanwhile.
     *
     * @param <T> what the code returns
     * @param body reads tensors of this file
     * @return what the code returned
     * @throws CheckpointException if the file has become shorter
     */
    public <T> T guarded(Supplier<T> body) {
        return file.guarded(body);
    }

    /**
     * Runs code that reads tensors of several files, and reports a file that was cut meanwhile.
     * Reading what a mapped file no longer has raises an {@link InternalError} or, worse, yields
     * zeros; code outside of this method gets just that.
     *
     * @param <T> what the code returns
     * @param files the files it reads
     * @param body reads their tensors
     * @return what the code returned
     * @throws CheckpointException if one of the files has become shorter
     */
    public static <T> T guarded(Collection<Safetensors> files, Supplier<T> body) {
        return MappedFile.guarded(files.stream().map(open -> open.file).toList(), body);
    }

    /**
     * Whether the format can store a type: all but the block types of GGUF.
     *
     * @param dtype element type
     * @return true if a header can name it
     */
    public static boolean isStorable(DType dtype) {
        return SafetensorsHeader.isStorable(dtype);
    }

    /** Unmaps the file; its tensors throw when they are read. A second call does nothing. */
    @Override
    public void close() {
        if (ownsArena && arena.scope().isAlive()) {
            arena.close();
        }
    }
}
