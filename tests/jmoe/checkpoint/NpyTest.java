package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.Size;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.IOException;
import java.io.OutputStream;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.SequencedMap;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;

/** Expected values are NumPy's. */
class NpyTest {
    private static final Path FIXTURES = Path.of("tests/golden/fixtures/npy");

    private static final double[] F4 = {
        0.34558418,
        0.82161814,
        0.33043706,
        -1.3031572,
        0.9053559,
        0.44637457,
        -0.5369532,
        0.5811181,
        0.3645724,
        0.2941325,
        0.028422242,
        0.546713,
        -0.73645407,
        -0.16290995,
        -0.48211932,
        0.5988462,
        0.039722107,
        -0.29245675,
        -0.78190845,
        -0.25719225,
        0.008142181,
        -0.27560291,
        1.2940638,
        1.0067244,
        -2.7111626,
        -1.8890133,
        -0.1747721,
        -0.4221904,
        0.21364300,
        0.21732193,
        2.1178389,
        -1.1120207,
        -0.37760502,
        2.0427716,
        0.646703
    };

    private final Arena arena = Arena.ofConfined();
    @TempDir Path folder;

    @AfterEach
    void closeArena() {
        arena.close();
    }

    private static void assertIsF4(Tensor tensor) {
        assertThat(tensor.describe()).isEqualTo("F32 [5, 7]");
        for (int i = 0; i < F4.length; i++) {
            assertThat(tensor.getFloat(i)).isEqualTo((float) F4[i]);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"f4_c", "f4_version2", "f4_fortran", "f4_bigendian"})
    void read_f4InEveryLayout(String name) {
        assertIsF4(Npy.read(FIXTURES.resolve(name + ".npy"), arena));
    }

    @Test
    void read_mapsWhatIsDense() {
        assertThat(Npy.read(FIXTURES.resolve("f4_c.npy"), arena).data().isReadOnly()).isTrue();
        assertThat(Npy.read(FIXTURES.resolve("f4_fortran.npy"), arena).data().isReadOnly())
                .isFalse();
    }

    @ParameterizedTest
    @CsvSource({
        "i4.npy, 'I32 [3, 4]'",
        "i8_1d.npy, I64 [5]",
        "u1.npy, U8 [6]",
        "f4_empty.npy, 'F32 [0, 4]'"
    })
    void read_counting(String name, String described) {
        Tensor tensor = Npy.read(FIXTURES.resolve(name), arena);

        assertThat(tensor.describe()).isEqualTo(described);
        for (int i = 0; i < tensor.numElements(); i++) {
            assertThat(tensor.getLong(i)).isEqualTo(i);
        }
    }

    @Test
    void read_otherTypesAndRanks() {
        Tensor half = Npy.read(FIXTURES.resolve("f2.npy"), arena);
        assertThat(half.describe()).isEqualTo("F16 [5, 7]");
        assertThat(half.getDouble(10)).isEqualTo(0.0284271240234375);
        assertThat(half.getDouble(34)).isEqualTo(0.646484375);
        Tensor cube = Npy.read(FIXTURES.resolve("f8_3d.npy"), arena);
        assertThat(cube.describe()).isEqualTo("F64 [2, 3, 4]");
        assertThat(cube.getDouble(0)).isEqualTo(0.6630633723762617);
        assertThat(cube.getDouble(23)).isEqualTo(-1.2487488903344155);
        Tensor scalar = Npy.read(FIXTURES.resolve("f4_scalar.npy"), arena);
        assertThat(scalar.describe()).isEqualTo("F32 []");
        assertThat(scalar.getFloat(0)).isEqualTo(2.5f);
        Tensor flags = Npy.read(FIXTURES.resolve("bool.npy"), arena);
        assertThat(flags.describe()).isEqualTo("BOOL [2, 2]");
        assertThat(
                        new long[] {
                            flags.getLong(0), flags.getLong(1), flags.getLong(2), flags.getLong(3)
                        })
                .containsExactly(1, 0, 0, 1);
    }

