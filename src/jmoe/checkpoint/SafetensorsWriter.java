package jmoe.checkpoint;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;
import java.util.UUID;
import java.util.stream.LongStream;

/** Writes safetensors files, whole or not at all. */
public final class SafetensorsWriter {
    /** The data begins at a multiple of this, so that a mapped tensor is aligned as allocated. */
    private static final int ALIGNMENT_BYTES = (int) Tensor.ALIGNMENT_BYTES;

    /** What one system call is given; a buffer cannot exceed 2 GiB. */
    private static final long CHUNK_BYTES = 1L << 28;

    private SafetensorsWriter() {}

    /**
     * Writes tensors into a temporary file beside the target and renames it: readers see the old
     * file or the complete new one, and a failure leaves nothing behind. Tensors of wide elements
     * come first, otherwise in the given order, so that each is aligned to its elements.
     *
     * @param file target; an existing regular file is replaced
     * @param tensors host tensors by name, of types that {@link Safetensors#isStorable} admits
     * @param metadata strings to store beside them; left out if empty
     * @throws CheckpointException if the file cannot be written
     * @throws IllegalArgumentException if a tensor or a name cannot be stored
     */
    public static void write(
            Path file, SequencedMap<String, Tensor> tensors, Map<String, String> metadata) {
        tensors.forEach(SafetensorsWriter::checkStorable);
        metadata.forEach((key, value) -> {
            checkEncodable("metadata", key);
            checkEncodable("metadata", value);
        });
        List<Map.Entry<String, Tensor>> ordered =
                tensors.entrySet().stream()
                        .sorted(Comparator.comparingInt(entry -> -elementBytes(entry.getValue())))
                        .toList();
        byte[] header = header(ordered, metadata);
        checkWritable(file);
        try {
            // A link keeps pointing to the file it names.
            Path target = Files.exists(file) ? file.toRealPath() : file.toAbsolutePath();
            Path part = partOf(target);
            try {
                writePart(part, header, ordered);
                Files.move(part, target, StandardCopyOption.ATOMIC_MOVE);
            } finally {
                Files.deleteIfExists(part);
            }
        } catch (IOException e) {
            throw unwritable(file, MappedFile.reason(e), e);
        }
    }

    /**
     * Checks what can be known before there is anything to write, so that a command fails before it
     * computes.
     *
     * @param file target of a later {@link #write}
     * @throws CheckpointException if the target or its folder cannot be written
     */
    public static void checkWritable(Path file) {
        if (Files.isDirectory(file)) {
            throw new CheckpointException(file + ": is a directory; name a file in it");
        }
        Path folder = file.toAbsolutePath().getParent();
        if (folder == null || !Files.exists(folder)) {
            throw unwritable(file, "folder " + folder + " does not exist; create it first", null);
        }
        if (!Files.isDirectory(folder)) {
            throw unwritable(file, folder + " is not a folder", null);
        }
        if (!Files.isWritable(folder)) {
            throw unwritable(file, "no permission to write in folder " + folder, null);
        }
        if (Files.exists(file)) {
            if (!Files.isRegularFile(file)) {
                throw unwritable(file, "it is not a regular file", null);
            }
            if (!Files.isWritable(file)) {
                throw unwritable(file, "it is write-protected", null);
            }
        }
        tryFolder(file);
    }

    /** Some folders, such as /proc, look writable and still take no new file. */
    private static void tryFolder(Path file) {
        try {
            Path target = Files.exists(file) ? file.toRealPath() : file.toAbsolutePath();
            Files.delete(Files.createFile(partOf(target)));
        } catch (IOException e) {
            throw unwritable(file, "its folder takes no new files: " + MappedFile.reason(e), e);
        }
    }

    private static Path partOf(Path target) {
        return target.resolveSibling(".jmoe-" + UUID.randomUUID() + ".part");
    }

    private static CheckpointException unwritable(
            Path file, String reason, @Nullable IOException cause) {
        return new CheckpointException(file + ": cannot be written: " + reason, cause);
    }

    private static void checkStorable(String name, Tensor tensor) {
        checkEncodable("tensors", name);
        if (name.equals(SafetensorsHeader.METADATA)) {
            throw new IllegalArgumentException(
                    "tensors: the format reserves the name " + CheckpointException.quoted(name));
        }
        boolean plain = !tensor.isDevice() && tensor.scale() == null;
        if (!Safetensors.isStorable(tensor.dtype()) || !plain) {
            throw new IllegalArgumentException(
                    "tensors: "
                            + CheckpointException.quoted(name)
                            + ": expected a host tensor of a safetensors type, got "
                            + tensor);
        }
    }

    private static void checkEncodable(String argument, String text) {
        if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
            throw new IllegalArgumentException(
                    argument
                            + ": half a surrogate pair in "
                            + CheckpointException.quoted(text)
                            + " cannot be encoded in UTF-8");
        }
    }

    /** Width that alignment follows: none for the packed types. */
    private static int elementBytes(Tensor tensor) {
        DType dtype = tensor.dtype();
        return dtype.blockElements() > 1 ? 1 : dtype.blockBytes();
    }

    /** Length and JSON, padded with spaces. */
    private static byte[] header(
            List<Map.Entry<String, Tensor>> tensors, Map<String, String> metadata) {
        Map<String, Object> object = new LinkedHashMap<>();
        if (!metadata.isEmpty()) {
            object.put(SafetensorsHeader.METADATA, metadata);
        }
        long offset = 0;
        for (Map.Entry<String, Tensor> entry : tensors) {
            Tensor tensor = entry.getValue();
            long end = offset + tensor.numBytes();
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("dtype", tensor.dtype().name());
            fields.put("shape", LongStream.of(tensor.shape()).boxed().toList());
            fields.put("data_offsets", List.of(offset, end));
            object.put(entry.getKey(), fields);
            offset = end;
        }
        byte[] json = Json.compact(object);
        int lengthBytes = SafetensorsHeader.LENGTH_BYTES;
        int padded = Math.ceilDiv(lengthBytes + json.length, ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
        if (padded - lengthBytes > SafetensorsHeader.MAX_HEADER_BYTES) {
            throw new IllegalArgumentException(
                    "tensors: their header has "
                            + json.length
                            + " bytes, the format allows "
                            + SafetensorsHeader.MAX_HEADER_BYTES
                            + "; write several files");
        }
        byte[] header = new byte[padded];
        ByteBuffer.wrap(header).order(ByteOrder.LITTLE_ENDIAN).putLong(padded - lengthBytes);
        System.arraycopy(json, 0, header, lengthBytes, json.length);
        Arrays.fill(header, lengthBytes + json.length, padded, (byte) ' ');
        return header;
    }

    private static void writePart(Path part, byte[] header, List<Map.Entry<String, Tensor>> tensors)
            throws IOException {
        try (FileChannel channel =
                FileChannel.open(part, StandardOpenOption.WRITE, StandardOpenOption.CREATE_NEW)) {
            writeAll(channel, ByteBuffer.wrap(header));
            for (Map.Entry<String, Tensor> entry : tensors) {
                MemorySegment data = entry.getValue().data();
                for (long at = 0; at < data.byteSize(); at += CHUNK_BYTES) {
                    long bytes = Math.min(CHUNK_BYTES, data.byteSize() - at);
                    writeAll(channel, data.asSlice(at, bytes).asByteBuffer());
                }
            }
        }
    }

    private static void writeAll(FileChannel channel, ByteBuffer buffer) throws IOException {
        while (buffer.hasRemaining()) {
            channel.write(buffer);
        }
    }
}
