package jmoe.checkpoint;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import jmoe.tensor.Tensor;

import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.SequencedMap;

/**
 * NumPy arrays: {@code .npy} in formats 1.0, 2.0 and 3.0 and archives of them, {@code .npz}, stored
 * or deflated (<a
 * href="https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html">numpy.lib.format</a>).
 *
 * <p>Types f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 become the {@link jmoe.tensor.DType} of that name, b1
 * becomes BOOL; complex, text, objects, dates and structures are refused. Big-endian elements and
 * Fortran order are converted to little-endian and row-major.
 */
public final class Npy {
    private Npy() {}

    /**
     * Reads one array. A little-endian array in C order is mapped read-only, anything else copied.
     *
     * @param file a .npy file
     * @param arena owner of the mapping or the copy
     * @return the array
     * @throws CheckpointException if the file cannot be read or is not a supported array
     */
    public static Tensor read(Path file, Arena arena) {
        MappedFile.checkRegular(file);
        NpyHeader header;
        try (InputStream in = new BufferedInputStream(Files.newInputStream(file))) {
            header = NpyHeader.read(file.toString(), in);
        } catch (IOException e) {
            throw new CheckpointException(file + ": cannot be read: " + MappedFile.reason(e), e);
        }
        if (header.isDense()) {
            return Tensor.of(
                    data(MappedFile.open(file, arena), header), header.dtype(), header.shape());
        }
        try (Arena reading = Arena.ofConfined()) {
            MappedFile mapped = MappedFile.open(file, reading);
            MemorySegment data = data(mapped, header);
            return mapped.guarded(() -> converted(header, data, arena));
        }
    }

    private static MemorySegment data(MappedFile mapped, NpyHeader header) {
        long bytes = mapped.numBytes() - header.dataOffset();
        header.checkDataBytes(mapped.path().toString(), bytes);
        return mapped.data().asSlice(header.dataOffset());
    }

    /**
     * Reads all arrays of an archive into memory.
     *
     * @param file a .npz file
     * @param arena owner of the copies
     * @return the arrays by name, without the suffix .npy, in the order of the archive
     * @throws CheckpointException if the file cannot be read or holds anything but supported arrays
     */
    public static SequencedMap<String, Tensor> readZip(Path file, Arena arena) {
        try (NpyZip zip = NpyZip.open(file)) {
            SequencedMap<String, Tensor> tensors = new LinkedHashMap<>();
            for (String name : zip.names()) {
                tensors.put(name, zip.tensor(name, arena));
            }
            return tensors;
        }
    }

    /** A row-major little-endian copy. */
    static Tensor converted(NpyHeader header, MemorySegment data, Arena arena) {
        Tensor tensor = Tensor.allocate(arena, header.dtype(), header.shape());
        long[] shape = header.shape();
        long[] strides = strides(shape, header.fortranOrder());
        long[] index = new long[shape.length];
        MemorySegment to = tensor.data();
        int elementBytes = header.dtype().blockBytes();
        boolean swapped = header.bigEndian();
        long from = 0;
        for (long i = 0; i < tensor.numElements(); i++) {
            copyElement(data, from, to, i, elementBytes, swapped);
            for (int axis = shape.length - 1; axis >= 0; axis--) {
                from += strides[axis];
                if (++index[axis] < shape[axis]) {
                    break;
                }
                from -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
        return tensor;
    }

    private static long[] strides(long[] shape, boolean fortranOrder) {
        long[] strides = new long[shape.length];
        long stride = 1;
        for (int i = 0; i < shape.length; i++) {
            int axis = fortranOrder ? i : shape.length - 1 - i;
            strides[axis] = stride;
            stride *= shape[axis];
        }
        return strides;
    }

    private static void copyElement(
            MemorySegment from,
            long fromElement,
            MemorySegment to,
            long toElement,
            int elementBytes,
            boolean swapped) {
        switch (elementBytes) {
            case 1 -> to.set(JAVA_BYTE, toElement, from.get(JAVA_BYTE, fromElement));
            case 2 -> {
                short bits = from.get(JAVA_SHORT_UNALIGNED, fromElement * 2);
                to.set(
                        JAVA_SHORT_UNALIGNED,
                        toElement * 2,
                        swapped ? Short.reverseBytes(bits) : bits);
            }
            case 4 -> {
                int bits = from.get(JAVA_INT_UNALIGNED, fromElement * 4);
                to.set(
                        JAVA_INT_UNALIGNED,
                        toElement * 4,
                        swapped ? Integer.reverseBytes(bits) : bits);
            }
            default -> {
                long bits = from.get(JAVA_LONG_UNALIGNED, fromElement * 8);
                to.set(
                        JAVA_LONG_UNALIGNED,
                        toElement * 8,
                        swapped ? Long.reverseBytes(bits) : bits);
            }
        }
    }
}
