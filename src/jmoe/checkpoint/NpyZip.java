package jmoe.checkpoint;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.tensor.Tensor;

import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.Collections;
import java.util.Enumeration;
import java.util.LinkedHashMap;
import java.util.SequencedMap;
import java.util.SequencedSet;
import java.util.zip.CRC32;
import java.util.zip.CheckedInputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/** An open archive of NumPy arrays. */
final class NpyZip implements AutoCloseable {
    private static final String SUFFIX = ".npy";

    /** Deflate never expands a byte to more; larger claims are lies and are not allocated. */
    private static final long MAX_EXPANSION = 1032;

    private static final int BUFFER_BYTES = 1 << 16;

    private final Path file;
    private final ZipFile zip;
    private final SequencedMap<String, ZipEntry> entries = new LinkedHashMap<>();

    private NpyZip(Path file, ZipFile zip) {
        this.file = file;
        this.zip = zip;
        Enumeration<? extends ZipEntry> all = zip.entries();
        while (all.hasMoreElements()) {
            ZipEntry entry = all.nextElement();
            String name = entry.getName();
            if (!name.endsWith(SUFFIX)) {
                throw new CheckpointException(
                        file + ": entry " + CheckpointException.quoted(name) + " is not an .npy");
            }
            String array = name.substring(0, name.length() - SUFFIX.length());
            if (entries.put(array, entry) != null) {
                throw new CheckpointException(
                        file + ": array " + CheckpointException.quoted(array) + " exists twice");
            }
        }
    }

    /** Opens and lists; reads no array. */
    static NpyZip open(Path file) {
        MappedFile.checkRegular(file);
        try {
            ZipFile zip = new ZipFile(file.toFile());
            try {
                return new NpyZip(file, zip);
            } catch (RuntimeException e) {
                zip.close();
                throw e;
            }
        } catch (IOException e) {
            throw new CheckpointException(
                    file + ": cannot be read as a zip archive: " + MappedFile.reason(e), e);
        }
    }

    /** Array names in the order of the archive. */
    SequencedSet<String> names() {
        return Collections.unmodifiableSequencedSet(entries.sequencedKeySet());
    }

    /** Copies one array into the arena. */
    Tensor tensor(String name, Arena arena) {
        ZipEntry entry = entries.get(name);
        if (entry == null) {
            throw new IllegalArgumentException(
                    "name: no array " + CheckpointException.quoted(name));
        }
        String where = file + ": array " + CheckpointException.quoted(name);
        CRC32 sum = new CRC32();
        try (InputStream in =
                new CheckedInputStream(new BufferedInputStream(zip.getInputStream(entry)), sum)) {
            NpyHeader header = NpyHeader.read(where, in);
            header.checkDataBytes(where, entry.getSize() - header.dataOffset());
            checkExpansion(where, entry);
            Tensor tensor = tensor(where, header, in, arena);
            if (in.read() >= 0 || sum.getValue() != entry.getCrc()) {
                throw new CheckpointException(
                        where + ": differs from its length or checksum; the file is damaged");
            }
            return tensor;
        } catch (IOException e) {
            throw new CheckpointException(where + ": cannot be read: " + MappedFile.reason(e), e);
        }
    }

    private void checkExpansion(String where, ZipEntry entry) {
        long compressedBytes = Math.min(entry.getCompressedSize(), file.toFile().length());
        if (entry.getSize() / MAX_EXPANSION > compressedBytes) {
            throw new CheckpointException(
                    where
                            + ": "
                            + compressedBytes
                            + " compressed bytes cannot hold "
                            + entry.getSize());
        }
    }

    private static Tensor tensor(String where, NpyHeader header, InputStream in, Arena arena)
            throws IOException {
        if (header.isDense()) {
            Tensor tensor = Tensor.allocate(arena, header.dtype(), header.shape());
            fill(where, in, tensor.data());
            return tensor;
        }
        try (Arena reading = Arena.ofConfined()) {
            MemorySegment data = reading.allocate(header.dataBytes(), Tensor.ALIGNMENT_BYTES);
            fill(where, in, data);
            return Npy.converted(header, data, arena);
        }
    }

    private static void fill(String where, InputStream in, MemorySegment data) throws IOException {
        byte[] buffer = new byte[BUFFER_BYTES];
        long at = 0;
        while (at < data.byteSize()) {
            int wanted = (int) Math.min(buffer.length, data.byteSize() - at);
            int got = in.readNBytes(buffer, 0, wanted);
            if (got < wanted) {
                throw new CheckpointException(
                        where + ": ends after " + (at + got) + " bytes of data");
            }
            MemorySegment.copy(buffer, 0, data, JAVA_BYTE, at, got);
            at += got;
        }
    }

    @Override
    public void close() {
        try {
            zip.close();
        } catch (IOException e) {
            throw new CheckpointException(file + ": cannot be closed: " + MappedFile.reason(e), e);
        }
    }
}
