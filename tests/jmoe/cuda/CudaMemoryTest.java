package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.ops.GuardedMemory;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.logging.SimpleFormatter;

/** Device memory: whose it is, what is left, and copies of every size. */
final class CudaMemoryTest {
    private static final long HALF = Staging.HALF_BYTES;

    /** Held so that its handler is not collected with it. */
    private static final Logger LOG = Logger.getLogger("jmoe");

    private long liveBefore;
    private long bytesBefore;

    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @BeforeEach
    void countLive() {
        liveBefore = CudaKernels.liveAllocations();
        bytesBefore = CudaKernels.liveBytes();
    }

    @AfterEach
    void nothingIsLeft() {
        assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        assertThat(CudaKernels.liveBytes()).isEqualTo(bytesBefore);
    }

    private static void fillAtRandom(MemorySegment memory, long seed) {
        Random random = new Random(seed);
        long longs = memory.byteSize() / 8;
        for (long i = 0; i < longs; i++) {
            memory.set(JAVA_LONG.withByteAlignment(1), 8 * i, random.nextLong());
        }
        for (long i = 8 * longs; i < memory.byteSize(); i++) {
            memory.set(JAVA_BYTE, i, (byte) random.nextInt());
        }
    }

    /** Around the ends of the page-locked halves that a copy goes through. */
    @ParameterizedTest
    @ValueSource(
            longs = {
                0,
                1,
                3,
                4097,
                HALF - 1,
                HALF,
                HALF + 1,
                2 * HALF - 1,
                2 * HALF,
                2 * HALF + 1,
                3 * HALF,
                5 * HALF + 3
            })
    void copy_bringsBackEveryByteAndNoOther(long bytes) {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            MemorySegment host = arena.allocate(bytes, 1);
            fillAtRandom(host, bytes);
            Tensor device = kernels.upload(arena, Tensor.of(host, DType.U8, bytes));
            Tensor second = kernels.allocate(arena, DType.U8, bytes);
            kernels.copy(device, second);
            MemorySegment around = arena.allocate(bytes + 128, 1).fill((byte) 0x5a);
            MemorySegment back = around.asSlice(64, bytes);
            kernels.copy(second, Tensor.of(back, DType.U8, bytes));
            assertThat(back.mismatch(host)).isEqualTo(-1);
            byte[] margin = new byte[64];
            Arrays.fill(margin, (byte) 0x5a);
            assertThat(around.asSlice(0, 64).toArray(JAVA_BYTE)).isEqualTo(margin);
            assertThat(around.asSlice(64 + bytes, 64).toArray(JAVA_BYTE)).isEqualTo(margin);
        }
    }

    /** The host may change its memory as soon as a copy returns. */
    @Test
    void copy_ofMemoryThatChangesAfterwards_isOfWhatItWas() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            Tensor device = kernels.allocate(arena, DType.I32, 10, 1);
            Tensor host = Tensor.allocate(arena, DType.I32, 1);
            for (int i = 0; i < 10; i++) {
                host.setInt(0, i);
                kernels.copy(host, device.row(i));
            }
            Tensor back = Tensor.allocate(arena, DType.I32, 10, 1);
            kernels.copy(device, back);
            for (int i = 0; i < 10; i++) {
                assertThat(back.getInt(i)).isEqualTo(i);
            }
        }
    }

    @Test
    @Tag("large")
    void copy_takesMoreThan2GiB() {
        long bytes = (1L << 31) + HALF / 2 + 5;
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined();
                GuardedMemory memory = new GuardedMemory()) {
            MemorySegment host = memory.sparse(bytes);
            long[] places = {0, HALF - 1, (1L << 31) - 1, 1L << 31, bytes - 1};
            for (int i = 0; i < places.length; i++) {
                host.set(JAVA_BYTE, places[i], (byte) (i + 1));
            }
            Tensor device = kernels.upload(arena, Tensor.of(host, DType.U8, bytes));
            MemorySegment back = arena.allocate(1, 1);
            for (int i = 0; i < places.length; i++) {
                kernels.copy(device.slice(places[i], 1), Tensor.of(back, DType.U8, 1));
                assertThat(back.get(JAVA_BYTE, 0))
                        .as("byte %d", places[i])
                        .isEqualTo((byte) (i + 1));
            }
            MemorySegment end = arena.allocate(2 * HALF, 1);
            kernels.copy(
                    device.slice(bytes - end.byteSize(), end.byteSize()),
                    Tensor.of(end, DType.U8, end.byteSize()));
            assertThat(end.mismatch(host.asSlice(bytes - end.byteSize()))).isEqualTo(-1);
        }
    }

    @Test
    void allocate_livesAsLongAsItsArena() {
        try (CudaKernels kernels = new CudaKernels()) {
            Arena arena = Arena.ofShared();
            Tensor tensor = kernels.allocate(arena, DType.F32, 5, 7);
            assertThat(tensor.isDevice()).isTrue();
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore + 1);
            assertThat(CudaKernels.liveBytes()).isEqualTo(bytesBefore + 140);
            assertThatThrownBy(() -> tensor.getFloat(0))
                    .isInstanceOf(IndexOutOfBoundsException.class);
            kernels.allocate(arena, DType.F32, 0, 7);
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore + 1);
            arena.close();
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        }
    }

    @Test
    void allocate_inAnArenaThatIsClosed_leavesNothing() {
        try (CudaKernels kernels = new CudaKernels()) {
            Arena arena = Arena.ofConfined();
            arena.close();
            assertThatThrownBy(() -> kernels.allocate(arena, DType.F32, 5))
                    .isInstanceOf(IllegalStateException.class);
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        }
    }

    /** Any thread may close an arena, also one that never used the device. */
    @Test
    void allocate_isFreedByAnyThread() throws InterruptedException {
        try (CudaKernels kernels = new CudaKernels()) {
            Arena arena = Arena.ofShared();
            kernels.allocate(arena, DType.F32, 1000);
            Thread closer = new Thread(arena::close);
            closer.start();
            closer.join();
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        }
    }

    @Test
    void close_freesWhatWasForgottenAndSaysSo() {
        List<String> warnings =
                warnings(() -> {
                    Arena arena = Arena.ofConfined();
                    CudaKernels kernels = new CudaKernels();
                    kernels.allocate(arena, DType.F32, 10);
                    kernels.allocate(arena, DType.F32, 20);
                    kernels.close();
                    assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
                    kernels.close();
                    arena.close();
                });
        assertThat(warnings)
                .containsExactly(
                        "jmoe: 2 device allocations of 120 bytes together were not freed before the"
                                + " backend was closed; start java with -Djmoe.cuda.leaks=true to"
                                + " see where they come from");
    }

    @Test
    void close_withLeaksLookedFor_saysWhereTheyWereAllocated() {
        List<LogRecord> records = new ArrayList<>();
        System.setProperty(CudaMemory.LEAKS_PROPERTY, "true");
        try {
            listen(
                    records,
                    () -> {
                        try (Arena arena = Arena.ofConfined()) {
                            CudaKernels kernels = new CudaKernels();
                            kernels.allocate(arena, DType.F32, 10);
                            kernels.close();
                        }
                    });
        } finally {
            System.clearProperty(CudaMemory.LEAKS_PROPERTY);
        }
        LogRecord last = records.getLast();
        assertThat(last.getMessage())
                .isEqualTo(
                        "jmoe: 40 bytes of device memory were not freed before the backend was"
                                + " closed");
        assertThat(last.getThrown().getStackTrace())
                .anyMatch(frame -> frame.getClassName().equals(CudaMemoryTest.class.getName()));
    }

    /** The garbage collector only tells; it never frees what an arena owns. */
    @Test
    void arenaThatIsForgotten_isReported() throws InterruptedException {
        List<LogRecord> records = new ArrayList<>();
        System.setProperty(CudaMemory.LEAKS_PROPERTY, "true");
        try (CudaKernels kernels = new CudaKernels()) {
            listen(
                    records,
                    () -> {
                        forget(kernels);
                        for (int i = 0; i < 200 && records.isEmpty(); i++) {
                            System.gc();
                            pause();
                        }
                    });
        } finally {
            System.clearProperty(CudaMemory.LEAKS_PROPERTY);
        }
        assertThat(records.getFirst().getMessage())
                .isEqualTo(
                        "jmoe: 24 bytes of device memory whose arena became unreachable without"
                                + " being closed");
        assertThat(records.getFirst().getThrown()).hasMessage("allocated here");
    }

    private static void forget(CudaKernels kernels) {
        kernels.allocate(Arena.ofShared(), DType.F32, 6);
    }

    /** Memory of an automatic arena is the garbage collector's to free. */
    @Test
    void automaticArena_isFreedByTheGarbageCollector() {
        try (CudaKernels kernels = new CudaKernels()) {
            kernels.allocate(Arena.ofAuto(), DType.F32, 6);
            for (int i = 0; i < 200 && CudaKernels.liveAllocations() > liveBefore; i++) {
                System.gc();
                pause();
            }
            assertThat(CudaKernels.liveAllocations()).isEqualTo(liveBefore);
        }
    }

    private static void pause() {
        try {
            Thread.sleep(20);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private static List<String> warnings(Runnable action) {
        List<LogRecord> records = new ArrayList<>();
        listen(records, action);
        return records.stream().map(record -> new SimpleFormatter().formatMessage(record)).toList();
    }

    private static void listen(List<LogRecord> records, Runnable action) {
        Handler handler =
                new Handler() {
                    @Override
                    public void publish(LogRecord record) {
                        records.add(record);
                    }

                    @Override
                    public void flush() {}

                    @Override
                    public void close() {}
                };
        boolean parents = LOG.getUseParentHandlers();
        LOG.setUseParentHandlers(false);
        LOG.addHandler(handler);
        try {
            action.run();
        } finally {
            LOG.removeHandler(handler);
            LOG.setUseParentHandlers(parents);
        }
    }
}
