package jmoe.cuda;

import jmoe.checkpoint.Json;
import jmoe.cuda.MeasureKernels.Matrix;
import jmoe.cuda.MeasureKernels.Times;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Measures on compute capability 9.0 what the model of the Hopper kernels in bench/RESULTS.md takes
 * for granted: {@code [--smallest] [FILE]}. First each kernel has to compute what it should, at the
 * smallest size; with {@code --smallest} that is all.
 */
final class HopperMeasures {
    private static final int WARPGROUP_ROWS = 64;
    private static final int DEPTH = 64;
    private static final int A_ROWS = 128;
    private static final int B_ROWS = 256;
    private static final int STREAM_BOX_BYTES = 16 << 10;

    /** So few that what they read together is no load for the second-level cache. */
    private static final int FEW_BLOCKS = 16;

    /** Of a port of shared memory, in a cycle. */
    private static final double PORT_BYTES = 128;

    /** Of the second-level cache, in a cycle for each multiprocessor. */
    private static final double L2_BYTES = 46.6;

    private static final int STAGE_BYTES = 48 << 10;
    private static final int TILE_RING = 4;

    /** Half of what a stage of a tile of 128 x 256 has of the weight; a whole one of the rows. */
    private static final int BOX_ROWS = 128;

    private static final int STREAMED_BYTES = 8 << 10;
    private static final int[] UNDER_WAY = {2, 4, 6, 8, 16};
    private static final double[] SHARE = {67, 94, 99, 99, 100};

    /**
     * Cycles of a tile of 128 x 256 without the scheduler: two wgmma, the way out of them, packing,
     * stmatrix, four chunks' barriers.
     */
    private static final double EPILOGUE_CYCLES = 2 * 128 + 150 + 256 + 512 + 4 * 60;

    /** A run that follows others finds the clock that the power allows. */
    private static final int ROUNDS = 3;

    private final MeasureKernels kernels;
    private final List<Measured> measured = new ArrayList<>();

    /**
     * Nothing has been run yet.
     *
     * @param kernels on a device of compute capability 9.0
     */
    HopperMeasures(MeasureKernels kernels) {
        this.kernels = kernels;
    }

    /**
     * Checks, then measures.
     *
     * @param args {@code [--smallest] [FILE]}
     * @throws IOException if the file cannot be written
     */
    public static void main(String[] args) throws IOException {
        boolean smallest = args.length > 0 && args[0].equals("--smallest");
        CudaDevice device = CudaProbe.probe().device();
        if (device == null || device.capability() != Probes.HOPPER) {
            System.out.println(
                    "left out: needs compute capability 9.0, this device has "
                            + (device == null ? "none" : device.capabilityText()));
            return;
        }
        try (MeasureKernels kernels = new MeasureKernels()) {
            HopperMeasures measures = new HopperMeasures(kernels);
            measures.check();
            if (!smallest && !device.emulated()) {
                measures.measure();
            }
            if (args.length > (smallest ? 1 : 0)) {
                Files.writeString(
                        Path.of(args[smallest ? 1 : 0]), Json.text(measures.json()) + "\n");
            }
            measures.print();
        }
    }

    /** Whether each kernel computes what it should. Throws if not. */
    void check() {
        for (int columns : new int[] {64, 128, 256}) {
            for (int consumers = 1; consumers <= 2; consumers++) {
                checkWgmma(columns, consumers, 0);
                checkWgmma(columns, consumers, 64);
            }
        }
        checkTiles(1);
        checkTiles(2);
        checkStream();
        checkEpilogue();
    }

    private void measure() {
        int blocks = kernels.device().multiprocessors() / 2 * 2;
        for (int columns : new int[] {256, 128, 64}) {
            wgmma(blocks, columns, 1, 0);
            wgmma(blocks, columns, 2, 0);
        }
        for (int bytes : new int[] {0, 48, 64}) {
            wgmma(FEW_BLOCKS, 256, 2, bytes);
            wgmma(FEW_BLOCKS, 128, 2, bytes);
        }
        tiles(blocks, 1);
        tiles(blocks, 2);
        epilogue();
        stream(blocks);
    }

    private static String wgmmaSymbol(int columns, int consumers) {
        return "measure_wgmma_n" + columns + "_" + consumers;
    }