    private static byte[] npy(int major, String header, byte[] data) {
        byte[] text = header.getBytes(StandardCharsets.UTF_8);
        ByteBuffer bytes =
                ByteBuffer.allocate(12 + text.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.put((byte) 0x93).put("NUMPY".getBytes(StandardCharsets.US_ASCII));
        bytes.put((byte) major).put((byte) 0);
        if (major == 1) {
            bytes.putShort((short) text.length);
        } else {
            bytes.putInt(text.length);
        }
        bytes.put(text).put(data);
        return Arrays.copyOf(bytes.array(), bytes.position());
    }

    private static String header(String descr, boolean fortran, String shape) {
        return "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n"
                .formatted(descr, fortran ? "True" : "False", shape);
    }

    private Path write(byte[] bytes) throws IOException {
        return Files.write(folder.resolve("a.npy"), bytes);
    }

    @ParameterizedTest
    @CsvSource({
        "i1, I8", "i2, I16", "i4, I32", "i8, I64", "u1, U8", "u2, U16", "u4, U32", "u8, U64"
    })
    void read_integersInFortranOrderAndBothEndians(String kind, DType dtype) throws IOException {
        int bytes = dtype.blockBytes();
        for (ByteOrder order : List.of(ByteOrder.LITTLE_ENDIAN, ByteOrder.BIG_ENDIAN)) {
            ByteBuffer data = ByteBuffer.allocate(24 * bytes).order(order);
            // Element [i][j][k] of shape [2, 3, 4] has the value of its row-major position.
            for (int k = 0; k < 4; k++) {
                for (int j = 0; j < 3; j++) {
                    for (int i = 0; i < 2; i++) {
                        long value = (i * 3L + j) * 4 + k;
                        switch (bytes) {
                            case 1 -> data.put((byte) value);
                            case 2 -> data.putShort((short) value);
                            case 4 -> data.putInt((int) value);
                            default -> data.putLong(value);
                        }
                    }
                }
            }
            String mark = bytes == 1 ? "|" : order == ByteOrder.BIG_ENDIAN ? ">" : "<";
            Path path = write(npy(3, header(mark + kind, true, "(2, 3, 4)"), data.array()));

            Tensor tensor = Npy.read(path, arena);

            assertThat(tensor.describe()).isEqualTo(dtype + " [2, 3, 4]");
            for (int i = 0; i < 24; i++) {
                assertThat(tensor.getLong(i)).isEqualTo(i);
            }
        }
    }

    @Test
    void read_headerInOtherSpellings() throws IOException {
        String header = "{\"shape\":(2L,),\"fortran_order\":True,\"descr\":\"<f4\"}";

        Tensor tensor = Npy.read(write(npy(1, header, new byte[8])), arena);

        assertThat(tensor.describe()).isEqualTo("F32 [2]");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            quoteCharacter = '`',
            textBlock =
                    """
                    <c8; dtype '<c8' is not supported
                    |O; dtype '|O' is not supported
                    <U4; dtype '<U4' is not supported
                    <M8[ns]; dtype '<M8[ns]' is not supported
                    <V2; dtype '<V2' is not supported
                    |f4; dtype '|f4' is not supported
                    f4; dtype 'f4' is not supported
                    ``; dtype '' is not supported
                    """)
    void read_rejectsTypes(String descr, String violation) throws IOException {
        assertRejected(npy(1, header(descr, false, "(1,)"), new byte[16]), violation);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            quoteCharacter = '`',
            textBlock =
                    """
                    (-1,); a dimension is negative
                    (3); got one number in parentheses
                    3; expected '('
                    (1 2); expected ',' or ')'
                    (,); expected an integer
                    (1.5,); expected ',' or ')'
                    (9223372036854775808,); above 2^63 - 1
                    (4611686018427387904,); overflows 2^63 - 1 bytes
                    (4294967296, 4294967296); overflows 2^63 - 1 bytes
                    (1099511627776,); F32 [1099511627776] has 4398046511104 bytes but 4 follow
                    (2,); F32 [2] has 8 bytes but 4 follow
                    (0,); F32 [0] has 0 bytes but 4 follow
                    (1,; expected an integer, got '}
                    """)
    void read_rejectsShapes(String shape, String violation) throws IOException {
        String header = "{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + "}";
        assertRejected(npy(1, header, new byte[4]), violation);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            quoteCharacter = '`',
            textBlock =
                    """
                    []; expected '{'
                    {'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}; structured array
                    {'descr': '<f4', 'fortran_order': False}; key 'shape' is missing
                    {'descr': '<f4', 'shape': ()}; key 'fortran_order' is missing
                    {}; key 'descr' is missing
                    {'shape': (), 'shape': ()}; key 'shape' is unknown or given twice
                    {'shapes': ()}; key 'shapes' is unknown or given twice
                    {'fortran_order': 0}; expected True or False
                    {'descr': '<f4}; a string has no end
                    {'descr': '<\\x66'}; escapes are not expected
                    {'descr': '<f4' 'shape': ()}; expected '}'
                    {'descr': '<f4', 'fortran_order': False, 'shape': ()} x; expected the end
                    ``; got the end of the header
                    """)
    void read_rejectsHeaders(String header, String violation) throws IOException {
        assertRejected(npy(1, header, new byte[4]), violation);
        assertRejected(npy(2, header, new byte[4]), violation);
    }

