package jmoe.tensor;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * A view of off-heap memory as a dense row-major array. It owns nothing: whoever owns the arena or
 * the device allocation keeps it alive while the view is used. Sizes are 64-bit throughout.
 *
 * <p>A tensor has one type. Quantised weights are {@link DType#I8} codes with a second tensor for
 * the factors that make them numbers, see {@link #scaled}.
 *
 * <p>A device tensor holds an address in a zero-length segment, so that reading it on the host
 * throws instead of crashing the JVM. Views are immutable and may be shared between threads; the
 * memory follows its arena's rules.
 */
public final class Tensor {
    /** Alignment of {@link #allocate}: a cache line and the widest vector. */
    public static final long ALIGNMENT_BYTES = 64;

    private final MemorySegment data;
    private final DType dtype;
    private final long[] shape;
    private final long numElements;
    private final boolean device;

    /** Device memory at full length, which nobody but slices may see; null of a bare address. */
    private final @Nullable MemorySegment deviceMemory;

    /** A backend's own arrangement, or null if row-major. */
    private final @Nullable Layout layout;

    /** Factors of the rows of codes, or null if the elements are what they are. */
    private final @Nullable Tensor scale;

    private Tensor(MemorySegment data, DType dtype, long[] shape, long numElements) {
        this(data, dtype, shape, numElements, false, null, null, null);
    }

    private Tensor(
            MemorySegment data,
            DType dtype,
            long[] shape,
            long numElements,
            boolean device,
            @Nullable MemorySegment deviceMemory,
            @Nullable Layout layout,
            @Nullable Tensor scale) {
        this.data = data;
        this.dtype = dtype;
        this.shape = shape;
        this.numElements = numElements;
        this.device = device;
        this.deviceMemory = deviceMemory;
        this.layout = layout;
        this.scale = scale;
    }

    /**
     * Views host memory.
     *
     * @param data off-heap memory of at least the tensor's bytes; any alignment
     * @param dtype element type
     * @param shape dimensions, outermost first; none for a scalar
     * @return a view of the first bytes of {@code data}
     * @throws IllegalArgumentException if the segment is on the heap or too small, or the shape is
     *     invalid
     */
    public static Tensor of(MemorySegment data, DType dtype, long... shape) {
        long elements = count(shape);
        long bytes = numBytes(dtype, elements, shape);
        if (!data.isNative()) {
            throw new IllegalArgumentException(
                    "data: expected off-heap memory, got a heap array; allocate it from an Arena or"
                            + " copy it there");
        }
        requireRoom(data, bytes, dtype, shape);
        MemorySegment exact = data.byteSize() == bytes ? data : data.asSlice(0, bytes);
        return new Tensor(exact, dtype, shape.clone(), elements);
    }

    private static void requireRoom(MemorySegment data, long bytes, DType dtype, long[] shape) {
        if (data.byteSize() < bytes) {
            throw new IllegalArgumentException(
                    "data: expected at least "
                            + bytes
                            + " bytes for "
                            + describe(dtype, shape)
                            + ", got "
                            + data.byteSize());
        }
    }

    /**
     * Views device memory that an arena owns.
     *
     * @param data device memory at full length, which must not be read on the host
     * @param dtype element type
     * @param shape dimensions, outermost first
     * @return a view that the host cannot read, and that is closed with the arena
     * @throws IllegalArgumentException if the segment is too small or the shape is invalid
     */
    public static Tensor device(MemorySegment data, DType dtype, long... shape) {
        long elements = count(shape);
        requireRoom(data, numBytes(dtype, elements, shape), dtype, shape);
        return new Tensor(
                data.asSlice(0, 0), dtype, shape.clone(), elements, true, data, null, null);
    }

    /**
     * Views device memory that is owned elsewhere.
     *
     * @param address device address
     * @param dtype element type
     * @param shape dimensions, outermost first
     * @return a view that the host cannot read
     */
    public static Tensor device(long address, DType dtype, long... shape) {
        long elements = count(shape);
        numBytes(dtype, elements, shape);
        MemorySegment data = MemorySegment.ofAddress(address);
        return new Tensor(data, dtype, shape.clone(), elements, true, null, null, null);
    }

    /**
     * Views elements that a backend arranged for itself.
     *
     * @param layout the arrangement, with its memory
     * @param dtype type of the elements before they were arranged
     * @param shape dimensions, outermost first
     * @return a view without readable elements, which cannot be sliced or reshaped
     */
    public static Tensor prepared(Layout layout, DType dtype, long... shape) {
        long elements = count(shape);
        numBytes(dtype, elements, shape);
        MemorySegment none = layout.memory().asSlice(0, 0);
        return new Tensor(none, dtype, shape.clone(), elements, false, null, layout, null);
    }

    /**
     * Views codes as the numbers they stand for: {@code scale[row] * code}, with a factor for each
     * row of the last dimension. Of a weight that is one for each output.
     *
     * @param codes I8 [.., inputs], row-major or {@link #prepared}
     * @param scale F32 [..], the shape without the last dimension, row-major; on a device if the
     *     codes are
     * @return a view of both, whose type is I8 and whose {@link #data} are the codes
     * @throws IllegalArgumentException if the types or shapes are others, or the codes have a scale
     * @see Quantisation
     */
    public static Tensor scaled(Tensor codes, Tensor scale) {
        if (codes.dtype != DType.I8 || codes.rank() == 0 || codes.scale != null) {
            throw Check.mismatch("codes", "I8 of at least one dimension", codes);
        }
        long[] rows = Arrays.copyOf(codes.shape, codes.rank() - 1);
        if (scale.dtype != DType.F32 || !Arrays.equals(scale.shape, rows)) {
            throw Check.mismatch("scale", describe(DType.F32, rows) + ", one per row", scale);
        }
        Check.rowMajor("scale", scale);
        if (scale.device != codes.device) {
            throw new IllegalArgumentException(
                    "scale: expected memory on the same side as the codes, "
                            + codes
                            + ", got "
                            + scale);
        }
        return new Tensor(
                codes.data,
                codes.dtype,
                codes.shape,
                codes.numElements,
                codes.device,
                codes.deviceMemory,
                codes.layout,
                scale);
    }

    /**
     * Allocates zeroed memory, aligned to {@link #ALIGNMENT_BYTES}.
     *
     * @param arena owner of the memory
     * @param dtype element type
     * @param shape dimensions, outermost first
     * @return a view of all of it
     */
    public static Tensor allocate(Arena arena, DType dtype, long... shape) {
        long bytes = numBytes(dtype, count(shape), shape);
        return of(arena.allocate(bytes, ALIGNMENT_BYTES), dtype, shape);
    }

    private static long count(long[] shape) {
        long elements = 1;
        boolean empty = false;
        for (long dim : shape) {
            if (dim < 0) {
                throw new IllegalArgumentException(
                        "shape: expected dimensions >= 0, got " + Arrays.toString(shape));
            }
            empty |= dim == 0;
        }
        for (long dim : shape) {
            if (Math.multiplyHigh(elements, dim) != 0 || elements * dim < 0) {
                if (empty) {
                    return 0;
                }
                throw new IllegalArgumentException(
                        "shape: " + Arrays.toString(shape) + " has more than 2^63 - 1 elements");
            }
            elements *= dim;
        }
        return elements;
    }

    private static long numBytes(DType dtype, long elements, long[] shape) {
        if (dtype.blockElements() > 1
                && (shape.length == 0 || shape[shape.length - 1] % dtype.blockElements() != 0)) {
            throw new IllegalArgumentException(
                    "shape: expected a last dimension in whole blocks of "
                            + dtype.blockElements()
                            + " for "
                            + dtype
                            + ", got "
                            + Arrays.toString(shape));
        }
        return dtype.numBytes(elements);
    }

    /**
     * The memory.
     *
     * @return exactly {@link #numBytes} bytes; zero-length for a device or prepared tensor
     */
    public MemorySegment data() {
        return data;
    }

    /**
     * Element type.
     *
     * @return the type
     */
    public DType dtype() {
        return dtype;
    }

    /**
     * Dimensions.
     *
     * @return a copy, outermost first
     */
    public long[] shape() {
        return shape.clone();
    }

    /**
     * Number of dimensions.
     *
     * @return 0 for a scalar
     */
    public int rank() {
        return shape.length;
    }

    /**
     * One dimension.
     *
     * @param axis 0 is the outermost
     * @return its length
     */
    public long dim(int axis) {
        return shape[axis];
    }

    /**
     * Product of the dimensions.
     *
     * @return elements, 1 for a scalar
     */
    public long numElements() {
        return numElements;
    }

    /**
     * Bytes of all elements.
     *
     * @return bytes, also of a device tensor; without those of a scale
     */
    public long numBytes() {
        return dtype.numBytes(numElements);
    }

    /**
     * Whether the memory is on a device.
     *
     * @return true if only a device backend can use it
     */
    public boolean isDevice() {
        return device;
    }

    /**
     * The arrangement of a tensor that a backend prepared.
     *
     * @return null if the elements are in row-major order
     */
    public @Nullable Layout layout() {
        return layout;
    }

    /**
     * The factors of {@link #scaled} codes.
     *
     * @return F32, the shape without the last dimension; null if there are none
     */
    public @Nullable Tensor scale() {
        return scale;
    }

    /**
     * Copies the elements, and the scale if there is one.
     *
     * @param arena owner of the copy
     * @return a row-major host tensor
     */
    public Tensor copy(Arena arena) {
        requireRowMajor("copy");
        Tensor copy = allocate(arena, dtype, shape);
        copy.data.copyFrom(data);
        return scale == null ? copy : scaled(copy, scale.copy(arena));
    }

    private void requireRowMajor(String method) {
        if (layout != null) {
            throw new UnsupportedOperationException(
                    method
                            + ": expected row-major elements, got "
                            + this
                            + "; use the tensor that it was prepared from");
        }
    }

    /**
     * Views consecutive entries of the first dimension, with their scale if there is one.
     *
     * @param from first entry
     * @param entries number of entries
     * @return a view of shape [entries, rest...]
     * @throws IndexOutOfBoundsException if the range does not lie in the first dimension
     */
    public Tensor slice(long from, long entries) {
        requireRowMajor("slice");
        if (from < 0 || entries < 0 || from > shape[0] - entries) {
            throw new IndexOutOfBoundsException(
                    "slice: entries " + from + " to " + (from + entries) + " of " + describe());
        }
        if (scale != null) {
            Tensor entryScale = rank() == 1 ? scale : scale.slice(from, entries);
            return scaled(entries(from, entries), entryScale);
        }
        return entries(from, entries);
    }

    private Tensor entries(long from, long entries) {
        long[] sliced = shape.clone();
        sliced[0] = entries;
        long entryElements = shape[0] == 0 ? 0 : numElements / shape[0];
        long offsetBytes = dtype.numBytes(from * entryElements);
        long elements = entries * entryElements;
        long bytes = dtype.numBytes(elements);
        if (!device) {
            return new Tensor(data.asSlice(offsetBytes, bytes), dtype, sliced, elements);
        }
        if (deviceMemory != null) {
            return device(deviceMemory.asSlice(offsetBytes, bytes), dtype, sliced);
        }
        return device(data.address() + offsetBytes, dtype, sliced);
    }

    /**
     * Views one entry of the first dimension.
     *
     * @param index entry
     * @return a view without the first dimension
     */
    public Tensor row(long index) {
        return slice(index, 1).reshape(Arrays.copyOfRange(shape, 1, shape.length));
    }

    /**
     * Views the same elements in another shape.
     *
     * @param newShape dimensions with the same product, and the same last one if there is a scale
     * @return a view of the same memory
     * @throws IllegalArgumentException if the number of elements differs, or rows with a scale are
     *     cut
     */
    public Tensor reshape(long... newShape) {
        requireRowMajor("reshape");
        long elements = count(newShape);
        if (elements != numElements) {
            throw new IllegalArgumentException(
                    "reshape: expected "
                            + numElements
                            + " elements as in "
                            + describe()
                            + ", got "
                            + Arrays.toString(newShape));
        }
        numBytes(dtype, elements, newShape);
        Tensor view =
                new Tensor(
                        data, dtype, newShape.clone(), elements, device, deviceMemory, null, null);
        return scale == null ? view : scaled(view, scale.reshape(rowsOf(newShape)));
    }

    /** The dimensions that count rows, if these have the length that they have here. */
    private long[] rowsOf(long[] newShape) {
        int last = newShape.length - 1;
        if (last < 0 || newShape[last] != dim(rank() - 1)) {
            throw new IllegalArgumentException(
                    "reshape: expected rows of "
                            + dim(rank() - 1)
                            + " as in "
                            + describe()
                            + ", each of which has one scale, got "
                            + Arrays.toString(newShape));
        }
        return Arrays.copyOf(newShape, last);
    }

    /**
     * Reads a number: a floating-point element, or a code times its scale.
     *
     * @param index position in row-major order
     * @return its value, exactly
     */
    public double getDouble(long index) {
        if (scale == null) {
            return Floats.get(data, dtype, index);
        }
        return scale.getDouble(index / shape[shape.length - 1]) * data.get(JAVA_BYTE, index);
    }

    /**
     * Reads a number: a floating-point element, or a code times its scale.
     *
     * @param index position in row-major order
     * @return its value; F64 and what has a scale are rounded
     */
    public float getFloat(long index) {
        return (float) getDouble(index);
    }

    /**
     * Rounds a number to the type and stores it; not where there is a scale.
     *
     * @param index position in row-major order
     * @param value the number
     */
    public void setDouble(long index, double value) {
        Floats.set(data, dtype, index, value);
    }

    /**
     * Reads an integer element.
     *
     * @param index position in row-major order
     * @return its value; unsigned types are zero-extended, codes are without their scale
     */
    public long getLong(long index) {
        return Floats.getInteger(data, dtype, index);
    }

    /**
     * Reads an I32 element.
     *
     * @param index position in row-major order
     * @return its value
     */
    public int getInt(long index) {
        return data.get(JAVA_INT_UNALIGNED, index * 4);
    }

    /**
     * Stores an I32 element.
     *
     * @param index position in row-major order
     * @param value the number
     */
    public void setInt(long index, int value) {
        data.set(JAVA_INT_UNALIGNED, index * 4, value);
    }

    /**
     * Type and shape for messages.
     *
     * @return for example {@code F32 [7, 44]} or {@code scaled I8 [7, 44]}
     */
    public String describe() {
        return (scale == null ? "" : "scaled ") + describe(dtype, shape);
    }

    private static String describe(DType dtype, long[] shape) {
        return dtype + " " + Arrays.toString(shape);
    }

    @Override
    public String toString() {
        return describe()
                + (device ? " on device" : "")
                + (layout == null ? "" : " in " + layout.describe());
    }
}
