package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import tools.jackson.databind.JsonNode;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.function.Consumer;

/** What the copy engine of sm_90 and clusters of blocks do, byte for byte. */
final class ConformanceCopyTest {
    private static final int U16 = 1;
    private static final int F32 = 7;
    private static final int NO_SWIZZLE = 0;
    private static final int ALIGNMENT = 1024;

    private static Probes probes;

    @BeforeAll
    static void open() {
        Emulator.requireDevice();
        Probes.require(Probes.HOPPER);
        probes = new Probes();
    }

    @AfterAll
    static void close() {
        ConformanceReport.write();
        if (probes != null) {
            probes.close();
        }
    }

    /**
     * A tensor on the device, innermost dimension first.
     *
     * @param address where
     * @param type a CUtensorMapDataType
     * @param elementBytes bytes of an element
     * @param dims extents
     * @param pitches bytes from one entry of a dimension to the next, of all but the first
     */
    private record Global(long address, int type, int elementBytes, long[] dims, long[] pitches) {
        /** U16 without gaps. */
        static Global dense(long address, long... dims) {
            return dense(U16, 2, address, dims);
        }

        static Global dense(int type, int elementBytes, long address, long[] dims) {
            long[] pitches = new long[dims.length - 1];
            long bytes = elementBytes;
            for (int i = 0; i < pitches.length; i++) {
                bytes *= dims[i];
                pitches[i] = bytes;
            }
            return new Global(address, type, elementBytes, dims, pitches);
        }

        MemorySegment map(int swizzle, int... box) {
            int[] steps = new int[box.length];
            Arrays.fill(steps, 1);
            MemorySegment map = probes.arena().allocate(TensorMap.BYTES, TensorMap.ALIGNMENT);
            int code =
                    CudaDriver.encodeTiled(
                            map,
                            type,
                            dims.length,
                            address,
                            probes.arena().allocateFrom(JAVA_LONG, dims),
                            probes.arena().allocateFrom(JAVA_LONG, pitches),
                            probes.arena().allocateFrom(JAVA_INT, box),
                            probes.arena().allocateFrom(JAVA_INT, steps),
                            0,
                            swizzle,
                            0,
                            0);
            probes.context().check(code, "cuTensorMapEncodeTiled");
            return map;
        }
    }

    /** Bytes that are all different from their neighbours. */
    private static byte[] random(int bytes) {
        byte[] content = new byte[bytes];
        new SplittableRandom(bytes).nextBytes(content);
        return content;
    }

    private static byte[] unwritten(int bytes) {
        byte[] content = new byte[bytes];
        Arrays.fill(content, Probes.UNWRITTEN);
        return content;
    }

    private static byte[] load(
            String symbol, MemorySegment map, int target, int boxBytes, int bytes, int... at) {
        long out = probes.output(bytes);
        probes.run(
                "probe_tma",
                symbol,
                bytes,
                1,
                1,
                launch -> {
                    launch.struct(map, TensorMap.ALIGNMENT).pointer(out);
                    launch.int32(target).int32(boxBytes).int32(bytes);
                    for (int coordinate : at) {
                        launch.int32(coordinate);
                    }
                });
        return probes.download(out, bytes);
    }

