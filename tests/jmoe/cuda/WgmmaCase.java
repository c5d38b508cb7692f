package jmoe.cuda;

import tools.jackson.databind.JsonNode;

import java.util.Arrays;
import java.util.function.DoubleSupplier;
import java.util.function.ToIntFunction;

/** Operands of one wgmma in shared memory or registers, and what must come out. */
final class WgmmaCase {
    private static final int THREADS = 128;
    private static final int ROWS = 64;
    private static final int WIDEST = 256;
    private static final int REGISTER_BYTES = 16;

    private final String form;
    private final Element element;
    private final int width;
    private final int step;
    private final boolean fromRegisters;
    private final SharedTile aTile;
    private final SharedTile bTile;
    private final int[] a;
    private final int[] b;
    private final double[] accumulators;
    private final int[] rows;
    private final int[] columns;

    /**
     * Draws both matrices.
     *
     * @param form as in a symbol, for example {@code bf16_n64_tb}
     * @param mode the swizzle, see {@link SharedTile}
     * @param step which 32 bytes along k are multiplied
     * @param code draws an element
     */
    WgmmaCase(String form, int mode, int step, ToIntFunction<Element> code) {
        this.form = form;
        this.step = step;
        element = Element.in(form);
        String[] words = form.split("_", -1);
        width = Integer.parseInt(words[1].substring(1));
        fromRegisters = form.endsWith("_registers");
        aTile = new SharedTile(!form.contains("_ta"), mode, element.bytes(), ROWS);
        bTile = new SharedTile(!form.contains("_tb"), mode, element.bytes(), width);
        a = draw(aTile, code);
        b = draw(bTile, code);
        accumulators = new double[ROWS * width];
        JsonNode table = Table.of("wgmma_D").get("N256");
        rows = Table.ints(table.get("row"));
        columns = Table.ints(table.get("col"));
    }

    private int[] draw(SharedTile tile, ToIntFunction<Element> code) {
        int[] codes = new int[tile.extent() * tile.depth()];
        Arrays.setAll(codes, i -> code.applyAsInt(element));
        return codes;
    }

    void drawAccumulators(DoubleSupplier number) {
        Arrays.setAll(accumulators, i -> number.getAsDouble());
    }

    /** Results of a thread. */
    int perThread() {
        return width / 2;
    }

    private int place(int thread, int v) {
        int i = thread * (WIDEST / 2) + v;
        return rows[i] * width + columns[i];
    }

    /** Runs the probe; without accumulating, the results are the products alone. */
    byte[] run(Probes probes, boolean accumulating) {
        byte[] image = image();
        int outBytes = 4 * THREADS * perThread();
        long in = probes.upload(image);
        long out = probes.output(outBytes);
        long sums = accumulating ? probes.upload(dealt()) : 0;
        long registers = fromRegisters ? probes.upload(registers()) : 0;
        probes.run(
                "probe_wgmma",
                "probe_wgmma_" + form,
                image.length,
                1,
                1,
                launch -> {
                    launch.pointer(in).pointer(out).pointer(sums).int32(image.length);
                    if (fromRegisters) {
                        launch.pointer(registers);
                    } else {
                        launch.int64(aTile.descriptor(0, step));
                    }
                    launch.int64(bTile.descriptor(aTile.bytes(), step));
                });
        return probes.download(out, outBytes);
    }

    private byte[] image() {
        byte[] image = new byte[aTile.bytes() + bTile.bytes()];
        place(aTile, a, image, 0);
        place(bTile, b, image, aTile.bytes());
        return image;
    }

    private void place(SharedTile tile, int[] codes, byte[] image, int at) {
        for (int i = 0; i < codes.length; i++) {
            int offset = tile.offset(i / tile.depth(), i % tile.depth());
            Words.set(image, at + offset, element.bytes(), codes[i]);
        }
    }

    private byte[] dealt() {
        byte[] bytes = new byte[4 * THREADS * perThread()];
        for (int i = 0; i < THREADS * perThread(); i++) {
            double number = accumulators[place(i / perThread(), i % perThread())];
            Words.set(bytes, 4 * i, 4, bits(number));
        }
        return bytes;
    }

    private byte[] registers() {
        String table =
                switch (element) {
                    case BF16, F16 -> "wgmma_A_m64k16_bf16";
                    case TF32 -> "wgmma_A_m64k8_tf32";
                    case E4M3 -> "wgmma_A_m64k32_e4m3";
                    case S8 -> "wgmma_A_m64k32_s8";
                };
        JsonNode dealing = Table.of("wgmma_A_regs").get(table);
        int[] row = Table.ints(dealing.get("row"));
        int[] k = Table.ints(dealing.get("k"));
        byte[] registers = new byte[THREADS * REGISTER_BYTES];
        for (int i = 0; i < row.length; i++) {
            int code = a[row[i] * aTile.depth() + step * element.depth() + k[i]];
            Words.set(registers, i * element.bytes(), element.bytes(), code);
        }
        return registers;
    }

    private int bits(double number) {
        return element == Element.S8 ? (int) number : Float.floatToRawIntBits((float) number);
    }

    /** The results of sums that no rounding touches. */
    byte[] expected(boolean accumulating) {
        byte[] expected = new byte[4 * THREADS * perThread()];
        for (int i = 0; i < THREADS * perThread(); i++) {
            int at = place(i / perThread(), i % perThread());
            double first = accumulating ? accumulators[at] : 0;
            Words.set(expected, 4 * i, 4, bits(first + products(at, false)));
        }
        return expected;
    }

    /** The largest error, each relative to the magnitudes that were added. */
    double largestError(byte[] got) {
        double largest = 0;
        for (int i = 0; i < THREADS * perThread(); i++) {
            int at = place(i / perThread(), i % perThread());
            double have = Float.intBitsToFloat((int) Words.at(got, 4, i));
            double want = accumulators[at] + products(at, false);
            double scale = Math.abs(accumulators[at]) + products(at, true);
            // Math.max keeps NaN.
            largest = Math.max(largest, Math.abs(have - want) / scale);
        }
        return largest;
    }

    private double products(int at, boolean magnitudes) {
        double sum = 0;
        for (int k = step * element.depth(); k < (step + 1) * element.depth(); k++) {
            double product =
                    element.value(a[at / width * aTile.depth() + k])
                            * element.value(b[at % width * bTile.depth() + k]);
            sum += magnitudes ? Math.abs(product) : product;
        }
        return sum;
    }
}