    private Times[] runWgmma(
            int blocks,
            int columns,
            int consumers,
            Operands operands,
            long sums,
            int steps,
            int interval) {
        return kernels.run(
                "measure_wgmma",
                wgmmaSymbol(columns, consumers),
                blocks,
                1,
                (launch, times) -> {
                    launch.struct(operands.map(), TensorMap.ALIGNMENT).pointer(operands.image());
                    launch.pointer(sums).pointer(times).int32(steps).int32(interval);
                });
    }

    /**
     * Both operands of wgmma, one below the other, and something to stream.
     *
     * @param matrix a and b
     * @param image the same as wgmma reads it
     * @param map of boxes that take 16 KiB
     */
    private record Operands(Matrix matrix, long image, MemorySegment map) {
        static Operands of(MeasureKernels kernels, Matrix matrix) {
            Matrix streamed = kernels.random(4 * BOX_ROWS, DEPTH);
            return new Operands(matrix, kernels.image(matrix), kernels.map(streamed, BOX_ROWS));
        }
    }

    private void checkWgmma(int columns, int consumers, int interval) {
        int steps = 3;
        Operands operands = Operands.of(kernels, kernels.wholeNumbers(A_ROWS + B_ROWS, DEPTH));
        int threads = 128 * consumers;
        long sums = kernels.output(4 * threads);
        Times[] times = runWgmma(2, columns, consumers, operands, sums, steps, interval);
        byte[] got = kernels.download(sums, 4 * threads);
        for (int thread = 0; thread < threads; thread++) {
            expect(
                    wgmmaSymbol(columns, consumers) + ", thread " + thread,
                    steps * sumOfThread(operands.matrix(), columns, thread),
                    Float.intBitsToFloat((int) Words.at(got, 4, thread)));
        }
        for (Times block : times) {
            expect(wgmmaSymbol(columns, consumers) + ", cycles", true, block.cycles() > 0);
            if (interval == 0) {
                expect(wgmmaSymbol(columns, consumers) + ", bytes", 0L, block.bytes());
            } else {
                expect("whole boxes", 0L, block.bytes() % STREAM_BOX_BYTES);
            }
        }
    }

    /** What the products in the accumulators of a thread add up to. */
    private static float sumOfThread(Matrix matrix, int columns, int thread) {
        int row = thread / 128 * WARPGROUP_ROWS + thread % 128 / 32 * 16 + thread % 32 / 4;
        float sum = 0;
        for (int k = 0; k < DEPTH; k++) {
            float a = matrix.at(row, k) + matrix.at(row + 8, k);
            float b = 0;
            for (int column = thread % 4 * 2; column < columns; column += 8) {
                b += matrix.at(A_ROWS + column, k) + matrix.at(A_ROWS + column + 1, k);
            }
            sum += a * b;
        }
        return sum;
    }

    private void wgmma(int blocks, int columns, int consumers, int bytesPerCycle) {
        int steps = 20_000;
        int interval = bytesPerCycle == 0 ? 0 : STREAM_BOX_BYTES / bytesPerCycle;
        Operands operands = Operands.of(kernels, kernels.random(A_ROWS + B_ROWS, DEPTH));
        long sums = kernels.output(4 * 256);
        Times[] times = {};
        for (int round = 0; round < ROUNDS; round++) {
            times = runWgmma(blocks, columns, consumers, operands, sums, steps, interval);
        }
        double cycles = MeasureKernels.median(times, Times::cycles) / (4.0 * steps * consumers);
        double streamed = MeasureKernels.median(times, t -> (double) t.bytes() / t.cycles());
        // 16 columns of 64 rows and of all of b's.
        double operandBytes = 32.0 * (WARPGROUP_ROWS + columns);
        double predicted = columns / 2.0;
        double shared =
                Math.max(predicted, (operandBytes + predicted * bytesPerCycle) / PORT_BYTES);
        String name =
                String.format(
                        Locale.ROOT,
                        "wgmma m64n%dk16, %d warpgroup%s, %d blocks",
                        columns,
                        consumers,
                        consumers == 1 ? "" : "s",
                        blocks);
        String otherwise = "";
        if (bytesPerCycle > 0) {
            name += String.format(Locale.ROOT, ", TMA writes %.0f B/cycle", streamed);
            otherwise =
                    String.format(
                            Locale.ROOT,
                            "%.1f if wgmma and TMA share a port; %d B/cycle asked for",
                            shared,
                            bytesPerCycle);
        }
        add(name, cycles, "cycles", predicted, otherwise, times);
    }