    @Test
    void read_rejectsDamage() throws IOException {
        byte[] valid = npy(2, header("<f4", false, "(1,)"), new byte[4]);
        assertRejected(new byte[0], "ends inside its header");
        for (int length : new int[] {7, 9, 20}) {
            assertRejected(Arrays.copyOf(valid, length), "ends inside its header");
        }
        assertRejected(Arrays.copyOf(valid, valid.length - 1), "has 4 bytes but 3 follow");
        assertRejected(Arrays.copyOf(valid, valid.length + 1), "has 4 bytes but 5 follow");
        byte[] magic = valid.clone();
        magic[1] = 'n';
        assertRejected(magic, "does not begin as a NumPy array");
        byte[] version = valid.clone();
        version[6] = 4;
        assertRejected(version, "NumPy format 4.0 is not known");
        byte[] huge = valid.clone();
        huge[11] = (byte) 0xff;
        assertRejected(huge, "is above the limit of 1000000 bytes");
        byte[] utf8 = npy(3, header("<f4", false, "(1,)"), new byte[4]);
        utf8[14] = (byte) 0xff;
        assertRejected(utf8, "header is not valid UTF-8");
        assertThatThrownBy(() -> Npy.read(folder, arena)).hasMessageContaining("is a directory");
    }

    private void assertRejected(byte[] bytes, String violation) throws IOException {
        Path path = write(bytes);
        assertThatThrownBy(() -> Npy.read(path, arena))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(path + ": ")
                .hasMessageContaining(violation)
                .message()
                .doesNotContain("\n");
    }

