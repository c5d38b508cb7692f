package jmoe.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.threads.RaggedItems.Largest;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicIntegerArray;

class RaggedItemsTest {
    private static Tensor offsets(Arena arena, int... offsets) {
        Tensor tensor = Tensor.allocate(arena, DType.I32, offsets.length);
        for (int i = 0; i < offsets.length; i++) {
            tensor.setInt(i, offsets[i]);
        }
        return tensor;
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3})
    void run_coversEveryRowAndBlockOnce(int threads) {
        Random random = new Random(3);
        try (Workers workers = new Workers("test", threads);
                Arena arena = Arena.ofConfined()) {
            RaggedItems items = new RaggedItems(workers);
            for (int repeat = 0; repeat < 200; repeat++) {
                int tile = 1 + random.nextInt(16);
                Largest largest =
                        new Largest(tile * (1 + random.nextInt(5)), tile, 1 + random.nextInt(9));
                int[] firstRow = new int[2 + random.nextInt(9)];
                for (int g = 1; g < firstRow.length; g++) {
                    int rows = random.nextInt(3) == 0 ? 0 : random.nextInt(120);
                    firstRow[g] = firstRow[g - 1] + rows;
                }
                int blocks = random.nextInt(20);
                check(workers, items, offsets(arena, firstRow), firstRow, blocks, largest);
            }
        }
    }

    private static void check(
            Workers workers,
            RaggedItems items,
            Tensor offsets,
            int[] firstRow,
            int blocks,
            Largest largest) {
        int groups = firstRow.length - 1;
        int rows = firstRow[groups];
        AtomicIntegerArray seen = new AtomicIntegerArray(rows * blocks);
        workers.exclusively(() ->
                items.run(
                        offsets,
                        groups,
                        rows,
                        blocks,
                        largest,
                        (worker, group, row, count, block, width) -> {
                            assertThat(worker).isBetween(0, workers.count() - 1);
                            assertThat(count).isBetween(1, largest.rows());
                            assertThat(width).isBetween(1, largest.blocks());
                            assertThat(row).isGreaterThanOrEqualTo(firstRow[group]);
                            long end = row + count;
                            assertThat(end).isLessThanOrEqualTo(firstRow[group + 1]);
                            boolean whole = count % largest.tileRows() == 0;
                            assertThat(whole || end == firstRow[group + 1]).isTrue();
                            for (long r = row; r < end; r++) {
                                for (long b = block; b < block + width; b++) {
                                    seen.incrementAndGet((int) (r * blocks + b));
                                }
                            }
                        }));
        for (int i = 0; i < seen.length(); i++) {
            assertThat(seen.get(i)).isEqualTo(1);
        }
    }

    @Test
    void run_makesItemsForEveryWorkerOfFewRows() {
        try (Workers workers = new Workers("test", 2);
                Arena arena = Arena.ofConfined()) {
            List<Long> firstBlocks = new ArrayList<>();
            workers.exclusively(() ->
                    new RaggedItems(workers)
                            .run(
                                    offsets(arena, 0, 1),
                                    1,
                                    1,
                                    8,
                                    new Largest(60, 12, 8),
                                    (worker, group, row, rows, block, blocks) -> {
                                        synchronized (firstBlocks) {
                                            firstBlocks.add(block);
                                        }
                                    }));
            assertThat(firstBlocks).containsExactlyInAnyOrder(0L, 1L, 2L, 3L, 4L, 5L, 6L, 7L);
        }
    }

    @Test
    void run_refusesOffsetsThatFallOrLeaveTheRows() {
        try (Workers workers = new Workers("test", 2);
                Arena arena = Arena.ofConfined()) {
            RaggedItems items = new RaggedItems(workers);
            for (int[] bad :
                    new int[][] {{-1, 2, 3}, {0, 5, 4}, {0, 2, 9}, {0, Integer.MIN_VALUE, 3}}) {
                assertThatThrownBy(() ->
                                workers.exclusively(() ->
                                        items.run(
                                                offsets(arena, bad),
                                                2,
                                                8,
                                                1,
                                                new Largest(4, 4, 1),
                                                (worker, group, row, rows, block, blocks) -> {
                                                    throw new AssertionError("an item");
                                                })))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageStartingWith("expertOffsets: expected to rise to at most rows=8")
                        .hasMessageEndingWith("another thread must not change them meanwhile");
            }
        }
    }

    /** Items go by the offsets of the beginning, whatever becomes of them. */
    @Test
    void run_readsOffsetsOnce() {
        try (Workers workers = new Workers("test", 1);
                Arena arena = Arena.ofConfined()) {
            Tensor offsets = offsets(arena, 0, 3, 6);
            List<Long> rows = new ArrayList<>();
            workers.exclusively(() ->
                    new RaggedItems(workers)
                            .run(
                                    offsets,
                                    2,
                                    6,
                                    1,
                                    new Largest(1, 1, 1),
                                    (worker, group, row, count, block, blocks) -> {
                                        offsets.setInt(1, 1_000_000);
                                        offsets.setInt(2, -5);
                                        rows.add(row);
                                    }));
            assertThat(rows).containsExactly(0L, 1L, 2L, 3L, 4L, 5L);
        }
    }

    @Test
    void largest_isMadeOfWholeTiles() {
        assertThatThrownBy(() -> new Largest(7, 4, 1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "item: expected rows in whole tiles and at least one block, got 7 rows,"
                                + " tiles of 4, 1 blocks");
        assertThatThrownBy(() -> new Largest(0, 1, 1)).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> new Largest(4, 4, 0)).isInstanceOf(IllegalArgumentException.class);
    }
}