    private Times[] runTiles(
            int blocks, int cluster, Matrix x, Matrix weight, int count, int columnTiles) {
        MemorySegment xMap = kernels.map(x, WARPGROUP_ROWS);
        MemorySegment weightMap = kernels.map(weight, BOX_ROWS);
        return kernels.run(
                "measure_tma",
                cluster == 1 ? "measure_tma_tiles" : "measure_tma_tiles_multicast",
                blocks,
                cluster,
                (launch, times) -> {
                    launch.struct(xMap, TensorMap.ALIGNMENT);
                    launch.struct(weightMap, TensorMap.ALIGNMENT).pointer(times);
                    launch.int32(count).int32(x.columns()).int32(columnTiles);
                });
    }

    private void checkTiles(int cluster) {
        int blocks = 4;
        int columnTiles = 2;
        int inputs = 3 * DEPTH;
        int count = 6;
        Matrix x = kernels.random(blocks * A_ROWS, inputs);
        Matrix weight = kernels.random(columnTiles * B_ROWS, inputs);
        Times[] times = runTiles(blocks, cluster, x, weight, count, columnTiles);
        for (int block = 0; block < blocks; block++) {
            int column = block / cluster % columnTiles * B_ROWS;
            int checksum = 0;
            for (int stage = count - TILE_RING; stage < count; stage++) {
                int input = stage % 3 * DEPTH;
                checksum ^= x.checksum(block * A_ROWS, A_ROWS, input);
                checksum ^= weight.checksum(column, B_ROWS, input);
            }
            expect(
                    "measure_tma_tiles, cluster of " + cluster + ", block " + block,
                    Integer.toUnsignedLong(checksum),
                    times[block].checksum());
        }
    }

    private void tiles(int blocks, int cluster) {
        int count = 20_000;
        int columnTiles = 8;
        Matrix x = kernels.random(blocks * A_ROWS, 8 * DEPTH);
        Matrix weight = kernels.random(columnTiles * B_ROWS, 8 * DEPTH);
        Times[] times = {};
        for (int round = 0; round < ROUNDS; round++) {
            times = runTiles(blocks, cluster, x, weight, count, columnTiles);
        }
        add(
                cluster == 1 ? "TMA, tiles of 128 x 256" : "the same, clusters of 2, multicast",
                (double) STAGE_BYTES * count / MeasureKernels.median(times, Times::cycles),
                "B/cycle arriving",
                // Of the 48 KiB of a stage a block of a cluster fetches 32.
                cluster == 1 ? L2_BYTES : 1.5 * L2_BYTES,
                "",
                times);
    }

    private Times[] runStream(int blocks, Matrix matrix, int ring) {
        MemorySegment map = kernels.map(matrix, WARPGROUP_ROWS);
        int rowBlocks = matrix.rows() / WARPGROUP_ROWS / blocks;
        return kernels.run(
                "measure_tma",
                "measure_tma_stream",
                blocks,
                1,
                (launch, times) -> {
                    launch.struct(map, TensorMap.ALIGNMENT).pointer(times);
                    launch.int32(rowBlocks).int32(matrix.columns()).int32(ring);
                });
    }

    private void checkStream() {
        int blocks = 2;
        int inputs = 2 * DEPTH;
        for (int ring : new int[] {1, 3}) {
            Matrix matrix = kernels.random(blocks * 2 * WARPGROUP_ROWS, inputs);
            Times[] times = runStream(blocks, matrix, ring);
            for (int block = 0; block < blocks; block++) {
                int checksum = 0;
                for (int stage = 4 - ring; stage < 4; stage++) {
                    int row = (2 * block + stage / 2) * WARPGROUP_ROWS;
                    checksum ^= matrix.checksum(row, WARPGROUP_ROWS, stage % 2 * DEPTH);
                }
                expect(
                        "measure_tma_stream, ring of " + ring + ", block " + block,
                        Integer.toUnsignedLong(checksum),
                        times[block].checksum());
            }
        }
    }