    @Property(tries = 2000)
    void read_mutatedIsReadOrRejected(
            @ForAll @Size(min = 1, max = 4) List<@IntRange(max = 70) Integer> positions,
            @ForAll @Size(value = 4) List<Byte> values)
            throws IOException {
        byte[] bytes = Files.readAllBytes(FIXTURES.resolve("f4_fortran.npy"));
        for (int i = 0; i < positions.size(); i++) {
            bytes[positions.get(i)] = values.get(i);
        }
        Path path = Files.createTempFile("mutated", ".npy");
        try (Arena own = Arena.ofConfined()) {
            Files.write(path, bytes);
            assertThat(Npy.read(path, own).numBytes()).isEqualTo(140);
        } catch (CheckpointException e) {
            assertThat(e).hasMessageStartingWith(path + ": ");
        } finally {
            Files.delete(path);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"stored.npz", "deflated.npz"})
    void readZip_readsAll(String name) {
        SequencedMap<String, Tensor> tensors = Npy.readZip(FIXTURES.resolve(name), arena);

        assertThat(tensors.sequencedKeySet()).containsExactly("a", "ids");
        assertIsF4(tensors.get("a"));
        Tensor ids = tensors.get("ids");
        assertThat(ids.describe()).isEqualTo("I32 [4]");
        assertThat(ids.getInt(3)).isEqualTo(3);
    }

    private Path zip(String entry, byte[] bytes) throws IOException {
        Path path = folder.resolve("a.npz");
        try (OutputStream file = Files.newOutputStream(path);
                ZipOutputStream zip = new ZipOutputStream(file)) {
            zip.putNextEntry(new ZipEntry(entry));
            zip.write(bytes);
            zip.closeEntry();
        }
        return path;
    }

    @Test
    void readZip_convertsAndReadsMoreThanABuffer() throws IOException {
        ByteBuffer data = ByteBuffer.allocate(4 * 300 * 100).order(ByteOrder.BIG_ENDIAN);
        for (int i = 0; i < 30_000; i++) {
            data.putInt(i);
        }
        Path path = zip("big.npy", npy(1, header(">i4", false, "(300, 100)"), data.array()));

        Tensor tensor = Npy.readZip(path, arena).get("big");

        assertThat(tensor.describe()).isEqualTo("I32 [300, 100]");
        assertThat(tensor.getInt(29_999)).isEqualTo(29_999);
    }

    @Test
    void readZip_rejectsDamage() throws IOException {
        assertZipRejected(Files.write(folder.resolve("x.npz"), new byte[100]), "as a zip archive");
        assertZipRejected(zip("notes.txt", new byte[1]), "entry 'notes.txt' is not an .npy");
        assertZipRejected(zip("a.npy", new byte[3]), "array 'a': ends inside its header");
        assertZipRejected(
                zip("a.npy", npy(1, header("<f4", false, "(2,)"), new byte[4])),
                "array 'a': F32 [2] has 8 bytes but 4 follow");
        assertZipRejected(
                zip("a.npy", npy(1, header("<f4", false, "(1099511627776,)"), new byte[4])),
                "4398046511104 bytes but 4 follow");
    }

    @Test
    void readZip_rejectsAWrongChecksum() throws IOException {
        byte[] bytes = Files.readAllBytes(FIXTURES.resolve("stored.npz"));
        ByteBuffer last = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
        int three = new String(bytes, StandardCharsets.ISO_8859_1).lastIndexOf("\3\0\0\0PK");
        last.putInt(three, 4);
        assertZipRejected(
                Files.write(folder.resolve("x.npz"), bytes),
                "array 'ids': differs from its length");
    }

    @Test
    void readZip_doesNotBelieveASize() throws IOException {
        long claimed = 1L << 30;
        byte[] npy = npy(1, header("<f4", false, "(" + claimed / 4 + ",)"), new byte[0]);
        byte[] bytes = Files.readAllBytes(zip("a.npy", npy));
        // The central directory says how long the entry is.
        int central = new String(bytes, StandardCharsets.ISO_8859_1).indexOf("PK\1\2");
        ByteBuffer.wrap(bytes)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putInt(central + 24, (int) (claimed + npy.length));
        assertZipRejected(
                Files.write(folder.resolve("x.npz"), bytes), "compressed bytes cannot hold");
    }

    private void assertZipRejected(Path path, String violation) {
        assertThatThrownBy(() -> Npy.readZip(path, arena))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(path + ": ")
                .hasMessageContaining(violation)
                .message()
                .doesNotContain("\n");
    }
}