    /** Every swizzle at ten places in shared memory. */
    @Test
    void loads_swizzleAsTheTablesSay() {
        int columns = 512;
        byte[] content = random(2 * columns * 64);
        Global tensor = Global.dense(probes.upload(content), columns, 64);
        int x = 40;
        int y = 3;
        for (JsonNode one : Table.of("tma_2d").get("cases")) {
            int swizzle = swizzle(one.get("swizzle").asString());
            int inner = one.get("inner_bytes").asInt();
            int rows = one.get("rows").asInt();
            int target = one.get("dst").asInt();
            int[] chunks = Table.ints(one.get("chunk16_address"));
            int bytes = (target + rows * inner + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            byte[] expected = unwritten(bytes);
            for (int chunk = 0; chunk < chunks.length; chunk++) {
                int row = y + chunk / (inner / 16);
                int from = 2 * (row * columns + x) + chunk % (inner / 16) * 16;
                System.arraycopy(content, from, expected, chunks[chunk], 16);
            }
            byte[] got =
                    load(
                            "probe_tma_load_2d",
                            tensor.map(swizzle, inner / 2, rows),
                            target,
                            inner * rows,
                            bytes,
                            x,
                            y);
            String name = "tma_load_2d, swizzle " + swizzle + ", " + inner + " bytes at " + target;
            ConformanceReport.exact(name, 1, 16, expected, got);
        }
    }

    private static int swizzle(String name) {
        return switch (name) {
            case "SWIZZLE_NONE" -> NO_SWIZZLE;
            case "SWIZZLE_32B" -> 1;
            case "SWIZZLE_64B" -> 2;
            case "SWIZZLE_128B" -> 3;
            default -> throw new IllegalArgumentException(name);
        };
    }

    @Test
    void loads_fillWithZerosBeyondTheEdge() {
        JsonNode edge = Table.of("tma_2d").get("oob");
        int width = edge.get("tensor_w").asInt();
        int height = edge.get("tensor_h").asInt();
        int columns = edge.get("box_w").asInt();
        int rows = edge.get("box_h").asInt();
        int pitch = 144;
        byte[] content = random(pitch * height);
        Global tensor =
                new Global(
                        probes.upload(content),
                        U16,
                        2,
                        new long[] {width, height},
                        new long[] {pitch});
        for (JsonNode one : edge.get("cases")) {
            int x = one.get("x").asInt();
            int y = one.get("y").asInt();
            int first = one.get("first_valid_col").asInt();
            int[] valid = Table.ints(one.get("valid_per_row"));
            byte[] expected = new byte[2 * columns * rows];
            for (int row = 0; row < rows; row++) {
                if (valid[row] > 0) {
                    System.arraycopy(
                            content,
                            (y + row) * pitch + 2 * (x + first),
                            expected,
                            2 * (row * columns + first),
                            2 * valid[row]);
                }
            }
            int boxBytes = one.get("complete_tx_bytes").asInt();
            byte[] got =
                    load(
                            "probe_tma_load_2d",
                            tensor.map(NO_SWIZZLE, columns, rows),
                            0,
                            boxBytes,
                            expected.length,
                            x,
                            y);
            ConformanceReport.exact("tma_load_2d at " + x + ", " + y, 1, 16, expected, got);
        }
    }

    @Test
    void loads_haveOneToThreeDimensions() {
        byte[] content = random(2 * 64 * 8 * 4);
        long address = probes.upload(content);
        byte[] line =
                load(
                        "probe_tma_load_1d",
                        Global.dense(address, 2048).map(NO_SWIZZLE, 64),
                        0,
                        128,
                        128,
                        40);
        ConformanceReport.exact("tma_load_1d", 1, 16, Arrays.copyOfRange(content, 80, 208), line);
        byte[] expected = new byte[2 * 32 * 4 * 2];
        forBox(
                32,
                4,
                2,
                (offset, x, y, z) -> {
                    int from = ((z + 1) * 8 + y + 3) * 64 + x + 16;
                    System.arraycopy(content, 2 * from, expected, offset, 2);
                });
        byte[] block =
                load(
                        "probe_tma_load_3d",
                        Global.dense(address, 64, 8, 4).map(NO_SWIZZLE, 32, 4, 2),
                        0,
                        expected.length,
                        expected.length,
                        16,
                        3,
                        1);
        ConformanceReport.exact("tma_load_3d", 1, 16, expected, block);
    }

    /**
     * Matrices of rows of two kinds, all of one kind before those of the other. A box takes eight
     * rows of one kind, the eight of the other that belong to them, and so on: they lie side by
     * side in shared memory though not in the matrix. Groups of rows and columns that are not there
     * are zero, and so is the next matrix.
     */
    @Test
    void loads_takeRowsOfTwoKindsInTurn() {
        int columns = 72;
        int rows = 40;
        int matrices = 3;
        int pitch = 2 * columns;
        byte[] content = random(pitch * 2 * rows * matrices);
        Global tensor =
                new Global(
                        probes.upload(content),
                        U16,
                        2,
                        new long[] {columns, 8, 2, rows / 8, matrices},
                        new long[] {pitch, rows * pitch, 8 * pitch, 2 * rows * pitch});
        MemorySegment map = tensor.map(swizzle("SWIZZLE_128B"), 64, 8, 2, 4, 1);
        int[][] corners = {{0, 0, 0}, {0, 1, 2}, {0, 3, 1}, {64, 4, 1}, {0, -2, 0}, {0, 0, 3}};
        for (int[] corner : corners) {
            byte[] expected = new byte[64 * 128];
            for (int i = 0; i < expected.length / 2; i++) {
                int boxRow = i / 64;
                int x = corner[0] + i % 64;
                int row = (corner[1] + boxRow / 16) * 8 + boxRow % 8;
                int matrixRow = (2 * corner[2] + boxRow / 8 % 2) * rows + row;
                int to = 128 * boxRow + (i % 64 / 8 ^ boxRow % 8) * 16 + 2 * (i % 8);
                if (x < columns && row >= 0 && row < rows && corner[2] < matrices) {
                    System.arraycopy(content, matrixRow * pitch + 2 * x, expected, to, 2);
                }
            }
            byte[] got =
                    load(
                            "probe_tma_load_5d",
                            map,
                            0,
                            expected.length,
                            expected.length,
                            corner[0],
                            0,
                            0,
                            corner[1],
                            corner[2]);
            String name = "tma_load_5d at " + Arrays.toString(corner);
            ConformanceReport.exact(name, 1, 16, expected, got);
        }
        byte[] plane = new byte[128 * 8];
        for (int row = 0; row < 8; row++) {
            System.arraycopy(content, (3 * rows + 16 + row) * pitch, plane, 128 * row, 128);
        }
        Global four =
                new Global(
                        tensor.address,
                        U16,
                        2,
                        new long[] {columns, 8, rows / 8, 2 * matrices},
                        new long[] {pitch, 8 * pitch, rows * pitch});
        byte[] got =
                load(
                        "probe_tma_load_4d",
                        four.map(NO_SWIZZLE, 64, 8, 1, 1),
                        0,
                        plane.length,
                        plane.length,
                        0,
                        0,
                        2,
                        3);
        ConformanceReport.exact("tma_load_4d", 1, 16, plane, got);
    }

    /** Takes the byte offset within a box of U16, and the element's place in it. */
    private interface Element3 {
        void at(int offset, int x, int y, int z);
    }

    private static void forBox(int width, int height, int depth, Element3 element) {
        for (int i = 0; i < width * height * depth; i++) {
            element.at(2 * i, i % width, i / width % height, i / width / height);
        }
    }

    @Test
    void bulkLoads_copyBytes() {
        byte[] content = random(4096);
        long in = probes.upload(content);
        long out = probes.output(2048);
        probes.run(
                "probe_tma",
                "probe_bulk_load",
                2048,
                1,
                1,
                launch -> launch.pointer(in + 32).pointer(out).int32(48).int32(1600).int32(2048));
        byte[] expected = unwritten(2048);
        System.arraycopy(content, 32, expected, 48, 1600);
        ConformanceReport.exact("bulk_load", 1, 16, expected, probes.download(out, 2048));
    }

    private static void store(String symbol, byte[] image, MemorySegment map, int... coordinates) {
        long in = probes.upload(image);
        probes.run(
                "probe_tma",
                symbol,
                image.length,
                1,
                1,
                launch -> {
                    launch.pointer(in).struct(map, TensorMap.ALIGNMENT).int32(image.length);
                    for (int coordinate : coordinates) {
                        launch.int32(coordinate);
                    }
                });
    }

    @Test
    void stores_haveTwoToFourDimensions() {
        byte[] image = random(2 * 32 * 4 * 2);
        int bytes = 2 * 64 * 8 * 4 * 2;
        for (int rank = 2; rank <= 4; rank++) {
            long address = probes.output(bytes);
            byte[] expected = unwritten(bytes);
            int boxDepth = rank == 2 ? 1 : 2;
            int z0 = rank == 2 ? 0 : 1;
            int w0 = rank == 4 ? 1 : 0;
            forBox(
                    32,
                    4,
                    boxDepth,
                    (offset, x, y, z) -> {
                        int to = ((w0 * 4 + z + z0) * 8 + y + 3) * 64 + x + 16;
                        System.arraycopy(image, offset, expected, 2 * to, 2);
                    });
            long[] dims = Arrays.copyOf(new long[] {64, 8, 4, 2}, rank);
            int[] box = Arrays.copyOf(new int[] {32, 4, 2, 1}, rank);
            int[] at = Arrays.copyOf(new int[] {16, 3, 1, 1}, rank);
            MemorySegment map = Global.dense(address, dims).map(NO_SWIZZLE, box);
            store("probe_tma_store_" + rank + "d", image, map, at);
            ConformanceReport.exact(
                    "tma_store_" + rank + "d", 1, 16, expected, probes.download(address, bytes));
        }
    }

    @Test
    void stores_leaveOutWhatIsBeyondTheEdge() {
        byte[] image = random(2 * 32 * 8);
        int bytes = 2 * 64 * 8;
        long address = probes.output(bytes);
        byte[] expected = unwritten(bytes);
        for (int row = 3; row < 8; row++) {
            System.arraycopy(image, (row - 3) * 64, expected, row * 128 + 96, 32);
        }
        MemorySegment map = Global.dense(address, 64, 8).map(NO_SWIZZLE, 32, 8);
        store("probe_tma_store_2d", image, map, 48, 3);
        ConformanceReport.exact(
                "tma_store_2d beyond the edge", 1, 16, expected, probes.download(address, bytes));
    }

    /**
     * A box ends where a group of rows does, though the map knows nothing of groups: the second
     * dimension is so large that its end can be anywhere, and the fourth leads back to the row,
     * because addresses have 64 bits. Rows behind belong to somebody else.
     */
    @Test
    void stores_endWhereAGroupDoes() {
        int columns = 32;
        int pitch = 2 * columns;
        byte[] image = random(pitch * 8);
        int bytes = pitch * 12;
        for (int rows : new int[] {1, 5, 8}) {
            long address = probes.output(bytes);
            byte[] expected = unwritten(bytes);
            System.arraycopy(image, 0, expected, 3 * pitch, rows * pitch);
            long[] dims = {columns, 1L << 30, (1L << 31) - 65536, (1L << 31) - 65536};
            long[] pitches = {pitch, pitch, (1L << 35) - pitch};
            MemorySegment map =
                    new Global(address, U16, 2, dims, pitches).map(NO_SWIZZLE, columns, 8, 1, 1);
            store("probe_tma_store_4d", image, map, 0, (1 << 30) - rows, 3 + rows, 1 << 30);
            ConformanceReport.exact(
                    "tma_store_4d, " + rows + " rows of a group",
                    1,
                    16,
                    expected,
                    probes.download(address, bytes));
        }
    }

    @Test
    void reductions_add() {
        int[] numbers = new int[256];
        Arrays.setAll(numbers, i -> Float.floatToRawIntBits(i - 100));
        byte[] image = Words.bytes(numbers);
        long target = probes.upload(image);
        MemorySegment map =
                Global.dense(F32, 4, target, new long[] {16, 16}).map(NO_SWIZZLE, 16, 16);
        store("probe_tma_reduce_add_2d", image, map, 0, 0);
        int[] doubled = new int[256];
        Arrays.setAll(doubled, i -> Float.floatToRawIntBits(2 * (i - 100)));
        ConformanceReport.exact(
                "tma_reduce_add_2d", 4, 1, Words.bytes(doubled), probes.download(target, 1024));
        long second = probes.upload(image);
        bulk("probe_bulk_reduce_add_f32", image, second);
        ConformanceReport.exact(
                "bulk_reduce_add_f32", 4, 1, Words.bytes(doubled), probes.download(second, 1024));
    }

    private static void bulk(String symbol, byte[] image, long out) {
        long in = probes.upload(image);
        probes.run(
                "probe_tma",
                symbol,
                image.length,
                1,
                1,
                launch -> launch.pointer(in).pointer(out).int32(image.length));
    }

    @Test
    void bulkStores_copyBytes() {
        byte[] image = random(1600);
        long out = probes.output(2048);
        bulk("probe_bulk_store", image, out);
        byte[] expected = unwritten(2048);
        System.arraycopy(image, 0, expected, 0, image.length);
        ConformanceReport.exact("bulk_store", 1, 16, expected, probes.download(out, 2048));
    }

    /** Runs a probe on a cluster of two blocks, each of which dumps its shared memory. */
    private static byte[] cluster(String symbol, int bytes, Consumer<Launch> arguments) {
        long out = probes.output(2 * bytes);
        probes.run(
                "probe_cluster",
                symbol,
                bytes,
                2,
                2,
                launch -> {
                    arguments.accept(launch);
                    launch.pointer(out);
                    if (!symbol.endsWith("store_async")) {
                        launch.int32(symbol.endsWith("multicast_2d") ? 512 : 256);
                    }
                    launch.int32(bytes);
                    if (symbol.endsWith("multicast_2d")) {
                        launch.int32(8).int32(2).int32(4);
                    }
                });
        return probes.download(out, 2 * bytes);
    }

    @Test
    void multicasts_reachBothBlocks() {
        int columns = 128;
        byte[] content = random(2 * columns * 16);
        Global tensor = Global.dense(probes.upload(content), columns, 16);
        byte[] expected = unwritten(4096);
        for (int block = 0; block < 2; block++) {
            for (int row = 0; row < 8; row++) {
                int from = 2 * ((row + 2) * columns + 8);
                System.arraycopy(content, from, expected, 2048 * block + 128 * row, 128);
            }
        }
        MemorySegment map = tensor.map(NO_SWIZZLE, 64, 4);
        byte[] got =
                cluster(
                        "probe_tma_multicast_2d",
                        2048,
                        launch -> launch.struct(map, TensorMap.ALIGNMENT));
        ConformanceReport.exact("tma_multicast_2d", 1, 16, expected, got);
    }

    @Test
    void copies_reachTheOtherBlock() {
        byte[] content = random(512);
        long in = probes.upload(content);
        byte[] expected = unwritten(1024);
        System.arraycopy(content, 256, expected, 0, 256);
        System.arraycopy(content, 0, expected, 512, 256);
        byte[] got = cluster("probe_bulk_copy_to_block", 512, launch -> launch.pointer(in));
        ConformanceReport.exact("bulk_copy_to_block", 1, 16, expected, got);
    }

    @Test
    void stores_reachTheOtherBlock() {
        byte[] content = random(32);
        long in = probes.upload(content);
        byte[] expected = unwritten(128);
        for (int block = 0; block < 2; block++) {
            int other = 1 - block;
            System.arraycopy(content, 4 * other, expected, 64 * block + 4, 4);
            System.arraycopy(content, 16 * other, expected, 64 * block + 16, 16);
        }
        byte[] got = cluster("probe_store_async", 64, launch -> launch.pointer(in));
        ConformanceReport.exact("store_async", 1, 16, expected, got);
    }

    @Test
    void clusters_knowTheirBlocks() {
        long in = probes.upload(Words.bytes(77));
        for (int size : new int[] {2, 4, 8}) {
            long out = probes.output(2 * size * 16);
            probes.run(
                    "probe_cluster",
                    "probe_cluster",
                    0,
                    2 * size,
                    size,
                    launch -> launch.pointer(in).pointer(out));
            int[] expected = new int[2 * size * 4];
            for (int block = 0; block < 2 * size; block++) {
                int rank = block % size;
                expected[4 * block] = rank;
                expected[4 * block + 1] = size;
                expected[4 * block + 2] = 100 + (rank + 1) % size;
                expected[4 * block + 3] = 77;
            }
            byte[] got = probes.download(out, 2 * size * 16);
            assertThat(got).hasSize(4 * expected.length);
            ConformanceReport.exact("cluster of " + size, 4, 4, Words.bytes(expected), got);
        }
    }
}
