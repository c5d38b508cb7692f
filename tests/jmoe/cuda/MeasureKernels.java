package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.function.Consumer;
import java.util.function.IntSupplier;
import java.util.function.ObjLongConsumer;
import java.util.function.ToDoubleFunction;

/** Runs the kernels of native/measure, which time themselves, on operands made for them. */
final class MeasureKernels implements AutoCloseable {
    /** Of a row of 64 bf16: what a box of a tensor map and the swizzle have. */
    static final int ROW_BYTES = 128;

    private static final int DEPTH = ROW_BYTES / 2;
    private static final int BF16 = 9;
    private static final int SWIZZLE_128_BYTES = 3;
    private static final int PROMOTE_TO_256_BYTES = 3;

    /** Of what a block says. */
    private static final int TIMES_BYTES = 32;

    private final Probes probes = new Probes();
    private final Map<String, CudaModule> modules = new HashMap<>();

    /**
     * What a block says.
     *
     * @param cycles its multiprocessor's
     * @param nanoseconds the device's
     * @param bytes copied meanwhile, where only the kernel can tell
     * @param checksum of what was there in the end
     */
    record Times(long cycles, long nanoseconds, long bytes, long checksum) {
        double megahertz() {
            return 1000.0 * cycles / nanoseconds;
        }
    }

    /**
     * A matrix of bf16 on the device.
     *
     * @param address where
     * @param content of it; empty if nobody looks
     * @param rows how many
     * @param columns a multiple of 64
     */
    @SuppressWarnings("ArrayRecordComponent")
    record Matrix(long address, byte[] content, int rows, int columns) {
        /** Exclusive or of the words of a box of 64 columns. */
        int checksum(int row, int boxRows, int column) {
            ByteBuffer words = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN);
            int checksum = 0;
            for (int r = row; r < row + boxRows; r++) {
                for (int c = column; c < column + DEPTH; c += 2) {
                    checksum ^= words.getInt(2 * (r * columns + c));
                }
            }
            return checksum;
        }

        float at(int row, int column) {
            long bits = Words.at(content, 2, row * columns + column);
            return Float.intBitsToFloat((int) bits << 16);
        }
    }

    CudaDevice device() {
        return probes.context().device();
    }

    /** Whole numbers from -3 to 3, whose sums are exact. */
    Matrix wholeNumbers(int rows, int columns) {
        SplittableRandom random = new SplittableRandom(rows);
        return matrix(rows, columns, () -> Float.floatToRawIntBits(random.nextInt(-3, 4)) >>> 16);
    }

    /** Numbers from -1 to 1, which cost the multipliers what those of a model do. */
    Matrix random(int rows, int columns) {
        SplittableRandom random = new SplittableRandom(rows);
        return matrix(
                rows,
                columns,
                () -> Float.floatToRawIntBits((float) random.nextDouble(-1, 1)) >>> 16);
    }

    private Matrix matrix(int rows, int columns, IntSupplier bits) {
        byte[] content = new byte[2 * rows * columns];
        for (int i = 0; i < rows * columns; i++) {
            Words.set(content, 2 * i, 2, bits.getAsInt());
        }
        return new Matrix(probes.upload(content), content, rows, columns);
    }

    /** Whatever the memory holds. */
    Matrix undefined(Arena arena, int rows, int columns) {
        CudaContext context = probes.context();
        context.enter();
        try {
            long bytes = 2L * rows * columns;
            long address = context.memory().allocate(arena, bytes).address();
            return new Matrix(address, new byte[0], rows, columns);
        } finally {
            context.exit();
        }
    }

    /** Rows of 64 as wgmma reads them: with the 128-byte swizzle. */
    long image(Matrix matrix) {
        byte[] image = new byte[matrix.content().length];
        for (int row = 0; row < matrix.rows(); row++) {
            for (int piece = 0; piece < ROW_BYTES; piece += 16) {
                System.arraycopy(
                        matrix.content(),
                        row * ROW_BYTES + piece,
                        image,
                        row * ROW_BYTES + (piece ^ row % 8 * 16),
                        16);
            }
        }
        return probes.upload(image);
    }

    /** Boxes of some rows by 64 columns. */
    MemorySegment map(Matrix matrix, int boxRows) {
        Arena arena = probes.arena();
        MemorySegment map = arena.allocate(TensorMap.BYTES, TensorMap.ALIGNMENT);
        int code =
                CudaDriver.encodeTiled(
                        map,
                        BF16,
                        2,
                        matrix.address(),
                        arena.allocateFrom(JAVA_LONG, matrix.columns(), matrix.rows()),
                        arena.allocateFrom(JAVA_LONG, 2L * matrix.columns()),
                        arena.allocateFrom(JAVA_INT, DEPTH, boxRows),
                        arena.allocateFrom(JAVA_INT, 1, 1),
                        0,
                        SWIZZLE_128_BYTES,
                        PROMOTE_TO_256_BYTES,
                        0);
        probes.context().check(code, "cuTensorMapEncodeTiled");
        return map;
    }

    long output(int bytes) {
        return probes.output(bytes);
    }

    byte[] download(long address, int bytes) {
        return probes.download(address, bytes);
    }

    /**
     * Runs a kernel.
     *
     * @param file its source, without {@code .cu}
     * @param symbol its name
     * @param blocks how many
     * @param cluster how many of them make a cluster
     * @param arguments puts them in order, the address of the times too, which it is given
     * @return of each block
     */
    Times[] run(
            String file,
            String symbol,
            int blocks,
            int cluster,
            ObjLongConsumer<Launch> arguments) {
        long times = probes.upload(new byte[TIMES_BYTES * blocks]);
        launch(file, symbol, blocks, cluster, launch -> arguments.accept(launch, times));
        ByteBuffer said =
                ByteBuffer.wrap(probes.download(times, TIMES_BYTES * blocks))
                        .order(ByteOrder.LITTLE_ENDIAN);
        Times[] all = new Times[blocks];
        for (int block = 0; block < blocks; block++) {
            all[block] = new Times(said.getLong(), said.getLong(), said.getLong(), said.getLong());
        }
        return all;
    }

    private void launch(
            String file, String symbol, int blocks, int cluster, Consumer<Launch> arguments) {
        CudaContext context = probes.context();
        context.enter();
        try {
            CudaKernel kernel =
                    modules.computeIfAbsent(file, name -> context.module("measure/" + name))
                            .kernel(symbol);
            Launch launch = context.launch().of(kernel);
            arguments.accept(launch);
            if (cluster == 1) {
                launch.run(blocks);
            } else {
                launch.runCluster(blocks, 1, cluster, false);
            }
            context.stream().synchronise();
        } finally {
            context.exit();
        }
    }

    /** The median over the blocks. */
    static double median(Times[] times, ToDoubleFunction<Times> value) {
        double[] sorted = Arrays.stream(times).mapToDouble(value).sorted().toArray();
        return sorted[sorted.length / 2];
    }

    @Override
    public void close() {
        probes.close();
    }
}