    private void stream(int blocks) {
        int inputs = 2048;
        int rows = blocks * WARPGROUP_ROWS * 60;
        double[] gigabytes = new double[UNDER_WAY.length];
        Times[][] times = new Times[UNDER_WAY.length][];
        try (Arena arena = Arena.ofShared()) {
            Matrix matrix = kernels.undefined(arena, rows, inputs);
            for (int i = 0; i < UNDER_WAY.length; i++) {
                for (int round = 0; round < ROUNDS; round++) {
                    times[i] = runStream(blocks, matrix, UNDER_WAY[i]);
                }
                double last = 0;
                for (Times block : times[i]) {
                    last = Math.max(last, block.nanoseconds());
                }
                gigabytes[i] = 2.0 * rows * inputs / last;
            }
        }
        double most = 0;
        for (double rate : gigabytes) {
            most = Math.max(most, rate);
        }
        for (int i = 0; i < UNDER_WAY.length; i++) {
            String name =
                    String.format(
                            Locale.ROOT,
                            "memory to TMA, %d KiB under way: %.0f GB/s",
                            UNDER_WAY[i] * STREAMED_BYTES >> 10,
                            gigabytes[i]);
            add(name, 100 * gigabytes[i] / most, "% of the most", SHARE[i], "", times[i]);
        }
    }

    private Times[] runEpilogue(int blocks, Matrix y, long image, int tiles, int regions) {
        MemorySegment map = kernels.map(y, WARPGROUP_ROWS);
        return kernels.run(
                "measure_epilogue",
                "measure_epilogue",
                blocks,
                1,
                (launch, times) -> {
                    launch.struct(map, TensorMap.ALIGNMENT).pointer(image).pointer(times);
                    launch.int32(tiles).int32(regions);
                });
    }

    private void checkEpilogue() {
        int blocks = 2;
        int tiles = 3;
        Matrix operands = kernels.wholeNumbers(A_ROWS + B_ROWS, DEPTH);
        Matrix y = kernels.random(blocks * tiles * A_ROWS, B_ROWS);
        runEpilogue(blocks, y, kernels.image(operands), tiles, tiles);
        byte[] got = kernels.download(y.address(), y.content().length);
        Matrix result = new Matrix(y.address(), got, y.rows(), y.columns());
        for (int row = 0; row < y.rows(); row++) {
            for (int column = 0; column < B_ROWS; column++) {
                float sum = 0;
                for (int k = 0; k < 16; k++) {
                    sum += operands.at(row % A_ROWS, k) * operands.at(A_ROWS + column, k);
                }
                expect("measure_epilogue, " + row + ", " + column, sum, result.at(row, column));
            }
        }
    }

    private void epilogue() {
        int tiles = 4000;
        int regions = 4;
        long image = kernels.image(kernels.random(A_ROWS + B_ROWS, DEPTH));
        Matrix y = kernels.random(FEW_BLOCKS * regions * A_ROWS, B_ROWS);
        Times[] times = {};
        for (int round = 0; round < ROUNDS; round++) {
            times = runEpilogue(FEW_BLOCKS, y, image, tiles, regions);
        }
        double cycles = MeasureKernels.median(times, Times::cycles) / tiles;
        add(
                "two wgmma and the epilogue of 128 x 256",
                cycles,
                "cycles",
                EPILOGUE_CYCLES,
                "",
                times);
    }

    private void add(
            String name,
            double value,
            String unit,
            double predicted,
            String otherwise,
            Times[] times) {
        double megahertz = MeasureKernels.median(times, Times::megahertz);
        measured.add(new Measured(name, value, unit, predicted, otherwise, megahertz));
    }

    private static void expect(String what, Object expected, Object got) {
        if (!expected.equals(got)) {
            throw new IllegalStateException(what + ": expected " + expected + ", got " + got);
        }
    }

    private void print() {
        if (measured.isEmpty()) {
            System.out.println("every kernel computes what it should; nothing was measured");
            return;
        }
        System.out.println(Measured.heading());
        for (Measured one : measured) {
            System.out.println(one.text());
        }
        System.out.println(measured.size() + " measurements");
    }

    private Map<String, Object> json() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("device", kernels.device().name());
        json.put("emulated", kernels.device().emulated());
        json.put("measured", measured.stream().map(Measured::json).toList());
        return json;
    }
}
